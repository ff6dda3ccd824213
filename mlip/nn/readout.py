"""From scalars of an atom to one number."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation


class Readout(nn.Module):
    """One number from scalars: linear, or through hidden layers without bias.

    Args:
        num_channels: scalars in.
        hidden: widths of the hidden layers.
        activation: after each hidden layer; None for none (a product of matrices).
        dropout: probability that a number before the last linear map is zero in a step of a training; the others are
            divided by what is left. Drawn from torch's generator; in evaluation nothing is dropped.

    Raises:
        ConfigError: a dropout that is no probability below one.
    """

    def __init__(
        self,
        num_channels: int,
        hidden: Sequence[int] = (),
        activation: Activation | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ConfigError(f"dropout must be a probability, 0 or more and less than 1, got {dropout!r}.")
        self.activation, self.dropout = activation, float(dropout)
        widths = [num_channels, *hidden, 1]
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(a, b)) for a, b in pairwise(widths))

    def forward(self, scalars: Tensor) -> Tensor:
        """Map ``(atoms, num_channels)`` to ``(atoms,)``."""
        *hidden, last = self.weights
        for weight in hidden:
            scalars = scalars @ (weight * weight.shape[0] ** -0.5)
            if self.activation is not None:
                scalars = self.activation(scalars)
        if self.dropout:
            scalars = nn.functional.dropout(scalars, self.dropout, self.training)
        return (scalars @ (last * last.shape[0] ** -0.5)).squeeze(1)
