"""Grids on the sphere: exact where they say so, and not by accident."""

from __future__ import annotations

import pytest
import torch

from mlip.core.errors import MlipError
from mlip.ops import sphere_grid
from mlip.ops.layout import natural_irreps
from mlip.ops.sphere_grid import exact_resolution, gauss_legendre_grid
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


def test_grid_without_latitudes_is_refused() -> None:
    with pytest.raises((ValueError, MlipError)):
        gauss_legendre_grid(0, 3)
