"""The Gaunt tensor product by its nonzero coefficients, exact to rounding."""

from itertools import accumulate

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.ops.tensor_product.base import Mode, Normalization, Weights
from mlip.ops.tensor_product.evaluators import evaluator_of, sources_of
from mlip.ops.tensor_product.gaunt_product import GauntProduct
from mlip.ops.tensor_product.nonzeros import NonzeroTable, contract
from mlip.ops.tensor_product.unrolled import choose_evaluator
from mlip.ops.wigner import gaunt_coefficients


class GauntSparse(GauntProduct):
    """``out_m3 = Σ G x1_m1 x2_m2`` over the coefficients that are not zero; nothing is saved but the inputs.

    On a CPU with a compiler, and where there is enough to do, it is one function of generated C++ (``kernels``, see
    :mod:`mlip.ops.tensor_product.evaluators`). Eagerly every nonzero is one operation of torch: fast up to degree 2,
    where there are few; ``gaunt_grid`` is level at 3 and ahead from 4 on.

    Args:
        compile: where there is no generated C++, write straight-line code and build it with ``torch.compile``; see
            :class:`~mlip.ops.tensor_product.clebsch_gordan_sparse.ClebschGordanSparse`.

    Attributes:
        table: the coefficients, normalisation included: data that a generator of code can read.
        evaluator: what computes it without generated C++.
    """

    has_kernels = True
    kernels = "auto"

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        compile: bool = False,
    ) -> None:
        # Preparation multiplies a few rows to measure the coupling: not worth a compilation.
        self.evaluator = choose_evaluator([], compile=False)
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization)
        self.evaluator = choose_evaluator([self.table], compile)

    def prepare(self, scale: Tensor) -> None:
        starts = [[0, *accumulate(2 * l + 1 for l in side)] for side in self.degrees]
        blocks = [
            ((i, j, k), gaunt_coefficients(l1, l2, l3) * scale[k : k + 2 * l3 + 1])
            for i, l1 in zip(starts[0], self.degrees[0])
            for j, l2 in zip(starts[1], self.degrees[1])
            for k, l3 in zip(starts[2], self.degrees[2])
            if abs(l1 - l2) <= l3 <= l1 + l2
        ]
        self.table = NonzeroTable.from_blocks(tuple(self.dims), blocks)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return contract(self.table, a, b, evaluator=evaluator_of(self.kernels, self.evaluator, self.training))

    def kernel_sources(self, dtype: torch.dtype) -> list[str]:
        return sources_of(self.kernels, self.table, self.num_channels, dtype) if self.mode == "uuu" else []
