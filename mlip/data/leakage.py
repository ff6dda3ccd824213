"""Geometries that are in more than one part of the data: a test on training data measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlip.core.errors import DataError
from mlip.data.sample import Sample
from mlip.data.subset import as_subset


def shared_geometries(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return where geometries of one part are in an earlier part, too.

    Args:
        parts: (structures,) hashes of geometries of each part.

    Returns:
        (pairs, 2) places in all parts one after the other: of the first structure with that geometry, and of the other.
    """
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    _, first, which = np.unique(np.concatenate(list(parts)), return_index=True, return_inverse=True)
    shared = np.flatnonzero(owner != owner[first[which]])
    return np.stack([first[which[shared]], shared], axis=1)


def check_duplicates(parts: Mapping[str, Sequence[Sample]], allow: bool = False) -> int:
    """Refuse geometries that are in more than one part.

    Args:
        parts: samples by name of the part; they may come from different files.
        allow: only count them.

    Returns:
        Number of samples whose geometry is in an earlier part, too.

    Raises:
        DataError: there are some and ``allow`` is false; names the first pair.
    """
    subsets = [as_subset(samples) for samples in parts.values()]
    shared = shared_geometries([part.geometry_digests for part in subsets])
    if len(shared) and not allow:
        starts = np.cumsum([0, *(len(part) for part in subsets)])
        names = list(parts)
        owners = np.searchsorted(starts, shared[0], side="right") - 1
        (source, part), (other_source, other_part) = [
            (subsets[owner][place - int(starts[owner])].source, names[owner])
            for owner, place in zip(owners.tolist(), shared[0].tolist())
        ]
        raise DataError(
            f"{len(shared)} geometries are in two parts, first {source} ({part}) and {other_source} "
            f"({other_part}). Remove the copies, or accept them with data.split.allow_duplicates=true."
        )
    return len(shared)
