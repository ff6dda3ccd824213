"""The releases of QH9, and which one a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.data.datasets.qh9_record import Record
from mlip.data.datasets.qh9_rows import Rows
from mlip.data.orbitals import basis_key
from mlip.data.quantum import functional_of

VERSIONS = {"stable": "2.2.1", "dynamic_300k": "2.2.1", "dynamic_100k": "2.3.0"}
"""PySCF that made a variant; all were told "b3lyp", which is another functional since 2.3."""

CODES = {variant: f"PySCF {version}" for variant, version in VERSIONS.items()}

FUNCTIONALS: dict[str, str | None] = {
    **{variant: functional_of("b3lyp", version) for variant, version in VERSIONS.items()},
    "own": None,
}
"""Variants, and the functional of each by our name, see :data:`mlip.data.quantum.PYSCF_NAMES`."""


def choice(option: str, value: Any, known: tuple[Any, ...]) -> Any:
    """Return the value of an option if it is one of the known ones.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in known:
        words = [str(word).lower() if word is False else str(word) for word in known]
        raise ConfigError(f"{option} must be {', '.join(words)}, got {value!r}.{did_you_mean(str(value), words)}")
    return value


def find_variant(variant: str | None, rows: Rows, path: Path) -> str:
    """Return the variant of a file.

    Raises:
        ConfigError: it must be named, or is unknown.
        DataError: it contradicts the layout.
    """
    if variant is None:
        if rows.record is not None:
            return "own"
        if rows.dynamic is False:
            return "stable"
        raise ConfigError(
            f"Set variant: dynamic_300k or dynamic_100k{'' if rows.dynamic else ' or stable'}: '{path}' does not say "
            "which it is, and their functionals differ by millihartrees (own: other data in this format)."
        )
    choice("variant", variant, tuple(FUNCTIONALS))
    if variant != "own" and rows.dynamic is not None and (variant != "stable") != rows.dynamic:
        raise DataError(
            f"'{path}' has {'frames of trajectories (geo_id)' if rows.dynamic else 'no geo_id'}: it is QH9 "
            f"{'Dynamic' if rows.dynamic else 'Stable'}, not variant: {variant}."
        )
    return variant


def find_level(
    variant: str, basis: str | None, functional: str | None, record: Record | None, path: Path
) -> tuple[str, str]:
    """Return basis and functional of a file: those that it states, or those of its variant.

    Args:
        variant: of the file.
        basis: that the user names, None if nobody does.
        functional: likewise.
        record: how the rows were computed, where the file says it.
        path: of the file.

    Raises:
        ConfigError: what is named contradicts the file, or has to be named.
    """
    named = functional or FUNCTIONALS[variant]
    if record is None:
        if named is None:
            raise ConfigError("variant: own needs the functional of the data, e.g. functional: b3lyp5.")
        return basis or "def2-svp", named
    stated = {key: str(record.level_of_theory[key]) for key in ("basis", "functional")}
    if basis is not None and basis_key(basis) != basis_key(stated["basis"]):
        raise ConfigError(f"'{path}' says that its basis is {stated['basis']}, not {basis}. Leave basis at null.")
    if named is not None and named.lower() != stated["functional"]:
        what = f"functional: {functional}" if functional else f"that of variant: {variant}, {named}"
        raise ConfigError(f"'{path}' says that its functional is {stated['functional']}, not {what}. Leave it at null.")
    return stated["basis"], stated["functional"]
