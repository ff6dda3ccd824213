"""The Gaunt tensor product: multiply functions on the sphere, point by point."""

import math
from typing import Literal, get_args

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.sampled_product import SampledProduct
from mlip.ops.sphere_grid import antipodal_half, exact_resolution, gauss_legendre_grid, lebedev_grid
from mlip.ops.tensor_product.base import Mode, Normalization, Weights
from mlip.ops.tensor_product.signal_product import Component, SignalProduct

Quadrature = Literal["lebedev", "gauss_legendre"]

HALVED_FROM = 16
"""Coefficients (degrees 0 to 3) from which halving the points pays for sorting the coefficients by parity."""


class GauntProduct(SignalProduct):
    """What all Gaunt backends share: features are functions on the sphere, ``f(r̂) = Σ x_lm Y_lm(r̂)``.

    With normalisation ``none`` the map is ``out_m3 = Σ G^{l1 l2 l3}_{m1 m2 m3} x1_m1 x2_m2``,
    ``G = ∫ Y Y Y dΩ`` for harmonics with ``∫ Y² dΩ = 1`` (arXiv 2401.10216, eq. 3). Couplings with l1 + l2 + l3
    odd do not exist in it, so only parities (-1)^l can enter.
    """

    operator = "gaunt"
    signals = "functions on the sphere have parities (-1)^l"

    def components(self, side: int, block: int, ir: Irrep) -> list[Component]:
        return [Component(block, ir)] if ir.p == (-1) ** ir.l else []

    @property
    def degrees(self) -> list[list[int]]:
        """Degrees of both inputs and the output."""
        return [[c.ir.l for c in side] for side in self.sides]

    def columns(self, side: int, harmonics: Tensor) -> Tensor:
        """Return the columns ``(points, dims[side])`` of a side's degrees from those of all ``(points, (lmax+1)²)``."""
        parts = [harmonics[:, l * l : (l + 1) ** 2] for l in self.degrees[side]]
        return torch.cat([harmonics[:, :0], *parts], dim=1)

    def sampled_product(self, values: list[Tensor], halved: bool) -> SampledProduct:
        """Return the product by values ``(points, dims[side])`` of each side, those of the output with weights.

        Args:
            values: what the harmonics are at the points.
            halved: the points are half of a grid; even and odd degrees are evaluated apart.
        """
        if not halved:
            return SampledProduct(values)
        parities = [[l % 2 for l in degrees for _ in range(2 * l + 1)] for degrees in self.degrees]
        indices = [torch.tensor(parity, dtype=torch.long) for parity in parities]
        parts = [{p: v[:, index == p] for p in (0, 1)} for v, index in zip(values, indices)]
        return SampledProduct(parts, [index.argsort(stable=True) for index in indices])


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
