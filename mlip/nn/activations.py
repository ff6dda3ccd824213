"""Pointwise activations, with the polynomial degree that decides whether a grid can be exact."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Activation(nn.Module, ABC):
    """A pointwise function.

    Attributes:
        degree: polynomial degree, or None where the function is not a polynomial.
    """

    degree: int | None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Apply to every entry."""


class SiLU(Activation):
    """``x · sigmoid(x)``, scaled to keep unit second moment of a normal input."""

    degree = None
    gain = 1.6765324703310907

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * torch.nn.functional.silu(x)


class Quadratic(Activation):
    """``x/2 + x²/4``: the Taylor polynomial of SiLU at zero, scaled to unit second moment.

    Of degree two, so that a grid of finite resolution represents it without aliasing.
    """

    degree = 2
    gain = (1 / 4 + 3 / 16) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x * (0.5 + 0.25 * x)
