"""One structure under check, with what several checks need of it, computed once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from ase.data import covalent_radii

from mlip.core.errors import StructureError
from mlip.data.content_hash import geometry_hash
from mlip.data.neighbours import complete_cell, neighbour_list
from mlip.data.sample import Sample


class Frame:
    """A sample, its number in its part, and lazily its neighbours.

    Args:
        sample: as the data set gives it.
        part: number of the file set it comes from: 0 for ``path``, 1 for ``valid_path``, 2 for ``test_path``.
        number: from 0 among the structures of its part.
        cutoff: Å.
    """

    def __init__(self, sample: Sample, part: int, number: int, cutoff: float) -> None:
        self.sample = sample
        self.part = part
        self.number = number
        self.cutoff = cutoff
        self.atoms = sample.atoms
        self.labels = sample.labels
        self.numbers = sample.atoms.numbers
        self.source = sample.source

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def composition(self) -> tuple[tuple[int, int], ...]:
        """(atomic number, count) of every element, sorted."""
        elements, counts = np.unique(self.numbers, return_counts=True)
        return tuple(zip(elements.tolist(), counts.tolist()))

    @cached_property
    def periodic(self) -> bool:
        """Whether all three axes are periodic."""
        return bool(self.atoms.pbc.all())

    @cached_property
    def volume(self) -> float:
        """Å³; NaN unless all axes are periodic."""
        return float(abs(np.linalg.det(self.atoms.cell.array))) if self.periodic else np.nan

    @cached_property
    def damage(self) -> str:
        """Why this is no structure that a model could see; "" if it is one."""
        _ = self._neighbours
        return self._damage

    @cached_property
    def _neighbours(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Receivers, senders and vectors from receiver to sender."""
        atoms, self._damage = self.atoms, ""
        try:
            senders, receivers, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff)
            cell = complete_cell(atoms.cell.array, atoms.pbc)
        except StructureError as error:
            self._damage = str(error)
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3))
        return receivers, senders, atoms.positions[senders] - atoms.positions[receivers] + shifts @ cell

    @property
    def receivers(self) -> np.ndarray:
        """(edges,) the atom an edge belongs to."""
        return self._neighbours[0]

    @property
    def senders(self) -> np.ndarray:
        """(edges,) its neighbour."""
        return self._neighbours[1]

    @property
    def vectors(self) -> np.ndarray:
        """(edges, 3) from the atom to its neighbour, Å."""
        return self._neighbours[2]

    @cached_property
    def distances(self) -> np.ndarray:
        """(edges,) Å."""
        return np.linalg.norm(self.vectors, axis=1)

    @cached_property
    def relative_distances(self) -> np.ndarray:
        """(edges,) distances over the sums of covalent radii."""
        radii = covalent_radii[self.numbers]
        return self.distances / (radii[self.receivers] + radii[self.senders])

    @cached_property
    def num_neighbours(self) -> np.ndarray:
        """(atoms,) edges of each atom."""
        return np.bincount(self.receivers, minlength=len(self))

    @cached_property
    def one_sided(self) -> np.ndarray:
        """(atoms,) from 0 to 1: how unevenly the neighbours are spread around each atom.

        The sum of unit vectors to the neighbours, weighted by distance and element, over the sum of weights. An atom
        whose force vanishes by symmetry has 0; so has one without neighbours.
        """
        weights = (1 - self.distances / self.cutoff) ** 2 * np.sqrt(self.numbers[self.senders])
        towards = self.vectors * (weights / np.maximum(self.distances, 1e-12))[:, None]
        total = np.bincount(self.receivers, weights, len(self))
        columns = [np.bincount(self.receivers, column, len(self)) for column in towards.T]
        return np.linalg.norm(np.stack(columns, axis=1), axis=1) / np.maximum(total, 1e-12)

    @cached_property
    def geometry(self) -> int:
        """Hash of the system: structure, charge and multiplicity."""
        extra = tuple(int(self.labels[name]) for name in ("charge", "spin") if name in self.labels)
        # Python's hash of integers is the same in every process.
        return geometry_hash(self.atoms) ^ (hash(extra) & 0xFFFFFFFFFFFFFFFF if extra else 0)

    def label(self, name: str) -> np.ndarray | None:
        """Return a label, None where the sample has none or one that is not finite."""
        value = self.labels.get(name)
        return value if value is not None and np.isfinite(value).all() else None
