"""Fourier series of spherical harmonics: the published values, the integrals, and samples that are just enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.fourier import TorusGrid, back_coefficients, exact_torus, fourier_coefficients, torus_points
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.wigner import gaunt_coefficients

TABLE = {
    (0, 0): {(0, 0): 0.282095},
    (1, 0): {(1, 0): 0.244301, (-1, 0): 0.244301},
    (1, -1): {(-1, -1): -0.122151, (-1, 1): 0.122151, (1, -1): 0.122151, (1, 1): -0.122151},
    (1, 1): {(-1, -1): 0.122151j, (-1, 1): 0.122151j, (1, -1): -0.122151j, (1, 1): -0.122151j},
    (2, 0): {(2, 0): 0.236544, (-2, 0): 0.236544, (0, 0): 0.157696},
    (2, 2): {
        **{(u, v): -0.068284 for u in (-2, 2) for v in (-2, 2)},
        **{(0, v): 0.136569 for v in (-2, 2)},
    },
    (2, -2): {
        **{(u, -2): -0.068284j for u in (-2, 2)},
        **{(u, 2): 0.068284j for u in (-2, 2)},
        (0, -2): 0.136569j,
        (0, 2): -0.136569j,
    },
}
"""Test vector of the method notes: m = -1, 0, 1 are sin θ sin φ, cos θ, sin θ cos φ."""


@pytest.mark.parametrize(("l", "m"), TABLE)
def test_fourier_coefficients_of_the_table(l: int, m: int) -> None:
    lmax = 3
    found = fourier_coefficients(lmax)[l * (l + 1) + m]
    wanted = torch.zeros_like(found)
    for (u, v), value in TABLE[l, m].items():
        wanted[u + lmax, v + lmax] = value
    assert torch.allclose(found, wanted, atol=1e-6, rtol=0)
    assert torch.equal(found == 0, wanted == 0)


def test_fourier_series_is_the_function_on_the_whole_torus() -> None:
    lmax = 6
    generator = torch.Generator().manual_seed(1)
    theta, phi = 2 * math.pi * torch.rand(2, 20, generator=generator, dtype=torch.float64)
    frequency = torch.arange(-lmax, lmax + 1)
    waves = [torch.exp(1j * frequency * angle[:, None]) for angle in (theta, phi)]
    series = torch.einsum("luv,pu,pv->pl", fourier_coefficients(lmax), *waves)
    values = spherical_harmonics(lmax, torus_points(theta, phi)) / math.sqrt(4 * math.pi)
    assert torch.allclose(series, values.to(series.dtype), atol=1e-12, rtol=0)


def test_back_transform_is_the_integral() -> None:
    """Gauss–Legendre in θ on [0, π] (not in cos θ: odd frequencies are no polynomials of it), uniform in φ."""
    lmax, bandwidth = 5, 9
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(60))
    theta, phi = (nodes + 1) * math.pi / 2, 2 * math.pi * torch.arange(24, dtype=torch.float64) / 24
    measure = weights * math.pi / 2 * theta.sin() * 2 * math.pi / 24
    values = spherical_harmonics(lmax, torus_points(theta[:, None], phi)) / math.sqrt(4 * math.pi)
    u, v = torch.arange(-bandwidth, bandwidth + 1), torch.arange(-lmax, lmax + 1)
    wave_u, wave_v = torch.exp(1j * u[:, None] * theta) * measure, torch.exp(1j * v[:, None] * phi)
    integral = torch.einsum("tpl,ut,vp->luv", values.to(wave_u.dtype), wave_u, wave_v)
    assert torch.allclose(back_coefficients(lmax, bandwidth), integral, atol=1e-12, rtol=0)


def coupling(l1: int, l2: int, l3: int) -> Tensor:
    """Return the Gaunt coefficients, zero where the degrees make no triangle."""
    if abs(l1 - l2) <= l3 <= l1 + l2:
        return gaunt_coefficients(l1, l2, l3)
    return torch.zeros(2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1, dtype=torch.float64)


def torus_error(degrees: tuple[int, int, int], grid: TorusGrid) -> float:
    """Largest deviation of all products of harmonics from the Gaunt coefficients."""
    l1, l2, l3 = degrees
    a, b = grid.to_samples(l1), grid.to_samples(l2)
    found = torch.einsum("kp,pi,pj->ijk", grid.from_samples(l3, l1 + l2), a, b)
    exact = torch.cat(
        [
            torch.cat([torch.cat([coupling(i, j, k) for k in range(l3 + 1)], dim=2) for j in range(l2 + 1)], dim=1)
            for i in range(l1 + 1)
        ]
    )
    return float((found - exact).abs().max())


TORI = [(1, 1, 1), (1, 1, 2), (2, 2, 2), (2, 1, 3), (3, 3, 2), (2, 4, 6), (4, 4, 4)]


@pytest.mark.parametrize("degrees", TORI, ids=str)
def test_torus_is_exact_and_no_larger_than_that(degrees: tuple[int, int, int]) -> None:
    num_theta, num_phi = exact_torus(*degrees)
    assert torus_error(degrees, TorusGrid(num_theta, num_phi)) < 1e-12
    assert torus_error(degrees, TorusGrid(num_theta - 1, num_phi)) > 1e-2
    assert torus_error(degrees, TorusGrid(num_theta, num_phi - 1)) > 1e-2


def test_torus_grids_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="even num_theta"):
        TorusGrid(5, 5, halved=True)
    with pytest.raises(ConfigError, match="at least one sample"):
        TorusGrid(0, 5)
