"""The smooth bump of SpookyNet and QHNet."""

import math

import torch
from torch import Tensor

from mlip.ops.envelope.base import Envelope


class Exponential(Envelope):
    """``exp(-r² / ((r_c - r)(r_c + r)))`` for r < r_c, zero beyond: every derivative vanishes at the cutoff.

    SpookyNet, arXiv 2105.00304, eq. 15; QHNet, arXiv 2306.04922.

    Args:
        cutoff: r_c in Å.
    """

    zero_derivatives = math.inf

    def forward(self, distances: Tensor) -> Tensor:
        # Beyond 0.995 of the cutoff it is below 1e-43, nothing even to float32's smallest numbers.
        x = (distances / self.cutoff).clamp(max=0.995)
        square = x * x
        return torch.exp(-square / (1.0 - square)) * (distances < 0.995 * self.cutoff)
