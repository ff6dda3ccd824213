"""All pairs within a cutoff."""

from mlip.data.graphs.base import GraphBuilder, check_cutoff


class Radius(GraphBuilder):
    """Edges are all pairs with ``|r_j + S·cell − r_i| < cutoff``: the graph that energies are continuous on.

    Args:
        cutoff: Å.
    """

    def __init__(self, cutoff: float) -> None:
        self.cutoff = check_cutoff("Radius", cutoff)

    @property
    def description(self) -> str:
        """See :class:`GraphBuilder`."""
        return f"all pairs within {self.cutoff!r} Å"
