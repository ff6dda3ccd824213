"""The published splits of QH9, from their rules.

The rules were checked against SPHNet's index files, which they reproduce number by number.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from mlip.core.errors import ConfigError, DataError, did_you_mean

STABLE_SPLITS = ("stable_iid", "stable_ood")
DYNAMIC_SPLITS = ("dynamic_geo", "dynamic_mol")
SPLITS = (*STABLE_SPLITS, *DYNAMIC_SPLITS)

STABLE_ROWS = 130_831
DYNAMIC_ROWS = {299_800: 100, 99_900: 100, 143_940: 60}
"""Rows of the published Dynamic files, and frames of each molecule: 300k, 100k, and the release of 2023 that
SPHNet's index files belong to."""

SEED = 43
LARGEST_TRAINED = 20
"""Atoms of the largest molecules to train on in stable_ood; two more are validated on, the rest are the test."""

LARGEST_VALIDATED = 22

PARTS = ("train", "valid", "test")


def known_split(name: str, dynamic: bool) -> str:
    """Return the name of a split that fits the data.

    Raises:
        ConfigError: no such split, or it is for the other half of QH9.
    """
    fitting = DYNAMIC_SPLITS if dynamic else STABLE_SPLITS
    if name not in SPLITS:
        raise ConfigError(
            f"QH9 has no official split '{name}'.{did_you_mean(str(name), SPLITS)} For these data: "
            f"{', '.join(fitting)}."
        )
    if name not in fitting:
        raise ConfigError(
            f"The split {name} is for QH9 {'Stable' if dynamic else 'Dynamic'}, these data are "
            f"{'Dynamic' if dynamic else 'Stable'}: {' or '.join(fitting)}."
        )
    return name


def check_release(name: str, num_rows: int, frames: Sequence[int] | None) -> None:
    """Refuse a file that is not the whole published one, to which the official indices do not belong.

    Args:
        name: of the split.
        num_rows: rows of the file.
        frames: of each molecule, of Dynamic data.

    Raises:
        DataError: another size.
    """
    if name in STABLE_SPLITS:
        right = num_rows == STABLE_ROWS
        expected = f"{STABLE_ROWS:,} rows"
    else:
        each = DYNAMIC_ROWS.get(num_rows)
        right = each is not None and frames is not None and set(frames) == {each}
        expected = " or ".join(f"{rows // n:,} molecules with {n} frames each" for rows, n in DYNAMIC_ROWS.items())
    if not right:
        has = f"{num_rows:,} rows"
        if frames is not None and name in DYNAMIC_SPLITS:
            each_has = f"{min(frames)}" if len(set(frames)) == 1 else f"{min(frames)} to {max(frames)}"
            has = f"{len(frames):,} molecules with {each_has} frames each"
        raise DataError(
            f"The official split {name} is for {expected}, these data have {has}. Set split_rule: this_file to apply "
            "its rule to these data (numbers are then not comparable with published ones), or use split.by: group."
        )


def stable_iid(num_rows: int) -> dict[str, np.ndarray]:
    """Return the random split 80/10/10 of Stable."""
    return _cut(np.random.RandomState(SEED).permutation(num_rows))


def stable_ood(num_atoms: np.ndarray) -> dict[str, np.ndarray]:
    """Return the split of Stable by size: small molecules to train on, large ones as the test.

    Args:
        num_atoms: (rows,) atoms of each molecule.
    """
    small, large = num_atoms <= LARGEST_TRAINED, num_atoms > LARGEST_VALIDATED
    return dict(zip(PARTS, (np.flatnonzero(mask) for mask in (small, ~small & ~large, large)), strict=True))


def dynamic_geo(frames: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the split 80/10/10 of the frames of every molecule.

    Args:
        frames: number of frames of each molecule, which stand together in the order of the file.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    start = 0
    for count in frames:
        # The published rule seeds each molecule with the row of its last frame.
        order = np.random.RandomState(start + count - 1).permutation(count)
        for name, rows in _cut(order).items():
            parts[name].append(start + rows)
        start += count
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def dynamic_mol(frames: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the split 80/10/10 of the molecules, each with all its frames, in the order of the file.

    Args:
        frames: as for `dynamic_geo`.
    """
    molecules = list(range(len(frames)))
    random.Random(SEED).shuffle(molecules)
    starts = np.concatenate([[0], np.cumsum(frames)]).astype(np.int64)
    return {
        name: np.concatenate([np.arange(starts[m], starts[m + 1]) for m in sorted(chosen.tolist())] or [starts[:0]])
        for name, chosen in _cut(np.array(molecules, dtype=np.int64)).items()
    }


def runs(groups: np.ndarray) -> list[int]:
    """Return the lengths of the runs of equal values.

    Raises:
        DataError: a value comes back after another one: the frames of a molecule do not stand together.
    """
    ends = np.flatnonzero(np.diff(groups)) + 1
    edges = np.concatenate([[0], ends, [len(groups)]])
    if len(np.unique(groups)) != len(ends) + 1:
        raise DataError(
            "The frames of a molecule must follow each other for QH9's splits; these data have a molecule whose frames "
            "stand in several places."
        )
    return np.diff(edges).tolist()


def _cut(order: np.ndarray) -> dict[str, np.ndarray]:
    train, valid = int(0.8 * len(order)), int(0.1 * len(order))
    return dict(zip(PARTS, np.split(order, [train, train + valid]), strict=True))
