"""Samples of several data sets as one, and energies on another scale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from ase.data import chemical_symbols

from mlip.data.datasets.base import Dataset
from mlip.data.neighbours import Pairs
from mlip.data.sample import Sample
from mlip.data.subset import Subset


class _Derived(Dataset):
    """What is made of other data sets has no files, units and licence of its own."""

    provides = ()
    units = {}  # noqa: RUF012 (an attribute that the base class declares as read-only)
    licence = citation = "not stated"


class Joined(_Derived):
    """Samples of several parts, one after the other; what is known without reading them is handed on.

    Args:
        parts: in order.
    """

    def __init__(self, parts: Sequence[Subset]) -> None:
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        part, within = self._find(index)
        return part[within]

    def fields(self) -> set[str]:
        """Names of the fields that some sample has."""
        return {name for part in self.parts for name in part.fields()}

    def digests(self, indices: Sequence[int]) -> np.ndarray:
        """(indices,) uint64, a hash of each sample."""
        return self._gather(indices, "digests")

    def geometry_digests(self, indices: Sequence[int]) -> np.ndarray:
        """(indices,) uint64, a hash of each geometry."""
        return self._gather(indices, "geometry_digests")

    def num_edges(self, cutoff: float) -> np.ndarray | None:
        """(samples,) edges at a cutoff, None if a part does not know."""
        return _concatenated([part.num_edges(cutoff) for part in self.parts])

    def num_atoms(self) -> np.ndarray | None:
        """(samples,) atoms, None if a part does not know."""
        return _concatenated([part.num_atoms() for part in self.parts])

    def pairs(self, index: int, cutoff: float) -> Pairs | None:
        """A sample's neighbour list where it is kept with the data."""
        part, within = self._find(index)
        return part.pairs(within, cutoff)

    @property
    def in_memory(self) -> bool:
        """Whether all parts are."""
        return all(part.in_memory for part in self.parts)

    def _find(self, index: int) -> tuple[Subset, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.parts[number], index - int(self._starts[number])

    def _gather(self, indices: Sequence[int], what: str) -> np.ndarray:
        """Ask each data set once for all of its samples among these."""
        wanted = np.asarray(indices, dtype=np.int64)
        found = np.empty(len(wanted), dtype=np.uint64)
        for part, first, end in zip(self.parts, self._starts[:-1], self._starts[1:]):
            here = (wanted >= first) & (wanted < end)
            inner = part.indices[wanted[here] - first]
            found[here] = getattr(part.dataset, what)(inner.tolist())
        return found


class ShiftedEnergies(_Derived):
    """Samples whose energies have another zero: ``E + Σ shift_z`` over the atoms.

    Args:
        part: the samples.
        shifts: eV by symbol; elements that are not there are not shifted.
    """

    def __init__(self, part: Subset, shifts: Mapping[str, float]) -> None:
        self.part, self.shifts = part, dict(sorted(shifts.items()))
        self._table = np.array([self.shifts.get(symbol, 0.0) for symbol in chemical_symbols])

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> Sample:
        sample = self.part[index]
        if "energy" not in sample.labels:
            return sample
        energy = sample.labels["energy"] + self._table[sample.atoms.numbers].sum()
        return replace(sample, labels=sample.labels | {"energy": energy})

    def fields(self) -> set[str]:
        """Names of the fields that some sample has."""
        return set(self.part.fields())

    def digests(self, indices: Sequence[int]) -> np.ndarray:
        """(indices,) uint64, a hash of each sample with its shifts, without reading it again."""
        text = json.dumps(self.shifts).encode()
        mark = np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
        return np.asarray(self.part.dataset.digests(self.part.indices[list(indices)].tolist()), dtype=np.uint64) ^ mark

    def geometry_digests(self, indices: Sequence[int]) -> np.ndarray:
        """(indices,) uint64, a hash of each geometry."""
        return self.part.dataset.geometry_digests(self.part.indices[list(indices)].tolist())

    def num_edges(self, cutoff: float) -> np.ndarray | None:
        """(samples,) edges at a cutoff if that is known."""
        return self.part.num_edges(cutoff)

    def num_atoms(self) -> np.ndarray | None:
        """(samples,) atoms if that is known."""
        return self.part.num_atoms()

    def pairs(self, index: int, cutoff: float) -> Pairs | None:
        """A sample's neighbour list where it is kept with the data."""
        return self.part.pairs(index, cutoff)

    @property
    def in_memory(self) -> bool:
        """Whether the samples are."""
        return self.part.in_memory


def _concatenated(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None
