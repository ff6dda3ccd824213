"""With and without generated kernels: the contract of all backends of products, each yaml by itself."""

from __future__ import annotations

import copy
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


def product(name: str, example: Example, dtype: torch.dtype) -> TensorProduct:
    try:
        return factory("tensor_product", name)(*example.irreps, **example.options).to(dtype)
    except ConfigError as refusal:
        pytest.skip(str(refusal))


def everything(tp: TensorProduct, kernels: str, dtype: torch.dtype) -> list[Tensor]:
    """Return sums of messages, first and second derivatives; node 2 receives nothing, node 3 sends nothing."""
    choose_kernels(tp, kernels)
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, tp.irreps_in1.dim), (8, tp.irreps_in2.dim), (8, tp.weight_numel)]
    tensors = [torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
    if not tp.weight_numel:
        tensors = tensors[:2]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    senders, receivers = torch.tensor([0, 1, 4, 2, 2, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 3, 3, 4])
    out = tp.convolve(*tensors, *([None] if len(tensors) == 2 else []), senders, receivers, 5)
    # Products with random numbers keep the digits of float32, which any other function would lose.
    weights = (torch.randn(one.shape, generator=generator, dtype=torch.float64).to(dtype) for one in (out, *tensors))
    first = torch.autograd.grad((out * next(weights)).sum(), tensors, create_graph=True)
    second = torch.autograd.grad(sum((one * weight).sum() for one, weight in zip(first, weights)), tensors)
    return [out, *first, *second]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        largest = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(largest, 1e-3))


@pytest.mark.parametrize(("name", "example", "dtype"), CASES)
def test_convolutions_are_the_same(name: str, example: Example, dtype: torch.dtype) -> None:
    tp = product(name, example, dtype)
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
    # Second derivatives add up hundreds of terms, and so do both ways, in orders of their own.
    assert_same(everything(tp, "on", dtype), expected, TOLERANCES[dtype] * (1 if dtype == torch.float64 else 2))


@pytest.mark.parametrize("name", BACKENDS)
def test_weights_and_constants_are_the_same(name: str) -> None:
    if name.startswith("auto"):
        pytest.skip("made of the others")
    tp = product(name, TINY, torch.float32)
    before = {key: value.shape for key, value in tp.state_dict().items()}
    choose_kernels(tp, "on")
    assert {key: value.shape for key, value in tp.state_dict().items()} == before
    assert copy.deepcopy(tp).kernels == tp.kernels


def test_bad_choices() -> None:
    tp = product("clebsch_gordan_dense", TINY, torch.float32)
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
    own: ManyBodyProduct = make(Irreps("4x0e+4x1o+4x2e"), Irreps("4x0e+4x1o"), correlation).to(dtype)
    generator = torch.Generator().manual_seed(0)
    sizes = (6, own.irreps_in.dim), (3, own.weight_numel)
    x, weight = (
        torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes
    )

    def both(kernels: str) -> list[Tensor]:
        choose_kernels(own, kernels)
        out = own(x, weight, torch.tensor([0, 2, 2, 0, 2, 0]))
        first = torch.autograd.grad(out.sin().sum(), [x, weight], create_graph=True)
        return [out, *first, *torch.autograd.grad(sum(one.sin().sum() for one in first), [x, weight])]

    expected = both("off")
    choose_kernels(own, "on")
    assert len(kernel_sources(own, dtype)) == own.has_kernels
    # Powers of up to three, twice differentiated, lose another digit in float32.
    assert_same(both("on"), expected, TOLERANCES[dtype] * (1 if dtype == torch.float64 else 10))
