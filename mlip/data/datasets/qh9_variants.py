"""The releases of QH9, and which one a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.data.datasets.qh9_rows import Rows
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
