"""3j symbols, Gaunt coefficients and spherical harmonics against e3nn, quadrature and published numbers."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from e3nn import o3

from mlip.ops.sphere_grid import exact_resolution, gauss_legendre_grid
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.wigner import gaunt_coefficients, wigner_3j

TRIPLES = [t for t in product(range(5), repeat=3) if abs(t[0] - t[1]) <= t[2] <= t[0] + t[1]]


def unit_vectors(count: int) -> torch.Tensor:
    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


@pytest.mark.parametrize("degrees", TRIPLES, ids=str)
def test_3j_symbols_are_e3nns_in_every_order(degrees: tuple[int, int, int]) -> None:
    expected = o3.wigner_3j(*degrees, dtype=torch.float64)
    assert (wigner_3j(*degrees) - expected).abs().max() < 1e-14
    # What vanishes by symmetry is zero, not 1e-17.
    assert not ((wigner_3j(*degrees) != 0) & (expected.abs() < 1e-12)).any()


@pytest.mark.parametrize("degrees", TRIPLES, ids=str)
def test_gaunt_coefficients_are_integrals_of_three_harmonics(degrees: tuple[int, int, int]) -> None:
    grid = gauss_legendre_grid(*exact_resolution(sum(degrees)))
    # With ∫ Y² = 1 a harmonic is 1/sqrt(4π) of the component-normalised one; the mean times 4π is the integral.
    a, b, c = (grid.harmonics(l)[:, l * l :] / (4 * torch.pi) ** 0.5 for l in degrees)
    integral = 4 * torch.pi * torch.einsum("p,pi,pj,pk->ijk", grid.weights, a, b, c)
    assert (gaunt_coefficients(*degrees) - integral).abs().max() < 1e-13


@pytest.mark.parametrize(
    ("degrees", "prefactor"),
    [
        ((0, 0, 0), 0.282095),
        ((0, 1, 1), 0.488603),
        ((1, 1, 2), 0.690988),
        ((2, 2, 0), 0.630783),
        ((2, 2, 2), 0.753930),
        ((1, 2, 3), 0.846284),
        ((2, 2, 4), 1.011503),
        ((3, 3, 2), 0.861814),
    ],
)
def test_prefactors_are_the_published_ones(degrees: tuple[int, int, int], prefactor: float) -> None:
    """The table const_wigner2gaunt of the Gaunt tensor products' repository (arXiv 2401.10216)."""
    norm = float(gaunt_coefficients(*degrees).norm())
    assert norm == pytest.approx(prefactor, abs=1e-6)


def test_harmonics_are_e3nns() -> None:
    vectors = 1.3 * unit_vectors(20)
    expected = o3.spherical_harmonics(list(range(12)), vectors, normalize=False, normalization="component")
    assert ((spherical_harmonics(11, vectors) - expected).abs() / (1 + expected.abs())).max() < 1e-12


def test_harmonics_beyond_e3nn_are_orthonormal() -> None:
    grid = gauss_legendre_grid(*exact_resolution(2 * 17))
    values = spherical_harmonics(17, grid.points)
    gram = (values * grid.weights[:, None]).T @ values
    assert (gram - torch.eye(18**2, dtype=torch.float64)).abs().max() < 1e-12


def test_harmonics_are_differentiable_at_the_poles() -> None:
    poles = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: spherical_harmonics(4, v), poles)
    assert torch.autograd.gradgradcheck(lambda v: spherical_harmonics(3, v), poles)
