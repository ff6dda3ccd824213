"""Operands that do not fit: compiled functions know no shapes, so operators refuse what they would misread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ShapeError
from mlip.ops.kernels import convolution, polynomial, triton_convolution
from mlip.ops.kernels.compiler import NoCompiler, compiler
from mlip.ops.kernels.contraction import evaluate_native
from mlip.ops.kernels.form import ConvolutionForm
from mlip.ops.kernels.polynomial_form import PolynomialForm
from mlip.ops.layout import natural_irreps
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from mlip.ops.tensor_product.nonzeros import NonzeroTable

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

# The quick tests of the convolution have compiled it.
IRREPS = Irreps("2x0e+2x1o"), natural_irreps(1), Irreps("0e+1o")
SENDERS, STARTS = torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 1, 4])
ORDER, SETS = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 3])
POLYNOMIAL = PolynomialForm(2, 2, 1, ((1, (0, 0, 1)), (1, (1,))))
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a column less": lambda t: t[..., :-1],
    "a column more": lambda t: torch.cat([t, t[..., :1]], -1),
    "a dimension more": lambda t: t[..., None],
    "one number": lambda t: t.sum(),
    "float32": lambda t: t.float(),
}
FEWER = {"a row less": lambda t: t[:-1]}


def draw(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def form() -> ConvolutionForm:
    return ClebschGordanDense(*IRREPS, mode="uvu").form


def arguments_of(name: str) -> list[Any]:
    """Return what an operator takes."""
    wanted = {"backward": 3 * [True]}
    if name.startswith("polynomial"):
        polynomial.prepare(POLYNOMIAL, torch.float64)
        x, p, g, end = draw(3, 2, 1), draw(2, 2, 1), draw(3, 2, 1), [ORDER, SETS, POLYNOMIAL.key]
        wanted = {"backward": True}
        operands = [x, x, p] if "tangent" in name else [x, p]
    else:
        f = form()
        x, y, g = draw(3, f.x_size), draw(4, f.y_size), draw(3, f.out_size)
        operands = [x, y, draw(4, f.weight_size)]
        if "table" in name:
            wanted = {}
            operands = [x, y, draw(4).abs(), draw(5, 4, f.weight_size), 2.0]
        operands *= 2 if "tangent" in name else 1
        end = [SENDERS, STARTS, convolution.prepare(f, torch.float64)]
    if "backward" not in name:
        return [*operands, *end]
    return [*operands, g, *end, *([wanted["backward"]] if wanted else [])]


OPERATORS = [
    *(f"{kind}{suffix}" for kind in ("convolution", "polynomial") for suffix in ("", "_backward", "_tangent")),
    *("convolution_backward_tangent", "polynomial_backward_tangent"),
    *("convolution_table", "convolution_table_backward"),
]


@pytest.mark.parametrize("name", OPERATORS)
def test_operands_of_other_shapes_and_types(name: str) -> None:
    operator, given = getattr(torch.ops.mlip, name), arguments_of(name)
    assert operator(*given) is not None
    places = [k for k, one in enumerate(given) if isinstance(one, Tensor) and one.is_floating_point()]
    for place in places:
        # How many rows x has is its own affair in a convolution, as is how many cells a table has; senders are checked.
        rows = {} if place == 0 or ("table" in name and place in (3, 4)) else FEWER
        if "table" in name and place == 5:
            rows = FEWER
        for change in (WRONG | rows).values():
            wrong = [change(one) if k == place else one for k, one in enumerate(given)]
            with pytest.raises(ShapeError, match=r"^(The kernel needs|Kernels need|There are) .*\.$"):
                operator(*wrong)


@pytest.mark.parametrize("name", OPERATORS)
def test_indices_that_do_not_fit(name: str) -> None:
    operator, given = getattr(torch.ops.mlip, name), arguments_of(name)
    first, second = (k for k, one in enumerate(given) if isinstance(one, Tensor) and not one.is_floating_point())
    for place, changes in (
        (first, [lambda t: t.int(), lambda t: t[:-1], lambda t: t + 3, lambda t: t - 3, lambda t: t[:, None]]),
        (second, [lambda t: t.int(), lambda t: t[:0], lambda t: t - 1, lambda t: t[None], lambda t: t.flip(0)]),
    ):
        for change in changes:
            with pytest.raises(ShapeError):
                operator(*(change(one) if k == place else one for k, one in enumerate(given)))
    wrong = list(given)
    # Ends that are right, and one between them that is beyond.
    wrong[second] = torch.cat([given[second][:1], given[second][-1:] + 9, given[second][2:]])
    with pytest.raises(ShapeError, match="ascend"):
        operator(*wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_types_without_kernels(dtype: torch.dtype) -> None:
    for name in ("convolution", "polynomial"):
        given = [a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments_of(name)]
        with pytest.raises(ShapeError, match=r"^There are kernels for float32 and float64, not for torch\."):
            getattr(torch.ops.mlip, name)(*given)


def test_tables_without_a_cell() -> None:
    x, y, r, table, *rest = arguments_of("convolution_table")
    with pytest.raises(ShapeError, match="one cell at least"):
        torch.ops.mlip.convolution_table(x, y, r, table[:0], *rest)


def test_the_operators_of_gpus_refuse_the_same() -> None:
    x, y, w, g, senders, starts, key, wanted = arguments_of("convolution_backward")
    _, _, r, table, *_ = arguments_of("convolution_table")
    for call in (
        lambda: triton_convolution.forward("forward", [x, y[:, :-1], w], senders, starts, key),
        lambda: triton_convolution.forward("forward", [x, y, w], senders[:-1], starts, key),
        lambda: triton_convolution.backward("backward", [x, y, w], g[:-1], senders, starts, key, wanted),
        lambda: triton_convolution.table_forward(x, y, r[:-1], table, 2.0, senders, starts, key),
        lambda: triton_convolution.table_backward(x, y, r, table[:, :3], 2.0, g, senders, starts, key),
    ):
        with pytest.raises(ShapeError):
            call()


def test_contractions() -> None:
    table = NonzeroTable((3, 2, 4), ((0, 0, 1, 0.5), (1, 1, 0, 2.0), (2, 1, 2, -0.3)))
    x, y = draw(5, 3, 4), draw(5, 2, 4)
    for operands in ([x[:, :2], y], [x, y[:4]], [x, y[..., :1]], [x, y[:1]], [x, y.float()], [x.half(), y.half()]):
        with pytest.raises(ShapeError):
            evaluate_native(table, (2,), ((), (), ()), [*operands, None])
