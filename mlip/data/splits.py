"""Training, validation and test parts of a data set, as plain lists of indices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, DataError
from mlip.data.sample import Sample

Part: TypeAlias = int | float | Sequence[int] | str | PathLike[str] | None
"""A count, a fraction, a list of indices, or a text file with one index a line."""

PARTS = ("train", "valid", "test")
DECIMALS = 6
"""Geometries that agree to this many decimals of an Å are the same."""


def split_indices(
    num_samples: int, train: Part, valid: Part = 0, test: Part = 0, seed: int = 0
) -> dict[str, list[int]]:
    """Split ``range(num_samples)``.

    Counts (``450``) and fractions (``0.9``) are drawn without overlap from a permutation of the samples that
    depends on the seed alone; lists of indices and index files are taken as they are. The two ways cannot be
    mixed.

    Returns:
        ``{"train": […], "valid": […], "test": […]}``.

    Raises:
        ConfigError: more samples are asked for than there are, an empty training part, or a value that is no
            part.
        DataError: listed indices that overlap, repeat, or are outside the data set.
    """
    parts = {"train": train, "valid": valid, "test": test}
    drawn = {name: part for name, part in parts.items() if _is_number(part)}
    listed = {name: part for name, part in parts.items() if name not in drawn and part is not None}
    if listed and any(part != 0 for part in drawn.values()):
        raise ConfigError(
            f"Split parts must all be counts or fractions, or all be lists: {', '.join(listed)} is listed, "
            f"{', '.join(name for name, part in drawn.items() if part != 0)} is not."
        )
    if listed:
        split = {name: _listed(name, listed.get(name), num_samples) for name in PARTS}
        check_disjoint(split)
    else:
        split = _draw(num_samples, {name: drawn.get(name, 0) for name in PARTS}, seed)
    if not split["train"]:
        raise ConfigError(f"The training part is empty: train={train!r} of {num_samples} samples.")
    return split


def _is_number(part: Part) -> bool:
    return isinstance(part, int | float) and not isinstance(part, bool)


def _draw(num_samples: int, parts: Mapping[str, int | float], seed: int) -> dict[str, list[int]]:
    counts = {name: _count(name, part, num_samples) for name, part in parts.items()}
    # Fractions that add up to one leave nothing over through rounding.
    fractions = all(isinstance(part, float) or part == 0 for part in parts.values())
    if fractions and abs(sum(parts.values()) - 1) < 1e-9:
        counts["train"] += num_samples - sum(counts.values())
    if sum(counts.values()) > num_samples:
        wanted = ", ".join(f"{name}={count}" for name, count in counts.items())
        raise ConfigError(f"The split asks for more samples than the data set has: {wanted} of {num_samples}.")
    order = np.random.default_rng(seed).permutation(num_samples)
    split, start = {}, 0
    for name, count in counts.items():
        split[name] = sorted(int(index) for index in order[start : start + count])
        start += count
    return split


def _count(name: str, part: int | float, num_samples: int) -> int:
    if isinstance(part, float) and not 0.0 <= part <= 1.0:
        raise ConfigError(f"{name} must be a fraction from 0 to 1 or a whole number of samples, got {part}.")
    if part < 0:
        raise ConfigError(f"{name} must not be negative, got {part}.")
    # Python floats such as 0.29 · 100 = 28.999…96 must not lose a sample.
    return int(part * num_samples + 1e-9) if isinstance(part, float) else part


def _listed(name: str, part: Part, num_samples: int) -> list[int]:
    if part is None:
        return []
    indices = _read_indices(Path(part)) if isinstance(part, str | PathLike) else list(part)  # type: ignore[arg-type]
    wrong = [i for i in indices if not isinstance(i, int | np.integer) or not 0 <= i < num_samples]
    if wrong:
        raise DataError(
            f"The {name} part lists {wrong[0]!r}, which is no sample: indices go from 0 to {num_samples - 1}."
        )
    return [int(index) for index in indices]


def _read_indices(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.expanduser().read_text(encoding="utf-8").split()]
    except OSError as error:
        raise DataError(f"Cannot read the index file '{path}': {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"The index file '{path}' must hold whole numbers only: {error}.") from error


def check_disjoint(split: Mapping[str, Sequence[int]]) -> None:
    """Refuse a sample that is listed twice, in one part or in two.

    Raises:
        DataError: names the sample and the parts.
    """
    owner: dict[int, str] = {}
    for name, indices in split.items():
        for index in indices:
            if index in owner:
                raise DataError(f"Sample {index} is listed twice: in {owner[index]} and in {name}.")
            owner[index] = name


def geometry_hash(atoms: Atoms) -> str:
    """Hash of numbers, positions, and cell along periodic axes, to a millionth of an Å.

    Copies that were moved or turned are other geometries.
    """
    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    # Adding zero turns −0.0 into 0.0, which has other bytes.
    rounded = np.round(np.concatenate([atoms.positions, cell]), DECIMALS) + 0.0
    return hashlib.sha256(atoms.numbers.astype("<i8").tobytes() + rounded.astype("<f8").tobytes()).hexdigest()


def check_duplicates(parts: Mapping[str, Sequence[Sample]], allow: bool = False) -> int:
    """Refuse geometries that are in more than one part: a test on training data measures nothing.

    Args:
        parts: samples by name of the part; they may come from different files.
        allow: only count them.

    Returns:
        Number of geometries in more than one part.

    Raises:
        DataError: there are some and ``allow`` is false; names the first pair.
    """
    owner: dict[str, tuple[str, str]] = {}
    shared: list[tuple[str, str, str, str]] = []
    for name, samples in parts.items():
        for sample in samples:
            part, source = owner.setdefault(geometry_hash(sample.atoms), (name, sample.source))
            if part != name:
                shared.append((part, source, name, sample.source))
    if shared and not allow:
        part, source, other_part, other_source = shared[0]
        raise DataError(
            f"{len(shared)} geometries are in two parts, first {source} ({part}) and {other_source} "
            f"({other_part}). Remove the copies, or set allow_duplicates: true."
        )
    return len(shared)


def split_samples(
    samples: Sequence[Sample],
    train: Part = 0.9,
    valid: Part = 0.1,
    test: Part = 0,
    seed: int = 0,
    allow_duplicates: bool = False,
) -> dict[str, list[int]]:
    """Split samples and check that no geometry is in two parts.

    Args:
        samples: a data set or a list.
        train, valid, test, seed: as `split_indices`.
        allow_duplicates: accept the same geometry in two parts.

    Raises:
        ConfigError, DataError: as `split_indices` and `check_duplicates`.
    """
    split = split_indices(len(samples), train, valid, test, seed)
    check_duplicates({name: [samples[i] for i in part] for name, part in split.items()}, allow_duplicates)
    return split
