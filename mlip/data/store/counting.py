"""Count the edges of a structure, without listing them."""

from __future__ import annotations

import numpy as np
from vesin import NeighborList

from mlip.data.neighbours import complete_cell, neighbour_list

_BAND = 1e-9
"""Relative distance to the cutoff within which `neighbour_list` itself decides."""


class EdgeCounter:
    """Counts as many edges as `mlip.data.neighbours.neighbour_list` lists, in a third of the time.

    Args:
        cutoff: Å.
    """

    def __init__(self, cutoff: float) -> None:
        self.cutoff = float(cutoff)
        self._finder = NeighborList(cutoff=self.cutoff * (1 + _BAND), full_list=False)

    def __call__(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> int:
        """Return the number of directed edges; arguments and errors as `neighbour_list`, positions finite."""
        box = complete_cell(cell, pbc)
        (distances,) = self._finder.compute(points=positions, box=box, periodic=pbc, quantities="d")
        if distances.max(initial=0.0) > self.cutoff * (1 - _BAND):
            return len(neighbour_list(positions, cell, pbc, self.cutoff)[0])
        return 2 * len(distances)
