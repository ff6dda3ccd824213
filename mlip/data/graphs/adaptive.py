"""A cutoff for every atom, so that each has about as many neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError
from mlip.data.graphs.base import GraphBuilder, check_cutoff, distances, take
from mlip.data.neighbours import Pairs, neighbour_list

_POWER = 12
_ITERATIONS = 200


class Adaptive(GraphBuilder):
    """Edges are the pairs with ``r_ij < (c_i + c_j) / 2``, with a cutoff c_i for every atom that adapts to its density.

    c_i solves ``N_i(c) = target_neighbors`` for a count of the neighbours within c that is smooth in c and in all
    positions, with x = (c − r_ij) / width and s(x) = 10x³ − 15x⁴ + 6x⁵ between 0 and 1:

        N_i(c) = Σ_j s(x) + target_neighbors · (c / cutoff)^12.

    Neighbours enter the count with zero weight at r_ij = c. The last term makes the count grow everywhere and reach the
    target at the largest cutoff: where there are few atoms c_i tends to ``cutoff``, and no atom beyond it matters. So
    every c_i is a twice differentiable function of the positions. It is the idea of the adaptive cutoffs of PET
    (in metatrain) and of Smooth Dynamic Cutoffs (arXiv 2601.21147), with a count that is solved, not averaged.

    The target is of effective neighbours: those within ``width`` below c_i count less than one, so that there are
    somewhat more edges than the target.

    The edges themselves still come and go at ``(c_i + c_j) / 2``, where the envelope of a model at ``cutoff`` is not
    zero: not smooth.

    Args:
        cutoff: largest cutoff of an atom, Å.
        target_neighbors: effective neighbours an atom should have.
        width: Å over which a neighbour enters the count.
    """

    smooth = False

    def __init__(self, cutoff: float, target_neighbors: float, width: float = 0.5) -> None:
        self.cutoff = check_cutoff("Adaptive", cutoff)
        for name, value in (("target_neighbors", target_neighbors), ("width", width)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ConfigError(f"Adaptive needs {name} as a positive number, got {value!r}.")
        self.target_neighbors, self.width = float(target_neighbors), float(width)

    @property
    def description(self) -> str:
        """See :class:`GraphBuilder`."""
        return (
            f"pairs within cutoffs that adapt to {self.target_neighbors!r} neighbours, at most {self.cutoff!r} Å "
            f"(width {self.width!r} Å)"
        )

    def select(self, pairs: Pairs, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """See :class:`GraphBuilder`."""
        lengths = distances(pairs, atoms)
        cutoffs = self._solve(pairs[1], lengths, len(atoms))
        return take(pairs, lengths < (cutoffs[pairs[0]] + cutoffs[pairs[1]]) / 2)

    def atom_cutoffs(self, atoms: Atoms) -> np.ndarray:
        """Return (atoms,) c_i in Å, in (0, cutoff]."""
        pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff)
        return self._solve(pairs[1], distances(pairs, atoms), len(atoms))

    def _solve(self, receivers: np.ndarray, lengths: np.ndarray, num_atoms: int) -> np.ndarray:
        """Solve for all cutoffs at once, by Newton steps that stay within a bracket."""
        low, high = np.zeros(num_atoms), np.full(num_atoms, self.cutoff)
        cutoffs = 0.5 * high
        for _ in range(_ITERATIONS):
            count, slope = self._count(cutoffs, receivers, lengths)
            excess = count - self.target_neighbors
            low, high = np.where(excess < 0, cutoffs, low), np.where(excess < 0, high, cutoffs)
            newton = cutoffs - excess / np.maximum(slope, np.finfo(float).tiny)
            inside = (newton >= low) & (newton <= high)
            following = np.where(inside, newton, 0.5 * (low + high))
            done = np.abs(following - cutoffs).max(initial=0.0) <= 1e-13 * self.cutoff
            cutoffs = following
            if done:
                break
        return cutoffs

    def _count(self, cutoffs: np.ndarray, receivers: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return N_i(c_i) and its derivative (1/Å), both (atoms,)."""
        x = np.clip((cutoffs[receivers] - lengths) / self.width, 0.0, 1.0)
        steps = x**3 * (10 + x * (6 * x - 15))
        slopes = 30 * (x * (1 - x)) ** 2 / self.width
        rest = self.target_neighbors * (cutoffs / self.cutoff) ** (_POWER - 1)
        count = np.bincount(receivers, steps, len(cutoffs)) + rest * cutoffs / self.cutoff
        return count, np.bincount(receivers, slopes, len(cutoffs)) + rest * _POWER / self.cutoff
