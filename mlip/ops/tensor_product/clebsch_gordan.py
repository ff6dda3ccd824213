"""The reference: e3nn's Clebsch–Gordan tensor product."""

import torch
from e3nn.o3 import Irreps
from e3nn.o3 import TensorProduct as E3nnTensorProduct
from torch import Tensor

from mlip.ops.layout import from_e3nn, to_e3nn
from mlip.ops.tensor_product.base import Expressivity, Mode, TensorProduct


class ClebschGordan(TensorProduct):
    """All paths, a free weight for each path and channel, computed by e3nn (normalisation component/element).

    The oracle of the other backends; convert-and-call, so it is not the fast one.
    """

    def __init__(self, irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps, mode: Mode = "uvu") -> None:
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode)
        blocks = [(self.irreps_in1[path.in1].mul, path.ir_out) for path in self.paths]
        self.irreps_out = Irreps(blocks)
        self.product = E3nnTensorProduct(
            self.irreps_in1,
            self.irreps_in2,
            self.irreps_out,
            [(path.in1, path.in2, k, "uvu", True, 1.0) for k, path in enumerate(self.paths)],
            shared_weights=False,
            internal_weights=False,
        )
        self.weight_numel = self.product.weight_numel
        for part in self.product.modules():
            # e3nn's constants stay out of the state dict, so that model files do not depend on the backend.
            part._non_persistent_buffers_set.update(part._buffers)

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
        # With a single channel in x2 the two layouts of x2 are the same.
        return from_e3nn(self.product(to_e3nn(x1, self.irreps_in1), x2, weight), self.irreps_out)

    @property
    def expressivity(self) -> Expressivity:
        return path_expressivity(self)

    def _apply(self, fn: object, recurse: bool = True) -> "ClebschGordan":
        moved = super()._apply(fn, recurse)
        # e3nn keeps its 3j symbols as ordinary buffers, built in the default dtype.
        restore_wigner_buffers(self.product)
        return moved


def restore_wigner_buffers(module: torch.nn.Module) -> None:
    """Recompute e3nn's 3j buffers in float64 digits, which a cast through float32 has lost."""
    from e3nn.o3 import wigner_3j

    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if name.startswith("_w3j_"):
                degrees = [int(l) for l in name.removeprefix("_w3j_").split("_")]
                exact = wigner_3j(*degrees, dtype=torch.float64)
                part._buffers[name] = exact.to(dtype=buffer.dtype, device=buffer.device)


def path_expressivity(product: TensorProduct) -> Expressivity:
    """The expressivity of a product with a free weight on every path."""
    paths = tuple((product.irreps_in1[p.in1].ir.l, product.irreps_in2[p.in2].ir.l, p.ir_out.l) for p in product.paths)
    return Expressivity("path", any(sum(path) % 2 for path in paths), paths)
