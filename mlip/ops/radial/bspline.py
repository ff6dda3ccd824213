"""Cubic B-splines: every radial weight is a free spline, no hidden layer."""

import math

import torch
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.constants import as_float64
from mlip.ops.radial.base import RadialBasis

# Row k: polynomial coefficients (1, u, u², u³) of the k-th of the four pieces that overlap an interval.
_PIECES = as_float64([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6


class BSpline(RadialBasis):
    """Cubic B-splines on [0, cutoff], twice continuously differentiable.

    In the coordinate ``x(r) = (num_basis - 3) · ln(1 + r²/a²) / ln(1 + r_c²/a²)`` the knots are the integers:
    few where no neighbours are, most at bond lengths, fewer again far out. An edge in interval
    ``i = floor(x)``, ``u = x - i``, sees

        φ_{i+k}(r) = Σ_p P_kp u^p / sqrt(1 + r²/a²),   k = 0..3,

    and nothing else: four terms an edge. The damping gives near neighbours the larger weights from the
    start, as the 1/r of Bessel functions does. A linear map on this basis gives each path and channel its
    own trainable spline, which is what replaces the radial MLP (Facet, arXiv 2509.08418).

    The four terms are written into a dense row, because the map to thousands of weights is then one matrix
    product, which beats gathering four coefficient rows an edge up to about a hundred basis functions.

    Args:
        num_basis: number of splines, at least 4.
        cutoff: end of the last interval in Å.
        knot_scale: a in Å; None for uniform knots ``x = (num_basis - 3) · r/r_c`` without damping.
    """

    def __init__(self, num_basis: int, cutoff: float, knot_scale: float | None = 1.0) -> None:
        super().__init__(num_basis, cutoff)
        if knot_scale is not None and not knot_scale > 0:
            raise ConfigError(f"BSpline needs knot_scale > 0 Å, or null for uniform knots, got {knot_scale}.")
        self.knot_scale = knot_scale
        if num_basis < 4:
            raise ConfigError(f"BSpline needs num_basis >= 4 (cubic pieces), got {num_basis}.")
        self.num_intervals = num_basis - 3
        self.register_constant("pieces", _PIECES)

    def local(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the index of the first spline ``(edges,)`` and the four values ``(edges, 4)``."""
        scaled = self._coordinate(distances)
        first = scaled.detach().floor().clamp(0, self.num_intervals - 1)
        u = scaled - first
        powers = torch.stack([torch.ones_like(u), u, u * u, u * u * u], dim=1)
        values = powers @ self.pieces.to(distances.dtype).T
        if self.knot_scale is not None:
            values = values * torch.rsqrt(1 + (distances / self.knot_scale).square())[:, None]
        return first.long(), values

    def _coordinate(self, distances: Tensor) -> Tensor:
        if self.knot_scale is None:
            return distances * (self.num_intervals / self.cutoff)
        unit = self.num_intervals / math.log1p((self.cutoff / self.knot_scale) ** 2)
        return unit * torch.log1p((distances / self.knot_scale).square())

    def forward(self, distances: Tensor) -> Tensor:
        first, values = self.local(distances)
        columns = first[:, None] + torch.arange(4, device=distances.device)
        dense = values.new_zeros(distances.shape[0], self.num_basis)
        return dense.scatter(1, columns, values)
