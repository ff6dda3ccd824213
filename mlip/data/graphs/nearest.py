"""The k nearest neighbours of every atom."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from mlip.data.graphs.base import (
    TIED,
    GraphBuilder,
    check_count,
    check_cutoff,
    check_tolerance,
    closest,
    distances,
    kth_distances,
)
from mlip.data.graphs.fully_connected import FullyConnected
from mlip.data.neighbours import Pairs, complete_cell, neighbour_list

_START = 4.0
"""Å: radius of the first search without a limit."""
_GROWTH = 1.3
_SMALL = 256
"""Atoms of a molecule of which all pairs are soon looked at, however far apart its parts are."""


class Nearest(GraphBuilder):
    """Edges point to atom i from its ``num_neighbors`` nearest periodic images (Facet's fixed-k graph).

    All images within ``tolerance`` of the k-th distance are edges, too: equivalent atoms of a crystal keep
    equivalent neighbours, at the price of some more edges than k. A molecule of fewer atoms has all of its pairs.

    The graph is directed: j may be among the nearest of i and not i among those of j. When atoms move, the k-th
    neighbour changes at a distance where the envelope of a model is not zero: energies jump, forces do not tell.

    Args:
        num_neighbors: k.
        cutoff: limit of the search in Å, beyond which an atom has fewer neighbours; None for none.
        tolerance: Å.
    """

    smooth = False

    def __init__(self, num_neighbors: int, cutoff: float | None = None, tolerance: float = TIED) -> None:
        self.num_neighbors = check_count("Nearest", "num_neighbors", num_neighbors)
        self.cutoff = math.inf if cutoff is None else check_cutoff("Nearest", cutoff)
        self.tolerance = check_tolerance("Nearest", tolerance)

    @property
    def description(self) -> str:
        """See :class:`GraphBuilder`."""
        limit = f" within {self.cutoff!r} Å" if math.isfinite(self.cutoff) else ""
        return f"the {self.num_neighbors} nearest neighbours{limit} (ties to {self.tolerance!r} Å)"

    def __call__(self, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """See :class:`GraphBuilder`."""
        if math.isfinite(self.cutoff):
            return super().__call__(atoms, labels)
        if not atoms.pbc.any() and len(atoms) <= _SMALL:
            return self.select(FullyConnected()(atoms), atoms)
        wanted = self.num_neighbors if atoms.pbc.any() else min(self.num_neighbors, len(atoms) - 1)
        radius = _first_radius(atoms, wanted)
        while True:
            pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, radius)
            last = kth_distances(pairs[1], distances(pairs, atoms), len(atoms), wanted)
            # Those tied with the last one must have been found, too.
            if last.max(initial=0.0) + self.tolerance < radius:
                return self.select(pairs, atoms)
            radius *= _GROWTH

    def select(self, pairs: Pairs, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """See :class:`GraphBuilder`."""
        return closest(pairs, atoms, self.num_neighbors, self.tolerance)


def _first_radius(atoms: Atoms, wanted: int) -> float:
    """Return a radius to begin with: that of a sphere with as many atoms in a dense cell, but no large one."""
    if not atoms.pbc.all():
        return _START
    # Refuses a cell without volume.
    volume = abs(np.linalg.det(complete_cell(atoms.cell.array, atoms.pbc)))
    return min(_START, (3 * (wanted + 1) * volume / (4 * math.pi * len(atoms))) ** (1 / 3))
