"""Generated contractions against the eager evaluation of the same tables."""

from __future__ import annotations

import itertools

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.ops.kernels.compiler import NoCompiler, compiler
from mlip.ops.kernels.contraction import evaluate_native
from mlip.ops.tensor_product.clebsch_gordan_sparse import ClebschGordanSparse
from mlip.ops.tensor_product.nonzeros import NonzeroTable, WeightedTable, contract, evaluate_eagerly

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

TABLE = NonzeroTable((3, 2, 4), ((0, 0, 1, 0.5), (0, 1, 3, -1.25), (1, 1, 0, 2.0), (2, 0, 2, 0.75), (2, 1, 2, -0.3)))
WEIGHTED = WeightedTable(TABLE, outputs=(0, 1, 1, 2), weights=(1, 0, 0, 1))


@pytest.mark.parametrize("form", [TABLE, WEIGHTED], ids=["plain", "weighted"])
@pytest.mark.parametrize("channels", [1, 3, 16, 21])
@pytest.mark.parametrize("single", [(), (1,)], ids=["all have channels", "a filter"])
def test_every_set_of_derivatives(form, channels, single) -> None:
    if channels == 1 and single:
        pytest.skip("one channel is one channel")
    generator = torch.Generator().manual_seed(0)
    slots = range(len(form.sizes))
    shared = tuple((2,) if slot in single else () for slot in slots)
    operands = [
        torch.randn(5, size, 1 if slot in single else channels, generator=generator, dtype=torch.float64)
        for slot, size in enumerate(form.sizes)
    ]
    for count in (1, 2, len(form.sizes)):
        for wanted in itertools.combinations(slots, count):
            found, expected = (run(form, wanted, shared, operands) for run in (evaluate_native, evaluate_eagerly))
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_and_shared_weights(rows) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, size, 8, generator=generator, dtype=torch.float64) for size in TABLE.sizes[:2])
    weight = torch.randn(1, 2, 8, generator=generator, dtype=torch.float64)
    found, expected = (contract(WEIGHTED, x, y, weight, run) for run in (evaluate_native, evaluate_eagerly))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_derivatives_of_derivatives() -> None:
    irreps = Irreps("3x0e+3x1o+3x1e")
    product = ClebschGordanSparse(irreps, irreps, irreps, mode="uuu").double()
    product.evaluator = evaluate_native
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(2, size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in (irreps.dim, irreps.dim, product.weight_numel)
    ]
    assert torch.autograd.gradcheck(product, tuple(tensors))
    assert torch.autograd.gradgradcheck(product, tuple(tensors))
