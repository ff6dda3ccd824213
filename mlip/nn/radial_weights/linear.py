"""Radial weights that are linear in the basis: with splines, every path and channel owns a spline."""

import torch
from torch import Tensor, nn

from mlip.nn.radial_weights.base import RadialWeights


class LinearRadialWeights(RadialWeights):
    """``w_k(r) = env(r) Σ_n A_nk φ_n(r) / sqrt(num_basis)``: one free function of the distance a weight.

    No hidden layer: what Facet puts in the place of the radial MLP (arXiv 2509.08418).
    """

    def __init__(self, num_basis: int, weight_numel: int) -> None:
        super().__init__(num_basis, weight_numel)
        self.coefficients = nn.Parameter(torch.randn(num_basis, weight_numel))

    def forward(self, basis: Tensor) -> Tensor:
        return basis @ (self.coefficients * self.coefficients.shape[0] ** -0.5)

    def select(self, basis: Tensor, columns: Tensor) -> Tensor:
        return basis @ (self.coefficients[:, columns] * self.coefficients.shape[0] ** -0.5)

    def fit(self, basis: Tensor, target: Tensor, density: Tensor) -> None:
        root = density.sqrt()[:, None]
        best = torch.linalg.lstsq(basis * root, target * root, driver="gelsd").solution
        with torch.no_grad():
            self.coefficients.copy_(best * self.coefficients.shape[0] ** 0.5)
