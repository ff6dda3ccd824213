"""Spherical Bessel functions of order zero."""

import torch
from torch import Tensor, nn

from mlip.ops.radial.base import RadialBasis
from mlip.ops.radial.sine_over_argument import sine_over_argument


class Bessel(RadialBasis):
    """``φ_n(r) = sqrt(2/r_c) · sin(nπ r / r_c) / r``, n = 1..num_basis (DimeNet, arXiv 2003.03123, eq. 7).

    Written with sinc, so that r = 0 is finite and differentiable, and scaled by sqrt(r_c) to order one.

    Args:
        num_basis: number of functions.
        cutoff: r_c in Å.
        trainable: let the frequencies nπ be learned.
    """

    def __init__(self, num_basis: int, cutoff: float, trainable: bool = False) -> None:
        super().__init__(num_basis, cutoff)
        orders = torch.arange(1, num_basis + 1, dtype=torch.float64)
        if trainable:
            self.orders = nn.Parameter(orders.to(torch.float32))
        else:
            self.register_constant("orders", orders)

    def forward(self, distances: Tensor) -> Tensor:
        orders = self.orders.to(distances.dtype)
        # sin(nπx)/x = nπ · sin(nπx)/(nπx).
        # One product with the distance, so that phases of 8π are rounded once.
        phases = orders * (torch.pi / self.cutoff) * distances[:, None]
        return 2**0.5 * torch.pi * orders * sine_over_argument(phases)
