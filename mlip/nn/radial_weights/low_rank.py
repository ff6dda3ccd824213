"""Radial weights that share a few functions of the distance."""

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.radial_weights.base import RadialWeights


class LowRankRadialWeights(RadialWeights):
    """``w_k(r) = env(r) Σ_m B_mk Σ_n A_nm φ_n(r)``: every weight is a combination of ``rank`` learned functions.

    The functions themselves may then have a fine basis: the radial functions of trained networks need many splines,
    but few directions among them. ``A`` is divided by the root of ``num_basis``, ``B`` by that of ``rank``.

    Args:
        num_basis, weight_numel: see the base class.
        rank: functions of the layer.

    Raises:
        ConfigError: a rank below one.
    """

    def __init__(self, num_basis: int, weight_numel: int, rank: int = 9) -> None:
        super().__init__(num_basis, weight_numel)
        if type(rank) is not int or rank < 1:
            raise ConfigError(f"LowRankRadialWeights needs a whole rank >= 1, got {rank!r}.")
        # More functions than basis functions or weights would say nothing new.
        rank = min(rank, num_basis, weight_numel)
        self.functions = nn.Parameter(torch.randn(num_basis, rank))
        self.coefficients = nn.Parameter(torch.randn(rank, weight_numel))

    def forward(self, basis: Tensor) -> Tensor:
        functions = basis @ (self.functions * self.functions.shape[0] ** -0.5)
        return functions @ (self.coefficients * self.coefficients.shape[0] ** -0.5)

    def fit(self, basis: Tensor, target: Tensor, density: Tensor) -> None:
        # The best approximation of this rank: least squares first, then the leading singular vectors of the result.
        root = density.sqrt()[:, None]
        full = torch.linalg.lstsq(basis * root, target * root, driver="gelsd").solution
        left, _, _ = torch.linalg.svd((basis @ full) * root, full_matrices=False)
        rank = self.functions.shape[1]
        # Functions of unit weighted mean square; their coefficients in the basis follow from those of the fit.
        scale = density.sum().sqrt()
        wanted = left[:, :rank] * scale
        functions = torch.linalg.lstsq(basis * root, wanted, driver="gelsd").solution
        coefficients = (left[:, :rank].T @ (target * root)) / scale
        with torch.no_grad():
            self.functions.copy_(functions * self.functions.shape[0] ** 0.5)
            self.coefficients.copy_(coefficients * rank**0.5)
