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
        self.full = tensor_product(irreps, irreps, irreps_out, mode="uuu")
        self.irreps_out, self.weight_numel = self.full.irreps_out, self.full.weight_numel
        self.gate: PathGate | None = None
        if path_gate is not None:
            sizes = self.full.weights_by_path
            if sizes is None:
                raise ConfigError(
                    f"A path gate needs a product with weights for every path; {type(self.full).__name__} has none: "
                    "take model/tensor_product@model.pair_product=clebsch_gordan_dense, or model/path_gate=none."
                )
            self.gate = path_gate(len(sizes))
            self.channels = sizes[0]
        # In a tuple it is no submodule: one that appears in a forward would be missing in copies made before (EMA).
        self._small: tuple[object, TensorProduct] | None = None

    @property
    def columns(self) -> Tensor | None:
        """Which of the ``weight_numel`` weights are needed; None for all."""
        if self.gate is None or not self.gate.is_fixed:
            return None
        kept = self.gate().numbers
        return (kept[:, None] * self.channels + torch.arange(self.channels, device=kept.device)).flatten()

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        """Return ``(rows, irreps_out.dim)`` of ``(rows, irreps.dim)`` twice and the weights of `columns`."""
        if self.gate is None:
            return self.full(x1, x2, weight)
        kept, scales = self.gate()
        if self.gate.is_fixed:
            small = self._fixed_product(tuple(kept.tolist()), x1)
            found = small(x1, x2, weight * scales.repeat_interleave(self.channels))
            return fit_channels(found, small.irreps_out, self.irreps_out)
        every = scales.new_zeros(self.weight_numel // self.channels).index_copy(0, kept, scales)
        return self.full(x1, x2, weight * every.repeat_interleave(self.channels))

    def _fixed_product(self, paths: tuple[int, ...], like: Tensor) -> TensorProduct:
        """Return the product of some paths, built when they are first asked for."""
        wanted = paths, like.dtype, like.device
        if self._small is None or self._small[0] != wanted:
            self._small = wanted, self.full.keep(paths).to(like)
        # It is no submodule, to which the choices for a model would come by themselves.
        self._small[1].kernels, self._small[1].training = self.full.kernels, self.training
        return self._small[1]
