"""The convolution of GPUs: Triton, run by its interpreter, against plain torch and the kernels of CPUs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.ops.kernels import convolution, triton_convolution
from mlip.ops.kernels.compiler import NoCompiler
from mlip.ops.kernels.form import ConvolutionForm, Coupling
from mlip.ops.kernels.table import evaluate, tabulate_functions
from mlip.ops.kernels.triton_source import SharedOutputs, tile_of, triton_source
from mlip.ops.layout import natural_irreps
from mlip.ops.segment import first_edges
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense

SMALL = ("3x0e+2x1o", 1, "0e+1o+1e")
CASES = [
    # Few channels and several edges a program; one alone; masked, and several programs a block; cross products.
    ("5x0e+3x1o+2x2e", 2, "0e+1o+2e+1e"),
    ("1x0e", 1, "0e+1o"),
    ("19x1e+8x2o", 1, "0e+0o+1o+1e+2e+2o"),
    ("70x0e+40x1o", 1, "0e+1o"),
]
TYPES = [(torch.float32, 1e-6), (torch.float64, 1e-13)]
SENDERS = torch.tensor([1, 2, 1, 3, 5, 2, 2, 4, 5])
RECEIVERS = torch.tensor([0, 0, 1, 1, 3, 3, 3, 3, 3])
NODES, ROWS = 5, 6
"""Receivers 2 and 4 have no edge; nobody receives from node 0; node 5 sends but does not receive."""
STARTS = first_edges(RECEIVERS, NODES)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let kernels run on tensors of the CPU, by the interpreter.

    What Triton's library has of functions was made for GPUs if something imported it before: the one that the kernels
    call is replaced.
    """
    # Older interpreters do not know today's numpy.
    pytest.importorskip("triton", minversion="3.7")
    tl = importlib.import_module("triton.language")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(tl, "sum", lambda value, axis: tl.reduce(value, axis, tl.standard._sum_combine))
    triton_convolution.module.cache_clear()
    yield
    triton_convolution.module.cache_clear()


def product(case: tuple[str, int, str], dtype: torch.dtype = torch.float64) -> ClebschGordanDense:
    irreps_in, lmax, irreps_out = case
    made = ClebschGordanDense(Irreps(irreps_in), natural_irreps(lmax), Irreps(irreps_out), mode="uvu").to(dtype)
    convolution.register(made.form)
    return made


def random(seed: int, dtype: torch.dtype, *sizes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def operands(tp: ClebschGordanDense, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    edges = len(SENDERS)
    sizes = (ROWS, tp.irreps_in1.dim), (edges, tp.irreps_in2.dim), (edges, tp.weight_numel)
    return random(seed, dtype, *sizes)


def cotangent(tp: ClebschGordanDense, dtype: torch.dtype) -> Tensor:
    return random(7, dtype, (NODES, tp.irreps_out.dim))[0]


def plain(tp: ClebschGordanDense, *tensors: Tensor) -> Tensor:
    return tp.sum_messages(*tensors, SENDERS, RECEIVERS, NODES)


def plain_tangent(tp: ClebschGordanDense, x: Tensor, y: Tensor, w: Tensor, h: list[Tensor]) -> Tensor:
    return plain(tp, h[0], y, w) + plain(tp, x, h[1], w) + plain(tp, x, y, h[2])


def gap(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def check_all(case: tuple[str, int, str], dtype: torch.dtype, tolerance: float) -> None:
    """Compare the four functions with plain torch: the tangent of a gradient is the gradient of a tangent."""
    tp = product(case, dtype)
    edges = SENDERS, STARTS, tp.form.key
    tensors, h, g = operands(tp, dtype), operands(tp, dtype, 1), cotangent(tp, dtype)
    leaves = [t.clone().requires_grad_() for t in tensors]
    for suffix, given, expected in (
        ("", tensors, plain(tp, *leaves)),
        ("_tangent", tensors + h, plain_tangent(tp, *leaves, h)),
    ):
        assert gap(triton_convolution.forward(f"forward{suffix}", given, *edges), expected) < tolerance
        found = triton_convolution.backward(f"backward{suffix}", given, g, *edges, [True] * 3)
        for one, other in zip(found, torch.autograd.grad(expected, leaves, g)):
            assert gap(one, other) < 2 * tolerance


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_values_gradients_and_tangents_are_those_of_plain_torch(dtype, tolerance) -> None:
    check_all(SMALL, dtype, tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_many_forms(case, dtype, tolerance) -> None:
    check_all(case, dtype, tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("case", [SMALL, *CASES[:3]])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_the_functions_are_those_of_the_cpu(case, dtype, tolerance) -> None:
    tp = product(case, dtype)
    try:
        edges = SENDERS, STARTS, convolution.prepare(tp.form, dtype)
    except NoCompiler as error:
        pytest.skip(str(error))
    tensors, h, g = operands(tp, dtype), operands(tp, dtype, 1), cotangent(tp, dtype)
    for suffix, given in (("", tensors), ("_tangent", tensors + h)):
        name, back = f"convolution{suffix}", f"convolution_backward{suffix}"
        expected = getattr(torch.ops.mlip, name)(*given, *edges)
        assert gap(triton_convolution.forward(f"forward{suffix}", given, *edges), expected) < tolerance
        wanted = getattr(torch.ops.mlip, back)(*given, g, *edges, [True] * 3)
        for one, other in zip(triton_convolution.backward(f"backward{suffix}", given, g, *edges, [True] * 3), wanted):
            assert gap(one, other) < 2 * tolerance
    cells, steps, r = table_of(tp, dtype)
    given = *tensors[:2], r, cells, steps
    expected = torch.ops.mlip.convolution_table(*given, *edges)
    assert gap(triton_convolution.table_forward(*given, *edges), expected) < tolerance
    wanted = torch.ops.mlip.convolution_table_backward(*given, g, *edges)
    for one, other in zip(triton_convolution.table_backward(*given, g, *edges), wanted):
        assert gap(one, other) < 5 * tolerance


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_one_gradient_alone(wanted) -> None:
    tp = product(SMALL)
    tensors, g = [t.requires_grad_() for t in operands(tp)], cotangent(tp, torch.float64)
    expected = torch.autograd.grad(plain(tp, *tensors), tensors, g)
    given = [t.detach() for t in tensors]
    found = triton_convolution.backward("backward", given, g, SENDERS, STARTS, tp.form.key, list(wanted))
    for one, other, want in zip(found, expected, wanted):
        assert (gap(one, other) < 1e-13) if want else one.numel() == 0


def table_of(tp: ClebschGordanDense, dtype: torch.dtype) -> tuple[Tensor, float, Tensor]:
    phases, rates = torch.rand(2, tp.weight_numel, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    table = tabulate_functions(lambda r: torch.sin(3 * rates * r[:, None] + phases), 1e-3, 4.0, 1e-3, 1e-2)
    # The first is where the table begins, the last beyond its end.
    r = torch.cat([torch.zeros(1), torch.linspace(0.3, 3.9, len(SENDERS) - 2), torch.tensor([4.001])])
    return table.cells.to(dtype), table.steps, r.to(dtype)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("dtype", "tolerance"), [TYPES[0], pytest.param(*TYPES[1], marks=pytest.mark.slow)])
def test_weights_from_a_table(dtype, tolerance) -> None:
    tp = product(SMALL, dtype)
    cells, steps, r = table_of(tp, dtype)
    (x, y, _), g = operands(tp, dtype), cotangent(tp, dtype)
    leaves = [t.clone().requires_grad_() for t in (x, y, r)]
    weights = evaluate(SimpleNamespace(cells=cells, steps=steps), leaves[2])
    expected = plain(tp, *leaves[:2], weights)
    edges = SENDERS, STARTS, tp.form.key
    assert gap(triton_convolution.table_forward(x, y, r, cells, steps, *edges), expected) < 2 * tolerance
    found = triton_convolution.table_backward(x, y, r, cells, steps, g, *edges)
    for one, other in zip(found, torch.autograd.grad(expected, leaves, g)):
        assert gap(one, other) < 5 * tolerance


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_without_edges(nodes) -> None:
    tp = product(SMALL)
    x, y, w, g, r = random(
        3, torch.float64, (nodes, tp.irreps_in1.dim), (0, tp.irreps_in2.dim), (0, tp.weight_numel),
        (nodes, tp.irreps_out.dim), (0,),
    )  # fmt: skip
    none = torch.zeros(0, dtype=torch.long)
    edges = none, first_edges(none, nodes), tp.form.key
    cells, steps, _ = table_of(tp, torch.float64)
    for out, gradients in (
        (
            triton_convolution.forward("forward", [x, y, w], *edges),
            triton_convolution.backward("backward", [x, y, w], g, *edges, [True] * 3),
        ),
        (
            triton_convolution.table_forward(x, y, r, cells, steps, *edges),
            triton_convolution.table_backward(x, y, r, cells, steps, g, *edges),
        ),
    ):
        assert out.shape == (nodes, tp.irreps_out.dim)
        assert not out.any()
        assert gradients[0].shape == x.shape
        assert not gradients[0].any()
        assert [len(gradient) for gradient in gradients[1:]] == [0, 0]


@pytest.mark.usefixtures("interpreted")
def test_nodes_that_nobody_receives_from_are_not_read() -> None:
    tp = product(SMALL)
    tensors, g = operands(tp), cotangent(tp, torch.float64)
    tensors[0][0] = torch.nan
    g[[2, 4]] = torch.nan
    edges = SENDERS, STARTS, tp.form.key
    assert triton_convolution.forward("forward", tensors, *edges).isfinite().all()
    assert all(t.isfinite().all() for t in triton_convolution.backward("backward", tensors, g, *edges, [True] * 3))


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
def test_second_derivatives_through_autograd(monkeypatch) -> None:
    monkeypatch.setattr(convolution, "_forward", triton_convolution.forward)
    monkeypatch.setattr(convolution, "_backward", triton_convolution.backward)
    tp = product(SMALL)
    tensors = [t.requires_grad_() for t in operands(tp)]

    def second(function: Any) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(function(*tensors).square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), tensors)

    found = second(lambda *t: convolution.convolution(*t, SENDERS, STARTS, tp.form.key))
    for one, other in zip(found, second(lambda *t: plain(tp, *t))):
        assert gap(one, other) < 1e-12


@pytest.mark.parametrize("scalar", ["float32", "float64"])
def test_programs_have_as_many_channels_as_wastes_the_fewest_threads(scalar) -> None:
    for mul in (1, 2, 3, 5, 16, 31, 32, 33, 48, 64, 65, 96, 100, 128, 500):
        tile = tile_of(mul, scalar)
        size = tile.edges * tile.channels
        assert size & (size - 1) == 0
        assert size in ((32, 64) if scalar == "float32" else (32,))
        assert mul <= tile.blocks * tile.channels < mul + max(tile.channels, 2)
    assert [tile_of(mul, "float32").channels for mul in (5, 33, 64, 96, 128)] == [8, 64, 64, 32, 64]


def test_couplings_of_different_programs_do_not_share_an_output() -> None:
    entries = ((0, 0, 0, 1.0),)
    two = [Coupling(4, 4 * k, 0, 0, 4 * k, (1, 1, 1), entries) for k in range(2)]
    with pytest.raises(SharedOutputs, match="one block"):
        triton_source(ConvolutionForm(8, 1, 8, 4, tuple(two)), "float32")
