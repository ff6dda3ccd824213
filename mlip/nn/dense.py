"""A perceptron on scalars."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mlip.nn.activations import SiLU


class Dense(nn.Module):
    """``W_n SiLU(… SiLU(W_1 x + b_1)) + b_n``, each layer divided by the root of its fan-in, biases zero at the start.

    Args:
        widths: of the input, the hidden layers and the output.
        activation: between the layers; None for the scaled SiLU of the package.
    """

    def __init__(self, widths: Sequence[int], activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(a, b)) for a, b in pairwise(widths))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(b)) for b in widths[1:])
        self.activation = SiLU() if activation is None else activation

    def forward(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """Map ``(rows, widths[0])`` to ``(rows, widths[-1])``, or to those columns of the result that are named."""
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases), 1):
            if columns is not None and number == len(self.weights):
                weight, bias = weight[:, columns], bias[columns]
            if number > 1:
                x = self.activation(x)
            x = torch.addmm(bias, x, weight * weight.shape[0] ** -0.5)
        return x
