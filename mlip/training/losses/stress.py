"""Stress."""

from torch import Tensor

from mlip.data.graph import AtomGraph
from mlip.training.losses.base import Loss


class StressLoss(Loss):
    """Penalty of every stress component, eV/Å³; structures without a stress label do not count."""

    required = ("stress",)

    def errors(self, predictions: dict[str, Tensor], graph: AtomGraph) -> Tensor:
        """Return ``(graphs, 3, 3)`` eV/Å³."""
        return predictions["stress"] - graph.stress
