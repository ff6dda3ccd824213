"""Geometries that are in more than one part of the data: a test on training data measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlip.core.errors import DataError
from mlip.data.sample import Sample
from mlip.data.subset import as_subset


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
    digests = np.concatenate([part.geometry_digests for part in subsets])
    owner = np.repeat(np.arange(len(subsets)), [len(part) for part in subsets])
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    shared = np.flatnonzero(owner != owner[first[which]])
    if len(shared) and not allow:
        starts = np.cumsum([0, *(len(part) for part in subsets)])
        names = list(parts)
        pair = [int(first[which[shared[0]]]), int(shared[0])]
        (source, part), (other_source, other_part) = [
            (subsets[owner[k]][k - int(starts[owner[k]])].source, names[owner[k]]) for k in pair
        ]
        raise DataError(
            f"{len(shared)} geometries are in two parts, first {source} ({part}) and {other_source} "
            f"({other_part}). Remove the copies, or set allow_duplicates: true."
        )
    return len(shared)
