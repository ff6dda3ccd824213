"""The interface of graph builders, and what several of them share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError
from mlip.data.neighbours import Pairs, neighbour_list, pair_vectors

TIED = 0.01
"""Å. Neighbours whose distances differ by less are taken for equally far, as they are in a symmetric crystal."""


class GraphBuilder(ABC):
    """Which pairs of atoms are edges: a function of a structure.

    A builder is deterministic, and neither the order of the atoms nor the orientation, the position or the choice of
    the cell changes its edges. Atoms without edges stay in the graph.

    A builder with a finite `cutoff` chooses among the pairs within it, in `select`, so that a neighbour list which is
    kept (in MD, or with the data) serves all of them. Others override `__call__`.

    Attributes:
        cutoff: Å; no edge is as long as it. inf if there is no limit.
        smooth: whether the energy of a model with an envelope stays continuous when atoms move: an edge appears and
            vanishes only where the envelope of the cutoff is zero.
        periodic: whether periodic structures have such a graph.
        needs: labels (inputs such as ``tags``) that it is called with.
    """

    cutoff: float
    smooth: bool = True
    periodic: bool = True
    needs: tuple[str, ...] = ()

    def __call__(self, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """Return the edges, ordered by receiver, sender and shift as `neighbour_list` does.

        Args:
            atoms: positions in Å.
            labels: of the structure, by field name.

        Raises:
            StructureError: positions are not finite, periodic axes span no volume, or a label that it needs is
                missing.
        """
        pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff)
        return self.select(pairs, atoms, labels)

    def select(self, pairs: Pairs, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """Return the edges out of all pairs within a finite `cutoff`, in their order; here all."""
        return pairs

    @property
    @abstractmethod
    def description(self) -> str:
        """What an edge is, in words, with every option: two builders with the same words draw the same edges."""


def check_cutoff(builder: str, cutoff: float) -> float:
    """Return a cutoff as a float.

    Raises:
        ConfigError: not a positive length.
    """
    if isinstance(cutoff, bool) or not isinstance(cutoff, int | float) or not 0 < cutoff < math.inf:
        raise ConfigError(f"{builder} needs a cutoff that is a positive length in Å, got {cutoff!r}.")
    return float(cutoff)


def check_count(builder: str, name: str, count: int) -> int:
    """Return a number of neighbours.

    Raises:
        ConfigError: not a positive integer.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"{builder} needs {name} as an integer of at least 1, got {count!r}.")
    return count


def check_tolerance(builder: str, tolerance: float) -> float:
    """Return the difference of distances that counts as a tie.

    Raises:
        ConfigError: not a length of at least zero.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise ConfigError(f"{builder} needs a tolerance that is a length in Å of at least 0, got {tolerance!r}.")
    return float(tolerance)


def distances(pairs: Pairs, atoms: Atoms) -> np.ndarray:
    """Return (edges,) in Å."""
    # Rows of open axes may hold anything, and are multiplied by zero.
    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    vectors = pair_vectors(pairs, atoms.positions, cell)
    return np.sqrt(np.einsum("ej,ej->e", vectors, vectors))


def take(pairs: Pairs, chosen: np.ndarray) -> Pairs:
    """Return the chosen pairs (a mask), in their order."""
    senders, receivers, shifts = pairs
    return senders[chosen], receivers[chosen], shifts[chosen]


def kth_distances(receivers: np.ndarray, lengths: np.ndarray, num_atoms: int, k: int) -> np.ndarray:
    """Return (atoms,) the distance to each atom's k-th nearest neighbour, inf where there are fewer.

    Args:
        receivers: (edges,) ascending.
        lengths: (edges,) Å.
        num_atoms: number of atoms.
        k: at least 1.
    """
    counts = np.bincount(receivers, minlength=num_atoms)
    ordered = lengths[np.lexsort((lengths, receivers))]
    kth = np.full(num_atoms, np.inf)
    enough = counts >= k
    kth[enough] = ordered[(np.cumsum(counts) - counts)[enough] + k - 1]
    return kth


def closest(pairs: Pairs, atoms: Atoms, k: int, tolerance: float) -> Pairs:
    """Keep of every receiver the k nearest senders, and all that are as near as the k-th up to the tolerance."""
    lengths = distances(pairs, atoms)
    kth = kth_distances(pairs[1], lengths, len(atoms), k)
    return take(pairs, lengths <= kth[pairs[1]] + tolerance)
