"""Any field of the table, component by component."""

from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.core.fields import FIELDS, TARGETS
from mlip.data.graph import AtomGraph
from mlip.training.losses.base import Loss
from mlip.training.losses.penalties import Penalty
from mlip.training.losses.weights import WeightSchedule


class FieldLoss(Loss):
    """Penalty of every component of a field, in the unit of the field table.

    Energies have a loss of their own, an atom; so do forces and stress, which are the same as this. Of magnetic moments
    the sizes are compared (``unsigned`` in the field table).

    Args:
        field: name of a label.
        weight, penalty, everywhere: as for every :class:`~mlip.training.losses.base.Loss`.

    Raises:
        ConfigError: no label has that name.
    """

    def __init__(self, field: str, weight: float | WeightSchedule, penalty: Penalty, everywhere: bool = True) -> None:
        super().__init__(weight, penalty)
        self.everywhere = everywhere
        if field not in TARGETS:
            near = did_you_mean(field, TARGETS)
            raise ConfigError(f"There is no label '{field}'.{near} Known: {', '.join(TARGETS)}.")
        self.required = (field,)

    def errors(self, predictions: dict[str, Tensor], graph: AtomGraph) -> Tensor:
        """Return the differences, in the shape of the field."""
        name = self.required[0]
        label = graph[name]
        return predictions[name] - (label.abs() if FIELDS[name].unsigned else label)
