"""The generated convolution against plain torch, its derivatives against finite differences."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ShapeError
from mlip.ops.kernels.compiler import NoCompiler, compiler
from mlip.ops.kernels.convolution import convolution, prepare
from mlip.ops.kernels.convolution_table import convolution_table
from mlip.ops.kernels.table import evaluate, tabulate_functions
from mlip.ops.layout import natural_irreps
from mlip.ops.segment import first_edges
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

CASES = [
    # Channels that fill vectors, that do not, one alone; parities that leave paths out; cross products.
    ("32x0e+16x1o", 2, "0e+1o+2e"),
    ("5x0e+3x1o+2x2e", 2, "0e+1o+2e+1e"),
    ("1x0e", 1, "0e+1o"),
    ("19x1e+8x2o", 1, "0e+0o+1o+1e+2e+2o"),
]
SMALL = ("2x0e+2x1o", 1, "0e+1o")
"""What the quick tests have compiled, in float64."""

SLOW = pytest.mark.slow
BOTH = [
    (torch.float64, SMALL, 1e-13),
    *(
        pytest.param(dtype, case, tolerance, marks=SLOW)
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-13))
        for case in CASES
    ),
]
SENDERS = torch.tensor([0, 1, 1, 3, 0, 2, 2, 4])
RECEIVERS = torch.tensor([0, 0, 1, 1, 3, 3, 3, 3])
NODES = 5
"""Receivers 2 and 4 have no edge."""


def product(case: tuple[str, int, str], dtype: torch.dtype = torch.float64) -> ClebschGordanDense:
    irreps_in, lmax, irreps_out = case
    return ClebschGordanDense(Irreps(irreps_in), natural_irreps(lmax), Irreps(irreps_out), mode="uvu").to(dtype)


def operands(tp: ClebschGordanDense, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (NODES, tp.irreps_in1.dim), (len(SENDERS), tp.irreps_in2.dim), (len(SENDERS), tp.weight_numel)
    return [torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


def plain(tp: ClebschGordanDense, *tensors: Tensor) -> Tensor:
    return tp.sum_messages(*tensors, SENDERS, RECEIVERS, NODES)


def kernel(tp: ClebschGordanDense, *tensors: Tensor) -> Tensor:
    key = prepare(tp.form, tensors[0].dtype)
    return convolution(*tensors, SENDERS, first_edges(RECEIVERS, NODES), key)


def gap(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize(("dtype", "case", "tolerance"), BOTH)
def test_values_and_gradients_are_those_of_plain_torch(dtype, case, tolerance) -> None:
    tp = product(case, dtype)
    tensors = operands(tp, dtype)
    expected, found = plain(tp, *tensors), kernel(tp, *tensors)
    assert gap(found, expected) < tolerance
    cotangent = torch.randn_like(expected)
    pairs = [torch.autograd.grad(result, tensors, cotangent) for result in (found, expected)]
    for one, other in zip(*pairs):
        assert gap(one, other) < 2 * tolerance


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_some_gradients_alone(wanted) -> None:
    tp = product(SMALL)
    tensors = [t.detach().requires_grad_(number in wanted) for number, t in enumerate(operands(tp))]
    needed = [tensors[number] for number in wanted]
    found, expected = (torch.autograd.grad(function(tp, *tensors).sin().sum(), needed) for function in (kernel, plain))
    for one, other in zip(found, expected):
        assert gap(one, other) < 1e-13


@SLOW
def test_first_and_second_derivatives_are_those_of_finite_differences() -> None:
    tp = product(("2x0e+1x1o", 1, "0e+1o+1e"))
    tensors = tuple(operands(tp))
    assert torch.autograd.gradcheck(lambda *t: kernel(tp, *t), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: kernel(tp, *t), tensors)


def test_third_derivatives() -> None:
    tp = product(SMALL)
    x, y, w = operands(tp)

    def third(function) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(function(tp, x, y, w).square().sum(), x, create_graph=True)[0]
        second = torch.autograd.grad(first.square().sum(), y, create_graph=True)[0]
        return torch.autograd.grad(second.square().sum(), [x, y, w])

    for one, other in zip(third(kernel), third(plain)):
        assert gap(one, other) < 1e-12


@pytest.mark.parametrize("case", [SMALL, pytest.param(CASES[0], marks=SLOW)])
def test_more_edges_than_a_batch_and_threads(case) -> None:
    tp = product(case)
    generator = torch.Generator().manual_seed(1)
    receivers = torch.arange(7).repeat_interleave(torch.tensor([0, 1, 33, 64, 65, 2, 0]))
    senders = torch.randint(7, (len(receivers),), generator=generator)
    x, y, w = (
        torch.randn(rows, size, generator=generator, dtype=torch.float64).requires_grad_()
        for rows, size in ((7, tp.irreps_in1.dim), (len(senders), tp.irreps_in2.dim), (len(senders), tp.weight_numel))
    )
    expected = tp.sum_messages(x, y, w, senders, receivers, 7)
    cotangent = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, [x, y, w], cotangent)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found = convolution(x, y, w, senders, first_edges(receivers, 7), prepare(tp.form, torch.float64))
            assert gap(found, expected) < 1e-13
            for one, other in zip(torch.autograd.grad(found, [x, y, w], cotangent), wanted):
                assert gap(one, other) < 1e-13
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_without_edges(nodes) -> None:
    tp = product(SMALL)
    x = torch.randn(nodes, tp.irreps_in1.dim, dtype=torch.float64, requires_grad=True)
    y, w = (torch.zeros(0, size, dtype=torch.float64) for size in (tp.irreps_in2.dim, tp.weight_numel))
    none = torch.zeros(0, dtype=torch.long)
    found = convolution(x, y, w, none, first_edges(none, nodes), prepare(tp.form, torch.float64))
    assert found.shape == (nodes, tp.irreps_out.dim)
    assert not found.any()
    assert not torch.autograd.grad(found.sum(), x)[0].any()


@SLOW
def test_torch_sees_an_ordinary_operator() -> None:
    tp = product(CASES[1])
    tensors = operands(tp)
    arguments = *tensors, SENDERS, first_edges(RECEIVERS, NODES), prepare(tp.form, torch.float64)
    torch.library.opcheck(torch.ops.mlip.convolution.default, arguments)


def table_of(tp: ClebschGordanDense):
    generator = torch.Generator().manual_seed(2)
    phases, rates = torch.rand(2, tp.weight_numel, generator=generator, dtype=torch.float64)
    function = lambda r: torch.sin(3 * rates * r[:, None] + phases) * (1 - r[:, None] / 4) ** 3  # noqa: E731
    return function, tabulate_functions(function, 1e-3, 4.0, 1e-6, 1e-5)


def test_tables_are_as_good_as_they_say() -> None:
    function, table = table_of(product(CASES[1]))
    assert table.within(1e-6, 1e-5)
    r = torch.linspace(0.05, 3.99, 1001, dtype=torch.float64)
    assert gap(evaluate(table, r), function(r)) < 1e-6


@pytest.mark.parametrize(("dtype", "case", "tolerance"), BOTH)
def test_weights_from_a_table(dtype, case, tolerance) -> None:
    tp = product(case, dtype)
    _, table = table_of(tp)
    cells = table.cells.to(dtype)
    x, y, _ = operands(tp, dtype)
    r = torch.linspace(0.3, 3.9, len(SENDERS), dtype=dtype).requires_grad_()
    starts, key = first_edges(RECEIVERS, NODES), prepare(tp.form, dtype)
    found = convolution_table(x, y, r, cells, table.steps, SENDERS, starts, key)
    expected = plain(tp, x, y, evaluate(table._replace(cells=cells), r))
    assert gap(found, expected) < 2 * tolerance
    cotangent = torch.randn_like(expected)
    pairs = [torch.autograd.grad(result, [x, y, r], cotangent) for result in (found, expected)]
    for one, other in zip(*pairs):
        assert gap(one, other) < 20 * tolerance


def test_edges_that_lead_nowhere_are_refused() -> None:
    tp = product(SMALL)
    x, y, w = operands(tp)
    key, starts = prepare(tp.form, x.dtype), first_edges(RECEIVERS, NODES)
    for senders, ends in (
        (SENDERS.int(), starts),
        (SENDERS + len(x), starts),
        (SENDERS - 1 - SENDERS.min(), starts),
        (SENDERS, starts - 1),
        (SENDERS, starts.flip(0)),
        (SENDERS[1:], starts),
    ):
        with pytest.raises(ShapeError):
            convolution(x, y, w, senders, ends, key)


def test_receivers_in_no_order_and_strides() -> None:
    tp = product(SMALL)
    x, y, w = operands(tp)
    tp.kernels = "on"
    expected = tp.convolve(x, y, w, SENDERS, RECEIVERS, NODES)
    order = torch.arange(len(SENDERS)).flip(0)
    found = tp.convolve(x, y[order], w[order], SENDERS[order], RECEIVERS[order], NODES)
    assert gap(found, expected) < 1e-13
    columns = torch.stack([SENDERS, RECEIVERS], dim=1)
    found = tp.convolve(x, y, w, columns[:, 0], columns[:, 1], NODES)
    assert gap(found, expected) < 1e-15
