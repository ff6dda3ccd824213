"""Gaussians on a regular mesh."""

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.ops.radial.base import RadialBasis


class Gaussian(RadialBasis):
    """``φ_n(r) = exp(-(r - μ_n)² / (2σ²))`` with μ_n from 0 to the cutoff (SchNet, arXiv 1706.08566, §4).

    Args:
        num_basis: number of functions, at least 2.
        cutoff: last centre in Å.
        width: σ in units of the spacing of the centres.
        trainable: let centres and widths be learned.
    """

    def __init__(self, num_basis: int, cutoff: float, width: float = 1.0, trainable: bool = False) -> None:
        super().__init__(num_basis, cutoff)
        if num_basis < 2:
            raise ConfigError(f"Gaussian needs num_basis >= 2 to have a spacing, got {num_basis}.")
        if not width > 0:
            raise ConfigError(f"Gaussian needs width > 0 (in units of the spacing), got {width}.")
        centres = torch.linspace(0, cutoff, num_basis, dtype=torch.float64)
        widths = torch.full_like(centres, width * cutoff / (num_basis - 1))
        if trainable:
            self.centres = nn.Parameter(centres.to(torch.float32))
            self.widths = nn.Parameter(widths.to(torch.float32))
        else:
            self.register_constant("centres", centres)
            self.register_constant("widths", widths)

    def forward(self, distances: Tensor) -> Tensor:
        scaled = (distances[:, None] - self.centres.to(distances.dtype)) / self.widths.to(distances.dtype)
        return torch.exp(-0.5 * scaled.square())
