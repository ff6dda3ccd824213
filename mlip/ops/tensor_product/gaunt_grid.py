"""The Gaunt tensor product: multiply functions on the sphere, point by point."""

import math

import torch
from e3nn.o3 import Irrep
from torch import Tensor

from mlip.ops.sphere_grid import exact_resolution, gauss_legendre_grid
from mlip.ops.tensor_product.signal_product import Component, SignalProduct


class GauntProduct(SignalProduct):
    """What all Gaunt backends share: features are functions on the sphere, ``f(r̂) = Σ x_lm Y_lm(r̂)``.

    With normalisation ``none`` the map is ``out_m3 = Σ G^{l1 l2 l3}_{m1 m2 m3} x1_m1 x2_m2``,
    ``G = ∫ Y Y Y dΩ`` for harmonics with ``∫ Y² dΩ = 1`` (arXiv 2401.10216, eq. 3). Couplings with l1 + l2 + l3
    odd do not exist in it, so only parities (-1)^l can enter.
    """

    operator = "gaunt"

    def components(self, side: int, block: int, ir: Irrep) -> list[Component]:
        return [Component(block, ir)] if ir.p == (-1) ** ir.l else []

    @property
    def degrees(self) -> list[list[int]]:
        """Degrees of both inputs and the output."""
        return [[c.ir.l for c in side] for side in self.sides]


class GauntGrid(GauntProduct):
    """Values on an S² grid that is exact for the degrees in play (The Price of Freedom, arXiv 2506.13523)."""

    def prepare(self, scale: Tensor) -> None:
        degrees = self.degrees
        grid = gauss_legendre_grid(*exact_resolution(sum(max(l, default=0) for l in degrees)))
        values = [
            torch.cat([grid.to_grid(max(l))[:, k * k : (k + 1) ** 2] for k in l], dim=1) if l else None for l in degrees
        ]
        self.register_constant("grid_in1", values[0])
        self.register_constant("grid_in2", values[1])
        # The mean of three component-normalised harmonics is sqrt(4π) ∫ YYY.
        weights = grid.weights / math.sqrt(4 * math.pi)
        self.register_constant("grid_out", (values[2] * weights[:, None] * scale).T.contiguous())

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        values = (self.constant_like("grid_in1", a) @ a) * (self.constant_like("grid_in2", b) @ b)
        return self.constant_like("grid_out", a) @ values
