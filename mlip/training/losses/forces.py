"""Forces."""

from torch import Tensor

from mlip.data.graph import AtomGraph
from mlip.training.losses.base import Loss


class ForcesLoss(Loss):
    """Penalty of every force component, eV/Å."""

    required = ("forces",)

    def errors(self, predictions: dict[str, Tensor], graph: AtomGraph) -> Tensor:
        """Return ``(atoms, 3)`` eV/Å."""
        return predictions["forces"] - graph.forces
