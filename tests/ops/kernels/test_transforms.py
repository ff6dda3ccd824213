"""Generated kernels under torch.func, forward-mode derivatives, torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn
from torch.autograd import forward_ad

from mlip.ops.kernels.convolution import convolution
from mlip.ops.many_body.symmetric_contraction import SymmetricContraction
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense

IRREPS = Irreps("2x0e+2x1o")
SENDERS, RECEIVERS = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 0, 1, 1, 2])
SETS = torch.tensor([0, 1, 0])


class Layer(nn.Module):
    """A convolution with everything but the features given, a contraction, or a product of pairs of features."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
        if kind == "convolution":
            self.part = ClebschGordanDense(IRREPS, Irreps.spherical_harmonics(1), IRREPS, mode="uvu").double()
            self.other, self.weight = draw(5, 4), draw(5, self.part.weight_numel)
        elif kind == "pairs":
            self.part = ClebschGordanDense(IRREPS, IRREPS, IRREPS, mode="uuu").double()
            self.other, self.weight = draw(3, IRREPS.dim), draw(self.part.weight_numel)
        else:
            self.part = SymmetricContraction(IRREPS, IRREPS, 2).double()
            self.weight = draw(2, self.part.weight_numel)
        self.kind, self.x = kind, draw(3, IRREPS.dim)
        self.part.kernels = "on"

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "convolution":
            return self.part.convolve(x, self.other, self.weight, SENDERS, RECEIVERS, 3)
        return self.part(x, self.other, self.weight) if self.kind == "pairs" else self.part(x, self.weight, SETS)


@pytest.fixture(params=["convolution", "contraction", "pairs"])
def layer(request: pytest.FixtureRequest) -> Layer:
    return Layer(request.param)


def plain(layer: Layer, function: Callable[[], Tensor]) -> Tensor:
    """Return what a function gives without kernels."""
    layer.part.kernels = "off"
    try:
        return function()
    finally:
        layer.part.kernels = "on"


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(lambda x: f(x).sin().sum()),
    "grad of grad": lambda f: torch.func.grad(lambda x: torch.func.grad(lambda z: f(z).sin().sum())(x).sin().sum()),
    "jacrev": torch.func.jacrev,
    "jacfwd": torch.func.jacfwd,
    "hessian": lambda f: torch.func.hessian(lambda x: f(x).sin().sum()),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x.cos(),))[1],
    "vmap": lambda f: lambda x: torch.func.vmap(f)(torch.stack([x, x.sin()])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_those_of_plain_torch(layer: Layer, name: str) -> None:
    transformed = TRANSFORMS[name](layer)
    torch.testing.assert_close(transformed(layer.x), plain(layer, lambda: transformed(layer.x)), rtol=1e-12, atol=1e-12)


def test_forward_mode(layer: Layer) -> None:
    """A kernel has no forward-mode derivative: that must not be taken for zero."""

    def tangent() -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(layer(forward_ad.make_dual(layer.x, layer.x.cos()))).tangent

    torch.testing.assert_close(tangent(), plain(layer, tangent), rtol=1e-12, atol=1e-12)
    assert tangent().abs().max() > 0.1


def test_operators_refuse_forward_mode() -> None:
    layer = Layer("convolution")
    key = layer.part.kernel_key(layer.x)
    starts = torch.tensor([0, 2, 4, 5])
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        convolution(layer.x, layer.other, layer.weight, SENDERS, starts, key)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compile() -> None:
    """The operator; dynamo cannot look into e3nn's irreps, which modules read."""
    layer = Layer("convolution")
    key, starts = layer.part.kernel_key(layer.x), torch.tensor([0, 2, 4, 5])

    def twice(x: Tensor) -> Tensor:
        return 2 * convolution(x.sin(), layer.other, layer.weight, SENDERS, starts, key)

    torch.testing.assert_close(torch.compile(twice, fullgraph=True)(layer.x), twice(layer.x), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convolution", "contraction"])
def test_export(kind: str) -> None:
    layer = Layer(kind)
    expected = layer(layer.x)
    exported = torch.export.export(layer, (layer.x,))
    torch.testing.assert_close(exported.module()(layer.x), expected, rtol=1e-12, atol=1e-12)
    called = {str(node.target) for node in exported.graph.nodes}
    assert any(name.startswith("mlip.") for name in called), "a kernel that has been built is used"
