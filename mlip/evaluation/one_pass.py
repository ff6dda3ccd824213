"""Samples that several readers want, read once: reading one may compute an initial guess for seconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.data.content_hash import combined_hash, sample_hash
from mlip.data.datasets.base import Dataset
from mlip.data.neighbours import Pairs
from mlip.data.sample import Sample
from mlip.data.subset import Subset


class OnePass(Dataset):
    """Samples that are read once, in order, for the graphs and for whoever goes through `taken` beside them.

    A sample is kept from its first reading until it is taken, and then for as long as there is room.

    Args:
        samples: where they come from.
        room: bytes of labels that are kept after they were taken; a sample beyond is read again when it is asked for.
    """

    provides = ()
    units = {}  # noqa: RUF012 (an attribute that the base class declares as read-only)
    licence = citation = "not stated"

    def __init__(self, samples: Subset, room: int = 0) -> None:
        self._samples, self._room = samples, room
        self._kept: dict[int, Sample] = {}
        self._digests = np.zeros(len(samples), dtype=np.uint64)
        self._read = np.zeros(len(samples), dtype=bool)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        sample = self._samples[index]
        if not self._read[index]:
            self._read[index], self._digests[index] = True, sample_hash(sample)
            self._kept[index] = sample
        return sample

    def taken(self) -> Iterator[Sample]:
        """Yield the samples in order, and forget those for which there is no room; to be gone through once."""
        for index in range(len(self)):
            yield self[index]
            self._room -= sum(np.asarray(label).nbytes for label in self._kept[index].labels.values())
            if self._room < 0:
                del self._kept[index]

    @property
    def content_hash(self) -> str:
        """As that of the samples, when all of them have been read."""
        return combined_hash(self._digests.tolist())

    def fields(self) -> set[str]:
        """Return the names of the fields that some sample has."""
        return set(self._samples.fields())

    def num_edges(self, cutoff: float) -> np.ndarray | None:
        """Return (samples,) edges at a cutoff if that is known without building graphs, else None."""
        return self._samples.num_edges(cutoff)

    def num_atoms(self) -> np.ndarray | None:
        """Return (samples,) atoms if that is known without reading the samples, else None."""
        return self._samples.num_atoms()

    def pairs(self, index: int, cutoff: float) -> Pairs | None:
        """Return a sample's neighbour list at a cutoff if it is kept with the data, else None."""
        return self._samples.pairs(index, cutoff)

    @property
    def in_memory(self) -> bool:
        """Whether all samples are in memory anyway."""
        return self._samples.in_memory
