"""Cubic B-splines: every radial weight is a free spline, no hidden layer."""

import torch
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.constants import as_float64
from mlip.ops.radial.base import RadialBasis

# Row k: polynomial coefficients (1, u, u², u³) of the k-th of the four pieces that overlap an interval.
_PIECES = as_float64([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6


class BSpline(RadialBasis):
    """Uniform cubic B-splines on [0, cutoff], twice continuously differentiable, summing to one.

    With ``h = cutoff / (num_basis - 3)`` an edge in interval ``i = floor(r / h)``, ``u = r / h - i``, sees

        φ_{i+k}(r) = Σ_p P_kp u^p,   k = 0..3,

    and nothing else: four terms an edge. A linear map on this basis gives each path and channel its own
    trainable spline, which is what replaces the radial MLP (Facet, arXiv 2509.08418).

    The four terms are written into a dense row, because the map to thousands of weights is then one matrix
    product, which beats gathering four coefficient rows an edge up to about a hundred basis functions.

    Args:
        num_basis: number of splines, at least 4.
        cutoff: end of the last interval in Å.
    """

    def __init__(self, num_basis: int, cutoff: float) -> None:
        super().__init__(num_basis, cutoff)
        if num_basis < 4:
            raise ConfigError(f"BSpline needs num_basis >= 4 (cubic pieces), got {num_basis}.")
        self.num_intervals = num_basis - 3
        self.register_constant("pieces", _PIECES)

    def local(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the index of the first spline ``(edges,)`` and the four values ``(edges, 4)``."""
        scaled = distances * (self.num_intervals / self.cutoff)
        first = scaled.detach().floor().clamp(0, self.num_intervals - 1)
        u = scaled - first
        powers = torch.stack([torch.ones_like(u), u, u * u, u * u * u], dim=1)
        return first.long(), powers @ self.pieces.to(distances.dtype).T

    def forward(self, distances: Tensor) -> Tensor:
        first, values = self.local(distances)
        columns = first[:, None] + torch.arange(4, device=distances.device)
        dense = values.new_zeros(distances.shape[0], self.num_basis)
        return dense.scatter(1, columns, values)
