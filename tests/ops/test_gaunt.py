"""Gaunt products on grids and in Fourier space: the operator itself, against its coefficients."""

from __future__ import annotations

import math
import time
from copy import deepcopy

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.layout import natural_irreps
from mlip.ops.sampled_product import BLOCK_BYTES
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.gaunt_fourier import GauntFourier
from mlip.ops.tensor_product.gaunt_grid import GauntGrid
from mlip.ops.tensor_product.gaunt_product import GauntProduct
from mlip.ops.wigner import gaunt_coefficients
from tests.components import factory

BACKENDS = {
    "lebedev": (GauntGrid, {"quadrature": "lebedev"}),
    "gauss_legendre": (GauntGrid, {"quadrature": "gauss_legendre"}),
    "dense": (GauntFourier, {"route": "dense"}),
    "fft": (GauntFourier, {"route": "fft"}),
}


def build(name: str, irreps1: Irreps, irreps2: Irreps, irreps_out: Irreps, mode: str = "uuu") -> GauntProduct:
    """Return the plain operator in float64: no weights, no normalisation."""
    backend, options = BACKENDS[name]
    return backend(irreps1, irreps2, irreps_out, mode, "none", "none", **options).double()


def expected(product: GauntProduct, a: Tensor, b: Tensor) -> Tensor:
    """Sum over the coefficients, for ``(rows, K, channels)``."""
    parts = []
    starts = [torch.tensor([0] + [2 * l + 1 for l in side]).cumsum(0).tolist() for side in product.degrees]
    for l3 in product.degrees[2]:
        total = a.new_zeros(len(a), 2 * l3 + 1, a.shape[2])
        for l1, i in zip(product.degrees[0], starts[0]):
            for l2, j in zip(product.degrees[1], starts[1]):
                if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0:
                    table = gaunt_coefficients(l1, l2, l3)
                    first, second = a[:, i : i + 2 * l1 + 1], b[:, j : j + 2 * l2 + 1]
                    total = total + torch.einsum("ric,rjc,ijk->rkc", first, second.expand(-1, -1, a.shape[2]), table)
        parts.append(total)
    return torch.cat(parts, dim=1)


def agree(x: Tensor, y: Tensor, tolerance: float = 1e-12) -> bool:
    """Whether two results are the same up to a part of the largest entry."""
    x, y = x.detach(), y.detach()
    return x.shape == y.shape and bool((x - y).abs().max() <= tolerance * y.abs().max().clamp(min=1))


def random_coefficients(product: GauntProduct, channels: int = 2, channels2: int = 2, rows: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, product.dims[0], channels), (rows, product.dims[1], channels2))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


DEGREES = [
    *[(l1, l2, l1 + l2) for l1 in range(4) for l2 in range(l1 + 1)],
    *[(l, l, l) for l in range(1, 7)],
    *[(l, 6, 6) for l in range(6)],
    (5, 6, 11),
    (4, 6, 3),
    (2, 6, 0),
    (6, 6, 12),
]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("degrees", DEGREES, ids=str)
def test_operator_has_the_gaunt_coefficients(name: str, degrees: tuple[int, int, int]) -> None:
    product = build(name, *(natural_irreps(l) for l in degrees))
    a, b = random_coefficients(product)
    assert product.degrees[2] == [l for l in range(degrees[2] + 1) if l <= degrees[0] + degrees[1]]
    assert torch.allclose(product.product(a, b), expected(product, a, b), atol=1e-12, rtol=0)


GAPS = [
    ("0e+2e", "0e+2e", "0e+1o+2e+4e"),
    ("1o+3o", "1o", "0e+2e+4e"),
    ("1o+4e", "2e+3o", "1o+2e+5o"),
    ("0e+3o+4e", "2e", "0e+1o+2e+6e"),
    ("4e+1o", "3o+0e", "2e+1o"),
]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("irreps", GAPS, ids=str)
@pytest.mark.parametrize("channels2", [1, 2])
def test_degrees_may_have_gaps_and_any_order(name: str, irreps: tuple[str, str, str], channels2: int) -> None:
    product = build(name, *(Irreps(text) for text in irreps))
    a, b = random_coefficients(product, channels2=channels2)
    assert torch.allclose(product.product(a, b), expected(product, a, b), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("channels2", [1, 2])
def test_many_rows_are_the_rows_one_by_one(name: str, channels2: int) -> None:
    """Enough rows for several blocks of memory, the last one not full; gradients of both orders with them."""
    product = build(name, *(natural_irreps(3),) * 3)
    rows = 2 * (BLOCK_BYTES // (product.num_points * 2 * 8)) + 3
    a, b = (x.requires_grad_() for x in random_coefficients(product, channels2=channels2, rows=rows))

    def derivatives(function, x: Tensor, y: Tensor) -> list[Tensor]:
        value = function(x, y)
        first = torch.autograd.grad(value.square().sum(), (x, y), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, y))
        return [value, *first, *second]

    whole = derivatives(product.product, a, b)
    reference = derivatives(lambda x, y: expected(product, x, y), a, b)
    for x, y in zip(whole, reference):
        assert agree(x, y)
    last = [x[-1:].detach().requires_grad_() for x in (a, b)]
    for x, y in zip(whole, derivatives(product.product, *last)):
        assert agree(x[-1:], y)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("irreps", [("0e+1o", "0e+1o", "0e+1o+2e"), ("0e+1o+2e+3o", "1o", "0e+2e")], ids=str)
@pytest.mark.parametrize("channels2", [1, 2])
def test_gradients(name: str, irreps: tuple[str, str, str], channels2: int) -> None:
    product = build(name, *(Irreps(text) for text in irreps))
    a, b = (x.requires_grad_() for x in random_coefficients(product, channels2=channels2, rows=1))
    for function, inputs in (
        (product.product, (a, b)),
        (lambda x: product.product(x, b.detach()), (a,)),
        (lambda y: product.product(a.detach(), y), (b,)),
        (lambda x: product.product(x, x), (a,)) if irreps[0] == irreps[1] else (product.product, (a, b)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        # Entry by entry where both inputs are wanted; the other branches along random directions.
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=len(inputs) == 1)


@pytest.mark.parametrize("name", ["lebedev", "dense"])
def test_third_derivatives_that_miss_an_input(name: str) -> None:
    """Only some of the gradients are asked for again: the other branches of the backward pass."""
    product = build(name, *(natural_irreps(3),) * 3)
    a, b = (x.requires_grad_() for x in random_coefficients(product))
    for wanted, other in ((a, b), (b, a)):
        results = []
        for function in (product.product, lambda x, y: expected(product, x, y)):
            first = torch.autograd.grad(function(a, b).pow(3).sum(), (a, b), create_graph=True)
            for gradient in first:
                second = torch.autograd.grad(gradient.square().sum(), wanted, create_graph=True)[0]
                results.append(torch.autograd.grad(second.sum(), other, retain_graph=True)[0])
        half = len(results) // 2
        for x, y in zip(results[:half], results[half:]):
            assert agree(x, y)


@pytest.mark.parametrize("name", ["lebedev", "gauss_legendre", "dense"])
@pytest.mark.parametrize("lmax", [2, 3])
def test_what_compilers_see_is_the_same(name: str, lmax: int, monkeypatch: pytest.MonkeyPatch) -> None:
    product = build(name, *(natural_irreps(lmax),) * 3)
    a, b = random_coefficients(product, channels2=1)
    eager = product.product(a, b)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.allclose(product.product(a, b), eager, atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", BACKENDS)
def test_inputs_may_be_views(name: str) -> None:
    product = build(name, *(natural_irreps(3),) * 3)
    a, b = random_coefficients(product, channels=4, channels2=4)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (a, b)]
    strided = [torch.stack([x, x], dim=3).flatten(2)[:, :, ::2] for x in (a, b)]
    for first, second in (views, strided):
        assert torch.allclose(product.product(first, second), product.product(a, b), atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("lmax", [2, 6])
def test_single_precision(name: str, lmax: int) -> None:
    product = build(name, *(natural_irreps(lmax),) * 2, natural_irreps(2 * lmax))
    a, b = random_coefficients(product, rows=20)
    exact = product.product(a, b)
    single = deepcopy(product).float().product(a.float(), b.float())
    assert single.dtype == torch.float32
    assert float((single - exact).abs().max() / exact.abs().max()) < 2e-6


@pytest.mark.parametrize("name", BACKENDS)
def test_constants_are_built_in_no_time(name: str) -> None:
    start = time.process_time()
    build(name, natural_irreps(6), natural_irreps(6), natural_irreps(12))
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("name", BACKENDS)
def test_degree_eight_to_sixteen(name: str) -> None:
    """Only the scalars and the top degree are compared; the latter with the value at a point."""
    product = build(name, Irreps("8e"), Irreps("8e"), Irreps("0e+16e"))
    a, b = random_coefficients(product)
    result = product.product(a, b)
    overlap = (a * b).sum(dim=1) / math.sqrt(4 * math.pi)
    assert torch.allclose(result[:, 0], overlap, atol=1e-12, rtol=0)
    full = build(name, Irreps("8e"), Irreps("8e"), natural_irreps(16))
    point = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    harmonics = spherical_harmonics(16, point) / math.sqrt(4 * math.pi)
    seen = torch.cat([harmonics[l * l : (l + 1) ** 2] for l in full.degrees[2]])
    values = [torch.einsum("k,rkc->rc", harmonics[64:81], x) for x in (a, b)]
    total = torch.einsum("k,rkc->rc", seen, full.product(a, b))
    assert torch.allclose(total, values[0] * values[1], atol=1e-12, rtol=0)
    assert torch.allclose(full.product(a, b)[:, -33:], result[:, -33:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["lebedev", "dense"])
def test_odd_points_are_not_counted_twice(name: str) -> None:
    """Halving must pay: fewer products than a Gauss–Legendre grid or the torus has samples."""
    for lmax in (3, 4, 6):
        irreps = natural_irreps(lmax)
        full = build("gauss_legendre", irreps, irreps, irreps).num_points
        assert build(name, irreps, irreps, irreps).num_points < 0.7 * full


@pytest.mark.parametrize(("name", "option"), [("gaunt_grid", "quadrature"), ("gaunt_fourier", "route")])
def test_unknown_options_are_refused(name: str, option: str) -> None:
    irreps = Irreps("0e+1o")
    with pytest.raises(ConfigError, match=f"{option} must be one of .* got 'lebedew'"):
        factory("tensor_product", name)(irreps, irreps, irreps, **{option: "lebedew"})
    assert factory("tensor_product", name)(irreps, irreps, irreps).operator == "gaunt"
