"""The interface of losses."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError, ShapeError
from mlip.data.graph import AtomGraph
from mlip.training.losses.penalties import Penalty
from mlip.training.losses.weights import WeightSchedule, constant


class Loss(nn.Module, ABC):
    """One weighted term: the mean penalty of a field's errors over the labelled items of a batch.

    Args:
        weight: a number, or a :class:`~mlip.training.losses.weights.WeightSchedule`.
        penalty: function of the error.

    Attributes:
        required: fields that must be predicted and labelled.
        needs: further fields that the data must have, e.g. overlaps.
        everywhere: whether all structures must have the label; if not, those without do not count.
    """

    required: tuple[str, ...]
    needs: tuple[str, ...] = ()
    everywhere: bool = True

    def __init__(self, weight: float | WeightSchedule, penalty: Penalty) -> None:
        super().__init__()
        self.weight = weight if isinstance(weight, WeightSchedule) else constant(weight)
        if not isinstance(penalty, Penalty):
            raise ConfigError(f"penalty must be one of mlip.training.losses.penalties, got {penalty!r}.")
        self.penalty = penalty

    @abstractmethod
    def errors(self, predictions: dict[str, Tensor], graph: AtomGraph) -> Tensor:
        """Return the errors, NaN where there is no label."""

    def forward(self, predictions: dict[str, Tensor], graph: AtomGraph) -> Tensor:
        """Return the unweighted mean penalty, zero (with zero gradient) where nothing is labelled.

        Raises:
            ShapeError: a prediction and its label differ in shape; torch might broadcast them to wrong errors.
        """
        for field in self.required:
            found, wanted = tuple(predictions[field].shape), tuple(graph[field].shape)
            if found != wanted:
                raise ShapeError(
                    f"The model predicts '{field}' of shape {found}, its labels have the shape {wanted}: "
                    "the model and the data must agree on it."
                )
        # The mask comes from the labels, so that a prediction that is NaN never passes for a missing label.
        labelled = ~torch.isnan(getattr(graph, self.required[0]))
        errors = self.errors(predictions, graph)
        penalties = self.penalty(torch.where(labelled, errors, torch.zeros_like(errors)))
        return penalties.sum() / labelled.sum().clamp(min=1)
