"""Grids on the sphere: exact where they say so, and not by accident."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mlip.core.errors import MlipError
from mlip.ops import sphere_grid
from mlip.ops.layout import natural_irreps
from mlip.ops.sphere_grid import (
    LEBEDEV_DEGREES,
    SphereGrid,
    antipodal_half,
    exact_resolution,
    gauss_legendre_grid,
    lebedev_grid,
)
from mlip.ops.wigner import gaunt_coefficients
from mlip.testing.wigner import random_rotation, transform, wigner_d


def gram_error(degree1: int, degree2: int, resolution: tuple[int, int]) -> float:
    """Largest deviation from orthonormality between harmonics up to two degrees."""
    grid = gauss_legendre_grid(*resolution)
    gram = grid.from_grid(degree1) @ grid.to_grid(degree2)
    identity = torch.eye(*gram.shape, dtype=torch.float64)
    return float((gram - identity).abs().max())


@pytest.mark.parametrize("lmax", range(7))
def test_round_trip_is_exact_at_the_smallest_grid(lmax: int) -> None:
    assert gram_error(lmax, lmax, exact_resolution(2 * lmax)) < 1e-13


@pytest.mark.parametrize("lmax", range(1, 7))
def test_one_point_fewer_is_not_enough(lmax: int) -> None:
    latitudes, longitudes = exact_resolution(2 * lmax)
    assert gram_error(lmax, lmax, (latitudes - 1, longitudes)) > 1e-2
    assert gram_error(lmax, lmax, (latitudes, longitudes - 1)) > 1e-2


@pytest.mark.parametrize(("degrees", "projected"), [((2, 2), 2), ((2, 3), 1), ((1, 1), 4)])
def test_products_are_projected_exactly(degrees: tuple[int, int], projected: int) -> None:
    """A finer grid gives the same coefficients, a coarser one does not."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn((l + 1) ** 2, generator=generator, dtype=torch.float64) for l in degrees)
    total = sum(degrees) + projected

    def project(resolution: tuple[int, int]) -> torch.Tensor:
        grid = gauss_legendre_grid(*resolution)
        values = (grid.to_grid(degrees[0]) @ a) * (grid.to_grid(degrees[1]) @ b)
        return grid.from_grid(projected) @ values

    reference = project((30, 60))
    latitudes, longitudes = exact_resolution(total)
    assert torch.allclose(project((latitudes, longitudes)), reference, atol=1e-12, rtol=0)
    assert (project((latitudes, longitudes - 1)) - reference).abs().max() > 1e-3


def test_weights_are_a_mean_over_the_sphere() -> None:
    grid = gauss_legendre_grid(5, 9)
    assert float(grid.weights.sum()) == pytest.approx(1.0, abs=1e-15)
    assert torch.allclose(grid.points.square().sum(dim=1), torch.ones(45, dtype=torch.float64), atol=1e-15)
    # The mean of x² over the sphere is 1/3, along every axis.
    assert torch.allclose(grid.weights @ grid.points.square(), torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-15)


def test_harmonics_on_the_grid_turn_as_irreps() -> None:
    """Harmonics, layout and Wigner matrices agree on axes and order."""
    irreps = natural_irreps(3)
    rotation = random_rotation(0)
    grid = gauss_legendre_grid(3, 5)
    turned = sphere_grid.SphereGrid(grid.points @ rotation.T, grid.weights).harmonics(3)
    assert torch.allclose(turned, transform(grid.harmonics(3), irreps, rotation), atol=1e-12)


@pytest.mark.parametrize("degree", range(5))
def test_wigner_matrices_are_orthogonal_in_float64(degree: int) -> None:
    a, b = random_rotation(1), random_rotation(2)
    d = wigner_d(degree, a)
    assert torch.allclose(d @ d.T, torch.eye(2 * degree + 1, dtype=torch.float64), atol=1e-13)
    assert torch.allclose(wigner_d(degree, a @ b), d @ wigner_d(degree, b), atol=1e-13)


def coupling_error(degrees: tuple[int, int, int], grid: SphereGrid) -> float:
    """Largest deviation of the quadrature of three harmonics, of all degrees up to these, from the exact integral."""
    columns = [grid.harmonics(l) / math.sqrt(4 * math.pi) for l in degrees]
    found = 4 * math.pi * torch.einsum("p,pi,pj,pk->ijk", grid.weights, *columns)
    error = 0.0
    for l1, l2, l3 in itertools.product(*(range(l + 1) for l in degrees)):
        block = found[l1 * l1 : (l1 + 1) ** 2, l2 * l2 : (l2 + 1) ** 2, l3 * l3 : (l3 + 1) ** 2]
        if abs(l1 - l2) <= l3 <= l1 + l2:
            block = block - gaunt_coefficients(l1, l2, l3)
        error = max(error, float(block.abs().max()))
    return error


COUPLINGS = [(1, 1, 1), (1, 1, 2), (2, 2, 2), (2, 1, 3), (3, 3, 3), (3, 2, 5), (4, 4, 4), (5, 3, 2)]
"""Degrees of two functions and of the projection of their product; sums from 3 to 12."""


@pytest.mark.parametrize("degrees", COUPLINGS, ids=str)
def test_product_grid_has_the_points_it_needs_and_no_more(degrees: tuple[int, int, int]) -> None:
    latitudes, longitudes = exact_resolution(sum(degrees))
    assert coupling_error(degrees, gauss_legendre_grid(latitudes, longitudes)) < 1e-13
    assert coupling_error(degrees, gauss_legendre_grid(latitudes - 1, longitudes)) > 1e-2
    assert coupling_error(degrees, gauss_legendre_grid(latitudes, longitudes - 1)) > 1e-2


@pytest.mark.parametrize("degrees", COUPLINGS, ids=str)
def test_lebedev_rule_is_the_smallest_exact_one(degrees: tuple[int, int, int]) -> None:
    total = sum(degrees)
    grid = lebedev_grid(total)
    assert len(grid.points) < len(gauss_legendre_grid(*exact_resolution(total)).points)
    assert coupling_error(degrees, grid) < 1e-13
    if total > 3:
        smaller = lebedev_grid(max(n for n in LEBEDEV_DEGREES if n < total))
        assert len(smaller.points) < len(grid.points)
        assert coupling_error(degrees, smaller) > 1e-2


def test_lebedev_points_of_the_literature() -> None:
    """Number of points of some rules, and the nearest rule above a degree that has none."""
    known = {0: 6, 3: 6, 4: 14, 5: 14, 9: 38, 12: 74, 13: 74, 18: 146, 24: 230, 32: 434, 126: 5810, 131: 5810}
    assert {degree: len(lebedev_grid(degree).points) for degree in known} == known
    assert len(LEBEDEV_DEGREES) == 32


@pytest.mark.parametrize("degree", [3, 13, 25, 27, 41])
def test_lebedev_weights_and_means(degree: int) -> None:
    """Σ weights = 1, unit vectors, the mean of every harmonic of the degree is zero; rules of mixed signs too."""
    grid = lebedev_grid(degree)
    assert float(grid.weights.sum()) == pytest.approx(1.0, abs=1e-14)
    assert torch.allclose(grid.points.square().sum(dim=1), torch.ones(len(grid.points), dtype=torch.float64))
    means = grid.weights @ grid.harmonics(degree)
    assert float(means[1:].abs().max()) < 1e-13
    assert float((grid.weights @ grid.harmonics(degree + 1)).abs()[1:].max()) > 1e-2


def test_degrees_without_a_lebedev_rule_are_refused() -> None:
    with pytest.raises(MlipError, match="up to degree 131, got 132"):
        lebedev_grid(132)


@pytest.mark.parametrize("grid", [lebedev_grid(n) for n in (3, 12, 31, 131)] + [gauss_legendre_grid(4, 8)])
def test_half_of_the_points_stands_for_all(grid: SphereGrid) -> None:
    half = antipodal_half(grid)
    assert 2 * len(half.points) == len(grid.points)
    both = torch.cat([half.points, -half.points])
    # The same set of points: each original one has exactly one partner.
    distance = torch.cdist(grid.points, both, compute_mode="donot_use_mm_for_euclid_dist")
    nearest, partner = distance.min(dim=1)
    assert float(nearest.max()) < 1e-14
    assert len(set(partner.tolist())) == len(grid.points)
    assert torch.allclose(half.weights.repeat(2)[partner] / 2, grid.weights, atol=1e-15, rtol=0)


def test_products_on_half_of_the_points() -> None:
    """Even and odd degrees apart: the same coefficients as on all points."""
    degrees, grid = (3, 2, 4), lebedev_grid(9)
    half = antipodal_half(grid)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn((l + 1) ** 2, generator=generator, dtype=torch.float64) for l in degrees[:2])
    full = grid.from_grid(degrees[2]) @ ((grid.to_grid(degrees[0]) @ a) * (grid.to_grid(degrees[1]) @ b))
    odd = [torch.tensor([l % 2 for l in range(lmax + 1) for _ in range(2 * l + 1)]) for lmax in degrees]
    (fe, fo), (ge, go) = (
        [half.to_grid(lmax) @ (x * (parity == p)) for p in (0, 1)] for lmax, x, parity in zip(degrees, (a, b), odd)
    )
    even_part, odd_part = (half.from_grid(degrees[2]) @ x for x in (fe * ge + fo * go, fe * go + fo * ge))
    assert torch.allclose(torch.where(odd[2] == 0, even_part, odd_part), full, atol=1e-13, rtol=0)


def test_grids_without_antipodes_are_not_halved() -> None:
    with pytest.raises(MlipError, match="45 points of the grid do not come in pairs"):
        antipodal_half(gauss_legendre_grid(5, 9))


def test_grid_without_latitudes_is_refused() -> None:
    with pytest.raises((ValueError, MlipError)):
        gauss_legendre_grid(0, 3)
