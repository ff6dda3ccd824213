"""The kernel of weighted polynomials against plain torch: values and derivatives of every order that is used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.kernels import polynomial as kernels
from mlip.ops.kernels.polynomial_form import PolynomialForm
from mlip.ops.many_body.symmetric_contraction import SymmetricContraction

CASES = {
    "one power": ("3x0e+3x1o", "3x0e+3x1o", 1),
    "odd channels": ("5x0e+5x1o", "5x0e+5x1o", 2),
    "both parities": ("2x0e+2x1e+2x1o", "2x0o+2x1e", 3),
    "mace": ("16x0e+16x1o+16x2e", "16x0e+16x1o", 3),
}


QUICK = "one power"


@pytest.fixture(params=[QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != QUICK)])
def product(request: pytest.FixtureRequest) -> SymmetricContraction:
    irreps_in, irreps_out, correlation = CASES[request.param]
    return SymmetricContraction(Irreps(irreps_in), Irreps(irreps_out), correlation).double()


def operands(product: SymmetricContraction, rows: int = 7, sets: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in no order, the middle set without any."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, product.irreps_in.dim, dtype=torch.float64, generator=generator)
    weight = torch.randn(sets, product.weight_numel, dtype=torch.float64, generator=generator)
    index = 2 * torch.randint(0, 2, (rows,), generator=generator)
    return x.requires_grad_(), weight.requires_grad_(), index


def both(product: SymmetricContraction, function: Callable[[], list[Tensor]]) -> list[list[Tensor]]:
    """Return what a function of nothing gives in plain torch and with kernels."""
    results = []
    for kernels_used in ("off", "on"):
        product.kernels = kernels_used
        results.append(function())
    return results


def assert_same(plain: list[Tensor], native: list[Tensor]) -> None:
    assert len(plain) == len(native)
    for a, b in zip(plain, native):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12 * float(a.detach().abs().max()) if a.numel() else 0.0)


def test_values_and_two_derivatives(product: SymmetricContraction) -> None:
    x, weight, index = operands(product)

    def derivatives() -> list[Tensor]:
        out = product(x, weight, index)
        first = torch.autograd.grad(out.sin().sum(), [x, weight], create_graph=True)
        second = torch.autograd.grad(sum(t.sin().sum() for t in first), [x, weight])
        return [out, *first, *second]

    assert_same(*both(product, derivatives))


def test_one_set_for_all_rows(product: SymmetricContraction) -> None:
    x, weight, _ = operands(product)
    assert_same(*both(product, lambda: [product(x, weight[0]), *torch.autograd.grad(product(x, weight[0]).sum(), x)]))


@pytest.mark.slow
def test_third_derivatives() -> None:
    product = SymmetricContraction(Irreps("2x0e+2x1o"), Irreps("2x0e+2x1o"), 3).double()
    x, weight, index = operands(product, rows=3)

    def derivatives() -> list[Tensor]:
        first = torch.autograd.grad(product(x, weight, index).sin().sum(), [x, weight], create_graph=True)
        second = torch.autograd.grad(sum(t.sin().sum() for t in first), [x, weight], create_graph=True)
        return list(torch.autograd.grad(sum(t.cos().sum() for t in second), [x, weight]))

    assert_same(*both(product, derivatives))


@pytest.mark.slow
def test_float32() -> None:
    product = SymmetricContraction(Irreps("5x0e+5x1o"), Irreps("5x0e+5x1o"), 2)
    x, weight, index = operands(product)
    product.kernels = "on"
    found = product(x.detach().float(), weight.detach().float(), index).double()
    exact = product.double()(x, weight, index)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


def test_no_rows(product: SymmetricContraction) -> None:
    product.kernels = "on"
    x, weight, index = operands(product, rows=0)
    out = product(x, weight, index)
    assert out.shape == (0, product.irreps_out.dim)
    assert torch.autograd.grad(out.sum(), weight)[0].abs().max() == 0


@pytest.mark.slow
@pytest.mark.slow
def test_torch_knows_the_operator() -> None:
    product = SymmetricContraction(Irreps("2x0e+2x1o"), Irreps("2x0e"), 2).double()
    key = kernels.prepare(product.form, torch.float64)
    rows = torch.arange(4), torch.tensor([0, 1, 4]), key
    x = torch.randn(4, 4, 2, dtype=torch.float64, requires_grad=True)
    p = torch.randn(2, len(product.form.monomials), 2, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.mlip.polynomial.default, (x, p, *rows))


def test_monomials_are_those_of_the_form() -> None:
    """``1.5 x0² x1 + 2 x1`` into the second of two outputs, by hand."""
    form = PolynomialForm(2, 2, 1, ((1, (0, 0, 1)), (1, (1,))))
    key = kernels.prepare(form, torch.float64)
    x = torch.tensor([[[3.0], [5.0]]], dtype=torch.float64)
    p = torch.tensor([[[1.5], [2.0]]], dtype=torch.float64)
    out = kernels.polynomial(x, p, torch.arange(1), torch.tensor([0, 1]), key)
    assert out.flatten().tolist() == [0.0, 1.5 * 9 * 5 + 2 * 5]


def test_large_forms_are_left_to_torch() -> None:
    product = SymmetricContraction(Irreps("2x0e+2x1o"), Irreps("2x0e+2x1o"), 2)
    assert product.kernel_key(torch.zeros(1), 10) is None, "too little to do"
    product.kernels = "on"
    with pytest.raises(ConfigError, match=r"not for torch\.float16"):
        product.kernel_key(torch.zeros(1, dtype=torch.float16))
