"""From scalars of an atom to one number."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mlip.nn.activations import Activation


class Readout(nn.Module):
    """One number from scalars: linear, or through hidden layers without bias.

    Args:
        num_channels: scalars in.
        hidden: widths of the hidden layers.
        activation: after each hidden layer; None for none (a product of matrices).
    """

    def __init__(self, num_channels: int, hidden: Sequence[int] = (), activation: Activation | None = None) -> None:
        super().__init__()
        self.activation = activation
        widths = [num_channels, *hidden, 1]
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(a, b)) for a, b in pairwise(widths))

    def forward(self, scalars: Tensor) -> Tensor:
        """Map ``(atoms, num_channels)`` to ``(atoms,)``."""
        *hidden, last = self.weights
        for weight in hidden:
            scalars = scalars @ (weight * weight.shape[0] ** -0.5)
            if self.activation is not None:
                scalars = self.activation(scalars)
        return (scalars @ (last * last.shape[0] ** -0.5)).squeeze(1)
