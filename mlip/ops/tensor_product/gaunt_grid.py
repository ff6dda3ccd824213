"""The Gaunt tensor product: multiply functions on the sphere, point by point."""

import math
from typing import Literal, get_args

from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.sphere_grid import antipodal_half, exact_resolution, gauss_legendre_grid, lebedev_grid
from mlip.ops.tensor_product.base import Mode, Normalization, Weights
from mlip.ops.tensor_product.gaunt_product import HALVED_FROM, GauntProduct

Quadrature = Literal["lebedev", "gauss_legendre"]


class GauntGrid(GauntProduct):
    """Values on an S² grid that is exact for the degrees in play (The Price of Freedom, arXiv 2506.13523).

    The number of points follows from the total degree L1 + L2 + L3. On Lebedev points, which come in pairs ±r̂, even
    and odd degrees are evaluated on one point of each pair (from degree 3 on, where it is faster).

    Args:
        quadrature: ``lebedev``, or ``gauss_legendre`` latitudes times uniform longitudes as in the paper, which is
            the same map on more points.

    Raises:
        ConfigError: an unknown quadrature, or what the interface refuses.
    """

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        quadrature: Quadrature = "lebedev",
    ) -> None:
        if quadrature not in get_args(Quadrature):
            raise ConfigError(
                f"quadrature must be one of {', '.join(get_args(Quadrature))}, got '{quadrature}'."
                f"{did_you_mean(str(quadrature), get_args(Quadrature))}"
            )
        self.quadrature = quadrature
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization)

    def prepare(self, scale: Tensor) -> None:
        highest = [max(l, default=0) for l in self.degrees]
        halved = self.quadrature == "lebedev" and max(self.dims) >= HALVED_FROM
        if self.quadrature == "lebedev":
            grid = lebedev_grid(sum(highest))
        else:
            grid = gauss_legendre_grid(*exact_resolution(sum(highest)))
        if halved:
            grid = antipodal_half(grid)
        self.num_points = len(grid.points)
        harmonics = grid.harmonics(max(highest))
        values = [self.columns(side, harmonics) for side in range(3)]
        # The mean of three component-normalised harmonics is sqrt(4π) ∫ YYY.
        values[2] = values[2] * (grid.weights / math.sqrt(4 * math.pi))[:, None] * scale
        self.sampled = self.sampled_product(values, halved)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sampled(a, b)
