"""A learned vector for each value of an input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError, did_you_mean
from mlip.core.fields import FIELDS, INPUTS
from mlip.data.graph import AtomGraph
from mlip.nn.conditioning.base import Conditioning

_WHOLE = tuple(name for name in INPUTS if FIELDS[name].kind == "int")


class Table(Conditioning):
    """``v(q)``: one learned vector for each whole number that the training data have, zero at the start.

    A number without a row of its own has no meaning to the model: it is refused, never extrapolated. All atoms of a
    structure get the vector of its charge, as in the models of OMol25 (arXiv 2505.08762): a charge is a property of
    the structure as a whole, wherever it sits, and far molecules in one structure share it.

    Args:
        num_channels: scalars.
        field: ``charge`` (e), ``spin`` (the multiplicity 2S + 1) or another whole-numbered input.
        values: the numbers that it may be, such as those that the training structures have.

    Raises:
        ConfigError: an input that is no whole number, or no values.
    """

    def __init__(self, num_channels: int, field: str, values: Sequence[int]) -> None:
        super().__init__(num_channels)
        if field not in _WHOLE:
            known = ", ".join(_WHOLE)
            raise ConfigError(f"Table needs field as one of {known}, got {field!r}.{did_you_mean(str(field), _WHOLE)}")
        if isinstance(values, Sequence) and not values:
            raise ConfigError(
                f"The training data state no {field}, which model/conditioning needs: have it read, as by "
                f"data.dataset.labels=[energy,forces,{field}], or leave it out of model/conditioning."
            )
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ConfigError(f"Table needs values of the {field}, such as [0, 1], got {values!r}.")
        if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
            raise ConfigError(f"Table needs values of the {field} that are whole numbers, got {values!r}.")
        self.field, self.values = field, tuple(sorted(set(values)))
        self.register_constant("known", torch.tensor(self.values), keep_dtype=True)
        self.table = nn.Parameter(torch.zeros(len(self.values), num_channels))

    def forward(self, graph: AtomGraph, batch: Tensor) -> Tensor:
        found = graph[self.field]
        rows = torch.searchsorted(self.known, found)
        # One past the end, like an unknown element: an IndexError rather than the vector of another value.
        rows = torch.where(self.known[rows.clamp(max=len(self.values) - 1)] == found, rows, len(self.values))
        return self.table[rows if FIELDS[self.field].level == "atom" else rows[batch]]
