"""Many-body features: polynomials of an atom's features with weights for each species."""

from collections.abc import Callable

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.ops.many_body.base import ManyBodyProduct


class ManyBody(nn.Module):
    """``B_i = Σ_ν w_{ν, species(i)} · (x_i)^{⊗ν}``: the product basis of MACE (arXiv 2206.07697) on any backend.

    Weights start as independent normal numbers, for which the product has unit variance.

    Args:
        irreps_in: features, the same multiplicity for each irrep.
        irreps_out: the irreps wanted.
        num_elements: number of species.
        correlation: highest power of the features, 1..4; body order of the features plus one.
        many_body: factory of the backend.

    Attributes:
        irreps_in, irreps_out: what goes in and what comes out (only irreps that can be reached).
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        num_elements: int,
        correlation: int,
        many_body: Callable[..., ManyBodyProduct],
    ) -> None:
        super().__init__()
        if num_elements < 1:
            raise ConfigError(f"ManyBody needs at least one element, got num_elements={num_elements}.")
        self.product = many_body(irreps_in=irreps_in, irreps_out=irreps_out, correlation=correlation)
        self.irreps_in, self.irreps_out = self.product.irreps_in, self.product.irreps_out
        self.weight = nn.Parameter(torch.randn(num_elements, self.product.weight_numel))

    def forward(self, x: Tensor, species_index: Tensor) -> Tensor:
        """Map features to features, row by row.

        Args:
            x: ``(rows, irreps_in.dim)``.
            species_index: ``(rows,)``, integers below ``num_elements``.

        Returns:
            ``(rows, irreps_out.dim)``.
        """
        return self.product(x, self.weight, species_index)
