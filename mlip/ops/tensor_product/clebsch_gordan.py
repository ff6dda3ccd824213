"""The reference: e3nn's Clebsch–Gordan tensor product."""

from collections.abc import Iterator

import torch
from e3nn.o3 import Irreps
from e3nn.o3 import TensorProduct as E3nnTensorProduct
from torch import Tensor

from mlip.ops.layout import from_e3nn, to_e3nn
from mlip.ops.tensor_product.path_product import PathProduct
from mlip.ops.wigner import wigner_3j


class ClebschGordan(PathProduct):
    """Computed by e3nn, in e3nn's layout: the oracle of the other backends, so not the fast one."""

    has_kernels = False
    kernels = "off"

    def set_up(self) -> None:
        self.product = e3nn_product(*e3nn_arguments(self))
        for part in self.product.modules():
            # e3nn's constants stay out of the state dict, so that model files do not depend on the backend.
            part._non_persistent_buffers_set.update(part._buffers)

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        a, b = to_e3nn(x1, self.irreps_in1), to_e3nn(x2, self.irreps_in2)
        return from_e3nn(self.product(a, b, self._e3nn_weight(weight, x1)), self.irreps_out)

    def sum_messages(
        self, x1: Tensor, x2: Tensor, weight: Tensor | None, senders: Tensor, receivers: Tensor, num_nodes: int
    ) -> Tensor:
        return super(PathProduct, self).sum_messages(x1, x2, weight, senders, receivers, num_nodes)

    def couple(self, blocks1: list[Tensor], blocks2: list[Tensor]) -> Iterator[Tensor]:
        raise NotImplementedError("e3nn multiplies whole features; forward does not come here.")

    def _e3nn_weight(self, weight: Tensor | None, x1: Tensor) -> Tensor:
        """Expand weights to one row each and one number for each path and channel."""
        rows = len(x1)
        if weight is None:
            return x1.new_ones(rows, self.product.weight_numel)
        if weight.dim() == 1:
            weight = weight.expand(rows, -1)
        if self.weights == "path_channel":
            return weight
        channels = [self._channels(path) for path in self.paths]
        return torch.cat([w.expand(-1, n) for w, n in zip(weight.split(1, dim=1), channels)], dim=1)

    def _apply(self, fn: object, recurse: bool = True) -> "ClebschGordan":
        moved = super()._apply(fn, recurse)
        # e3nn keeps its 3j symbols as ordinary buffers, built in the default dtype.
        restore_wigner_buffers(self.product)
        return moved


def e3nn_arguments(product: PathProduct) -> tuple[Irreps, Irreps, Irreps, tuple[tuple, ...], str]:
    """Return what :func:`e3nn_product` needs to know of a product; equal for equal products, and hashable."""
    # e3nn divides by the number of terms that there are, a smaller product by that of the whole one.
    summed = product.normalization != "none" and product.mode in ("uuu", "uvw")
    shares = [
        product.num_terms(p, product.paths) / product.num_terms(p, product.all_paths) if summed else 1.0
        for p in product.paths
    ]
    paths = [
        (p.in1, p.in2, target, product.mode, True, share)
        for p, target, share in zip(product.paths, product.targets, shares)
    ]
    return product.irreps_in1, product.irreps_in2, product.irreps_out, tuple(paths), product.normalization


def e3nn_product(
    in1: Irreps, in2: Irreps, out: Irreps, paths: tuple[tuple, ...], normalization: str
) -> E3nnTensorProduct:
    """Return e3nn's own product with the paths, the mode and the normalisation of ours, always with weights."""
    return E3nnTensorProduct(
        in1,
        in2,
        out,
        list(paths),
        shared_weights=False,
        internal_weights=False,
        irrep_normalization=normalization,
        path_normalization="none" if normalization == "none" else "element",
    )


def restore_wigner_buffers(module: torch.nn.Module) -> None:
    """Recompute e3nn's 3j buffers in float64 digits, which a cast through float32 has lost."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if name.startswith("_w3j_"):
                degrees = [int(l) for l in name.removeprefix("_w3j_").split("_")]
                exact = wigner_3j(*degrees)
                part._buffers[name] = exact.to(dtype=buffer.dtype, device=buffer.device)
