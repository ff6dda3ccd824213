"""All pairs within a cutoff, but only the nearest of an atom that has too many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms

from mlip.data.graphs.base import TIED, GraphBuilder, check_count, check_cutoff, check_tolerance, closest
from mlip.data.neighbours import Pairs


class RadiusMaxNeighbors(GraphBuilder):
    """Edges are the pairs within the cutoff; an atom with more than ``max_neighbors`` keeps the nearest (OC20).

    All pairs within ``tolerance`` of the last distance that is kept are edges, too, so that equivalent atoms keep
    equivalent neighbours. `mlip.data.graphs.nearest.Nearest` with a limit has the same edges; here the cutoff is the
    rule and the number the exception.

    Args:
        cutoff: Å.
        max_neighbors: most senders of a receiver.
        tolerance: Å.
    """

    smooth = False

    def __init__(self, cutoff: float, max_neighbors: int, tolerance: float = TIED) -> None:
        self.cutoff = check_cutoff("RadiusMaxNeighbors", cutoff)
        self.max_neighbors = check_count("RadiusMaxNeighbors", "max_neighbors", max_neighbors)
        self.tolerance = check_tolerance("RadiusMaxNeighbors", tolerance)

    @property
    def description(self) -> str:
        """See :class:`GraphBuilder`."""
        return (
            f"all pairs within {self.cutoff!r} Å, at most the {self.max_neighbors} nearest of an atom "
            f"(ties to {self.tolerance!r} Å)"
        )

    def select(self, pairs: Pairs, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """See :class:`GraphBuilder`."""
        return closest(pairs, atoms, self.max_neighbors, self.tolerance)
