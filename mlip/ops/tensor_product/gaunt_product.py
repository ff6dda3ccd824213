"""What all Gaunt backends share: products of functions on the sphere."""

import torch
from e3nn.o3 import Irrep
from torch import Tensor

from mlip.ops.sampled_product import SampledProduct
from mlip.ops.tensor_product.signal_product import Component, SignalProduct

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
