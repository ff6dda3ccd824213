"""With and without generated kernels: the contract of all backends of products, each yaml by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.kernels.choice import choose_kernels, kernel_sources
from mlip.ops.kernels.compiler import NoCompiler, compiler
from mlip.ops.many_body.base import ManyBodyProduct
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.path_product import PathProduct
from mlip.testing.tensor_products import EXAMPLES, Example
from tests.components import component_names, factory

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

TINY = Example("2x0e", "0e+1o", "2x0e+2x1o")
BACKENDS = component_names("tensor_product")
CONVOLUTIONS = [one for one in EXAMPLES if one.options.get("mode", "uvu") == "uvu"]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}


def case(name: str, example: Example, dtype: torch.dtype) -> Any:
    quick = (name, example, dtype) == ("clebsch_gordan_sparse", TINY, torch.float32)
    return pytest.param(name, example, dtype, marks=() if quick else pytest.mark.slow)


CASES = [
    case(name, one, dtype)
    for name in BACKENDS
    # Those that choose by measuring are made of the others, and take seconds.
    for one in (TINY, *CONVOLUTIONS[: 1 if name.startswith("auto") else None])
    for dtype in TOLERANCES
]


def product(name: str, example: Example) -> TensorProduct:
    try:
        return factory("tensor_product", name)(*example.irreps, **example.options).double()
    except ConfigError as refusal:
        pytest.skip(str(refusal))


class Draws:
    """Random numbers with the digits of float32, the same ones in every dtype.

    Cotangents are drawn here, too: functions such as sin would lose digits of their own before any derivative.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(0), dtype

    def __call__(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.generator, dtype=torch.float32).to(self.dtype)

    def derivatives(self, function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
        """Return the result, its gradients along a random cotangent, and the gradients of these along others."""
        tensors = [tensor.requires_grad_() for tensor in tensors]
        out = function(*tensors)
        first = torch.autograd.grad((out * self(*out.shape)).sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum((one * self(*one.shape)).sum() for one in first), tensors)
        return [one.detach() for one in (out, *first, *second)]


def everything(tp: TensorProduct, kernels: str, dtype: torch.dtype) -> list[Tensor]:
    """Return sums of messages, first and second derivatives; node 2 receives nothing, node 3 sends nothing."""
    choose_kernels(tp, kernels)
    draw = Draws(dtype)
    sizes = [(5, tp.irreps_in1.dim), (8, tp.irreps_in2.dim), (8, tp.weight_numel)]
    tensors = [draw(*size) for size in sizes if size[1]]
    senders, receivers = torch.tensor([0, 1, 4, 2, 2, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 3, 3, 4])
    none = [None] * (3 - len(tensors))
    return draw.derivatives(lambda *given: tp.convolve(*given, *none, senders, receivers, 5), tensors)


def gaps(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Return the largest error of each tensor, as a fraction of the largest number that should be in it; NaN stays."""
    pairs = [(one.double(), other.double()) for one, other in zip(found, expected, strict=True) if other.numel()]
    least = torch.finfo(torch.float64).tiny
    return [float((one - other).abs().max() / other.abs().max().clamp(min=least)) for one, other in pairs]


def assert_same(kernel: list[Tensor], plain: list[Tensor], exact: list[Tensor]) -> None:
    """Kernels give what plain torch gives, and are in float32 as near to the true numbers.

    Args:
        kernel, plain: with and without kernels, in one dtype.
        exact: of plain torch in float64, of the very same numbers.
    """
    tolerance = TOLERANCES[kernel[0].dtype]
    for gap in gaps(kernel, plain) + gaps(kernel, exact):
        assert gap <= tolerance


@pytest.mark.parametrize(("name", "example", "dtype"), CASES)
def test_convolutions_are_the_same(name: str, example: Example, dtype: torch.dtype) -> None:
    double = product(name, example)
    # Of products that choose by measuring, the copy is the same choice.
    tp = copy.deepcopy(double).to(dtype)
    if tp.filter_is_harmonics:
        pytest.skip("its filter is no free tensor; models test it")
    expected = everything(tp, "off", dtype)
    parts = [part for part in tp.modules() if getattr(part, "has_kernels", False)]
    if not parts:
        assert not kernel_sources(tp, dtype)
        return
    choose_kernels(tp, "on")
    fused = isinstance(parts[0], PathProduct) and parts[0].form is not None
    if isinstance(parts[0], PathProduct) and not fused:
        with pytest.raises(ConfigError, match=r"^kernels=on cannot be done: .* has no kernel\. Take kernels=auto\.$"):
            tp.kernel_key(expected[0])
        assert not kernel_sources(tp, dtype)
        choose_kernels(tp, "auto")
        assert tp.kernel_key(expected[0]) is None
        return
    if fused:
        assert tp.kernel_key(expected[0]) is not None
        assert len(kernel_sources(tp, dtype)) == 1
    assert_same(everything(tp, "on", dtype), expected, everything(double, "off", torch.float64))


@pytest.mark.parametrize("name", BACKENDS)
def test_weights_and_constants_are_the_same(name: str) -> None:
    if name.startswith("auto"):
        pytest.skip("made of the others")
    tp = product(name, TINY)
    before = {key: value.shape for key, value in tp.state_dict().items()}
    choose_kernels(tp, "on")
    assert {key: value.shape for key, value in tp.state_dict().items()} == before
    assert copy.deepcopy(tp).kernels == tp.kernels


def test_bad_choices() -> None:
    tp = product("clebsch_gordan_dense", TINY)
    for wrong in ("atuo", 3, None):
        with pytest.raises(ConfigError, match="kernels must be auto, on or off"):
            choose_kernels(tp, wrong)
    assert choose_kernels(tp, True) == tp.kernels == "on"


@pytest.mark.slow
@pytest.mark.parametrize("name", component_names("many_body"))
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_many_body_products_are_the_same(name: str, dtype: torch.dtype, correlation: int) -> None:
    make = factory("many_body", name)
    double: ManyBodyProduct = make(Irreps("4x0e+4x1o+4x2e"), Irreps("4x0e+4x1o"), correlation).double()
    own = copy.deepcopy(double).to(dtype)

    def every(one: ManyBodyProduct, kernels: str, dtype: torch.dtype) -> list[Tensor]:
        choose_kernels(one, kernels)
        draw = Draws(dtype)
        tensors = [draw(6, one.irreps_in.dim), draw(3, one.weight_numel)]
        return draw.derivatives(lambda x, weight: one(x, weight, torch.tensor([0, 2, 2, 0, 2, 0])), tensors)

    expected, found = every(own, "off", dtype), every(own, "on", dtype)
    assert len(kernel_sources(own, dtype)) == own.has_kernels
    assert_same(found, expected, every(double, "off", torch.float64))
