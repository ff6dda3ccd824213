"""Feature interaction: the features of an atom times themselves."""

from collections.abc import Callable

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.linear import EquivariantLinear
from mlip.ops.tensor_product.base import TensorProduct


class SelfInteraction(nn.Module):
    """``y = skip(x) + Linear( Linear₁(x) ⊗ Linear₂(x) )``: the "self-mix" of arXiv 2401.10216.

    The first two linear maps give every irrep the same number of channels, the largest multiplicity of
    ``irreps``; the product then works channel by channel with weights of its own, shared by all rows. Irreps that
    no path reaches come from the skip connection alone, which is the identity if ``irreps_out`` is ``irreps``
    and a linear map otherwise; those that it does not reach either are zero.

    Args:
        irreps: features in; irreps may repeat.
        tensor_product: factory of a backend with mode ``uuu``.
        irreps_out: features out, each irrep once; None: ``irreps``.

    Raises:
        ConfigError: no irreps, or a backend that cannot multiply two features (a filter is no feature).
    """

    def __init__(
        self,
        irreps: Irreps,
        tensor_product: Callable[..., TensorProduct],
        irreps_out: Irreps | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in = Irreps(irreps)
        self.irreps_out = self.irreps_in if irreps_out is None else Irreps(irreps_out)
        if not self.irreps_in.dim:
            raise ConfigError("SelfInteraction needs features, got irreps without entries.")
        if len({ir for _, ir in self.irreps_out}) != len(self.irreps_out):
            raise ConfigError(
                f"SelfInteraction needs each irrep once in the output, got {self.irreps_out}; simplify it first."
            )
        num_channels = max(mul for mul, _ in self.irreps_in)
        inner = Irreps([(num_channels, ir) for ir in sorted({ir for mul, ir in self.irreps_in if mul})])
        self.tensor_product = tensor_product(inner, inner, self.irreps_out, mode="uuu")
        if self.tensor_product.filter_is_harmonics:
            raise ConfigError(
                f"{type(self.tensor_product).__name__} multiplies with spherical harmonics only; SelfInteraction "
                "multiplies features: take clebsch_gordan_dense or gaunt_grid."
            )
        self.linear1, self.linear2 = (EquivariantLinear(self.irreps_in, inner) for _ in range(2))
        # No parameter without entries: it would never get a gradient, which distributed training refuses.
        numel = self.tensor_product.weight_numel
        self.register_parameter("weight", nn.Parameter(torch.randn(numel)) if numel else None)
        self.linear_out = EquivariantLinear(self.tensor_product.irreps_out, self.irreps_out)
        same = self.irreps_out == self.irreps_in
        self.skip = nn.Identity() if same else EquivariantLinear(self.irreps_in, self.irreps_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(rows, irreps_in.dim)`` to ``(rows, irreps_out.dim)``, row by row."""
        product = self.tensor_product(self.linear1(x), self.linear2(x), self.weight)
        return self.skip(x) + self.linear_out(product)
