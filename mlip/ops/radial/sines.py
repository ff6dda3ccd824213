"""Facet's radial basis: sines of whole-numbered frequencies over the distance."""

import torch
from torch import Tensor, nn

from mlip.ops.radial.base import RadialBasis
from mlip.ops.radial.sine_over_argument import sine_over_argument


class Sines(RadialBasis):
    """``φ_n(r) = (2/r_c) · sin(f_n r) / r`` with ``f_n = n`` in 1/Å, n = 1..num_basis, or learned from there.

    The frequencies of :class:`~mlip.ops.radial.bessel.Bessel` are ``nπ/r_c``; these do not depend on the cutoff, and
    are higher at a usual one. Facet learns them (reference code of arXiv 2509.08418).

    Args:
        num_basis: number of functions.
        cutoff: r_c in Å.
        trainable: let the frequencies f_n be learned.
    """

    def __init__(self, num_basis: int, cutoff: float, trainable: bool = False) -> None:
        super().__init__(num_basis, cutoff)
        frequencies = torch.arange(1, num_basis + 1, dtype=torch.float64)
        if trainable:
            self.frequencies = nn.Parameter(frequencies.to(torch.float32))
        else:
            self.register_constant("frequencies", frequencies)

    def forward(self, distances: Tensor) -> Tensor:
        frequencies = self.frequencies.to(distances.dtype)
        return 2 / self.cutoff * frequencies * sine_over_argument(frequencies * distances[:, None])
