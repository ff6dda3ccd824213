"""Radial weights from a multilayer perceptron on the basis."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.activations import SiLU
from mlip.nn.radial_weights.base import RadialWeights


class RadialMLP(RadialWeights):
    """``w(r) = W_n SiLU(… SiLU(W_1 φ(r) env(r)))``: the classic form (NequIP, arXiv 2101.03164; MACE; SevenNet).

    No bias; each layer is divided by the root of its fan-in, and SiLU is scaled to unit second moment.

    Args:
        num_basis, weight_numel: see the base class.
        hidden: widths of the hidden layers.

    Raises:
        ConfigError: a width below one.
    """

    def __init__(self, num_basis: int, weight_numel: int, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__(num_basis, weight_numel)
        if not hidden or any(not isinstance(width, int) or width < 1 for width in hidden):
            raise ConfigError(f"RadialMLP needs hidden widths such as [64, 64], got {hidden!r}.")
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(before, after)) for before, after in pairwise([num_basis, *hidden, weight_numel])
        )
        self.activation = SiLU()

    def forward(self, basis: Tensor) -> Tensor:
        return self._apply_last(basis, self.weights[-1])

    def select(self, basis: Tensor, columns: Tensor) -> Tensor:
        return self._apply_last(basis, self.weights[-1][:, columns])

    def _apply_last(self, basis: Tensor, last: Tensor) -> Tensor:
        *hidden, _ = self.weights
        x = basis
        for weight in hidden:
            x = self.activation(x @ (weight * weight.shape[0] ** -0.5))
        return x @ (last * last.shape[0] ** -0.5)
