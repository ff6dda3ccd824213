"""Features of two atoms multiplied channel by channel, all paths or those that a gate keeps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.linear import fit_channels
from mlip.nn.orbitals.path_gate import PathGate
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.path_product import PathProduct


class PairProduct(nn.Module):
    """A tensor product of mode ``uuu``; once a gate has fixed its paths, the smaller product of these alone.

    Args:
        irreps: of both factors, one multiplicity for all.
        irreps_out: wanted.
        tensor_product: factory of a backend.
        path_gate: factory of a gate, takes the number of paths; None keeps all.

    Attributes:
        irreps_out: what the product reaches with all paths.
        weight_numel: weights a row of the product with all paths.

    Raises:
        ConfigError: a gate for a product whose paths have no weights of their own.
    """

    def __init__(
        self,
        irreps: Irreps,
        irreps_out: Irreps,
        tensor_product: Callable[..., TensorProduct],
        path_gate: Callable[..., PathGate] | None = None,
    ) -> None:
        super().__init__()
        self._options = (tensor_product, irreps, irreps_out)
        self.full = tensor_product(irreps, irreps, irreps_out, mode="uuu")
        self.irreps_out, self.weight_numel = self.full.irreps_out, self.full.weight_numel
        self.gate: PathGate | None = None
        self.small: TensorProduct | None = None
        self._small_paths: list[int] = []
        if path_gate is not None:
            if not isinstance(self.full, PathProduct) or self.full.weights != "path_channel":
                raise ConfigError(
                    f"A path gate needs a product with weights for every path; {type(self.full).__name__} has none: "
                    "take model/tensor_product@model.pair_product=clebsch_gordan_dense, or model/path_gate=null."
                )
            self.gate = path_gate(len(self.full.paths))

    @property
    def columns(self) -> Tensor | None:
        """Which of the ``weight_numel`` weights are needed; None for all."""
        if self.gate is None or not self.gate.is_fixed:
            return None
        return self._columns(self.gate.kept())

    def _columns(self, kept: Tensor) -> Tensor:
        channels = self.weight_numel // len(self.full.paths)
        return (kept[:, None] * channels + torch.arange(channels, device=kept.device)).flatten()

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        """Return ``(rows, irreps_out.dim)`` of ``(rows, irreps.dim)`` twice and the weights of `columns`."""
        if self.gate is None:
            return self.full(x1, x2, weight)
        kept = self.gate.kept()
        scales = self.gate.scales(kept)
        channels = self.weight_numel // len(self.full.paths)
        if self.gate.is_fixed:
            small = self._fixed_product(kept.tolist(), x1)
            # The plain product of fewer paths divides by the root of their smaller number.
            ratio = [self.full.coefficients[k] / c for k, c in zip(kept.tolist(), small.coefficients)]
            scales = scales * scales.new_tensor(ratio)
            found = small(x1, x2, weight * scales.repeat_interleave(channels))
            return fit_channels(found, small.irreps_out, self.irreps_out)
        every = scales.new_zeros(len(self.full.paths)).index_copy(0, kept, scales)
        return self.full(x1, x2, weight * every.repeat_interleave(channels))

    def _fixed_product(self, paths: list[int], like: Tensor) -> TensorProduct:
        """Return the product of some paths, built when they are first asked for."""
        if self.small is None or self._small_paths != paths:
            factory, irreps, irreps_out = self._options
            self.small = factory(irreps, irreps, irreps_out, mode="uuu", kept_paths=paths).to(like)
            self._small_paths = paths
        return self.small
