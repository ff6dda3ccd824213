"""Energy an atom."""

from torch import Tensor

from mlip.data.graph import AtomGraph
from mlip.models.base import graph_index
from mlip.ops.segment import segment_sum
from mlip.training.losses.base import Loss


class EnergyLoss(Loss):
    """Penalty of ``(E - E_label) / number of atoms``, eV an atom, so that large structures do not dominate."""

    required = ("energy",)

    def errors(self, predictions: dict[str, Tensor], graph: AtomGraph) -> Tensor:
        """Return ``(graphs,)`` eV an atom; differences are taken in float64."""
        ones = graph.positions.new_ones(graph.positions.shape[0])
        num_atoms = segment_sum(ones, graph_index(graph), graph.cell.shape[0])
        return (predictions["energy"] - graph.energy) / num_atoms
