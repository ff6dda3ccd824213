"""Spherical Bessel functions of order zero."""

import torch
from torch import Tensor, nn

from mlip.ops.radial.base import RadialBasis


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
        frequencies = torch.pi * orders
        return 2**0.5 * frequencies * _sine_over_argument(frequencies * (distances / self.cutoff)[:, None])


def _sine_over_argument(t: Tensor) -> Tensor:
    """sin(t)/t with all derivatives right at zero, where those of ``torch.sinc`` cancel and end in NaN."""
    small = t.abs() < 0.5
    square = torch.where(small, t, torch.zeros_like(t)).square()
    # Taylor series in Horner form; the first term left out is below 1e-16 for |t| < 0.5.
    series = torch.ones_like(t)
    for k in range(6, 0, -1):
        series = 1 - square / (2 * k * (2 * k + 1)) * series
    safe = torch.where(small, torch.ones_like(t), t)
    return torch.where(small, series, torch.sin(safe) / safe)
