"""Some samples of a data set, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from mlip.data.content_hash import combined_hash
from mlip.data.datasets.base import Dataset
from mlip.data.neighbours import Pairs
from mlip.data.sample import Sample


class SampleList(Dataset):
    """Samples that are in memory already, as a data set.

    Args:
        samples: in order.
    """

    provides = ()
    units = {}  # noqa: RUF012 (an attribute that the base class declares as read-only)
    licence = citation = "not stated"

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    @property
    def in_memory(self) -> bool:
        """True."""
        return True


class Subset(Sequence[Sample]):
    """Samples of a data set by index; what is known without reading them is handed on.

    Args:
        dataset: where they come from.
        indices: which samples, in order.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.dataset[int(self.indices[index])]

    def __iter__(self) -> Iterator[Sample]:
        return (self.dataset[index] for index in self.indices.tolist())

    @cached_property
    def content_hash(self) -> str:
        """One hash of all structures and labels, in order, see :func:`mlip.data.content_hash.content_hash`."""
        return combined_hash(self.dataset.digests(self.indices.tolist()).tolist())

    @cached_property
    def geometry_digests(self) -> np.ndarray:
        """(samples,) uint64, a hash of each geometry."""
        return self.dataset.geometry_digests(self.indices.tolist())

    def num_edges(self, cutoff: float) -> np.ndarray | None:
        """(samples,) edges at a cutoff, None if that is not known without building graphs."""
        known = self.dataset.num_edges(cutoff)
        return None if known is None else known[self.indices]

    def num_atoms(self) -> np.ndarray | None:
        """(samples,) atoms, None if that is not known without reading the samples."""
        known = self.dataset.num_atoms()
        return None if known is None else known[self.indices]

    def pairs(self, index: int, cutoff: float) -> Pairs | None:
        """A sample's neighbour list at a cutoff where it is kept with the data, else None."""
        return self.dataset.pairs(int(self.indices[index]), cutoff)

    @property
    def in_memory(self) -> bool:
        """Whether the samples are in memory anyway."""
        return self.dataset.in_memory

    def fields(self) -> tuple[str, ...]:
        """Names of the fields that some sample has, sorted."""
        known = self.dataset.fields()
        if known is None:
            known = {name for sample in self for name in sample.labels}
        return tuple(sorted(known))


def as_subset(samples: Sequence[Sample]) -> Subset:
    """Return samples as a `Subset`, whatever kind of sequence they are."""
    if isinstance(samples, Subset):
        return samples
    dataset = samples if isinstance(samples, Dataset) else SampleList(samples)
    return Subset(dataset, range(len(dataset)))
