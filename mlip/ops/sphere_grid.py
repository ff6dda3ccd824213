"""Functions on the sphere: from coefficients to values on a grid and back.

The projection to degrees <= L3 of a product of functions of degrees <= L1 and <= L2 integrates polynomials of
degree ``D = L1 + L2 + L3``; the round trip of degrees <= lmax has ``D = 2 lmax``. Exact for D are

- Gauss–Legendre latitudes times uniform longitudes with ``num_latitudes >= (D + 1) / 2`` and
  ``num_longitudes >= D + 1``;
- the Lebedev rule of a degree >= D, with about two thirds of the points.

Points that come in pairs ±r̂ can be halved (:func:`antipodal_half`): even and odd degrees are told apart by what
they do under inversion, so the values of both at one point of a pair say everything about the other.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import torch
from scipy.integrate import lebedev_rule
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.spherical_harmonics import spherical_harmonics

# Above 31 every third odd degree has a rule.
LEBEDEV_DEGREES = (*range(3, 32, 2), *range(35, 132, 6))
"""Degrees up to which the known Lebedev rules are exact."""


@dataclass(frozen=True)
class SphereGrid:
    """Quadrature on the unit sphere in e3nn's axes (y is the polar axis).

    Attributes:
        points: ``(points, 3)`` unit vectors, float64.
        weights: ``(points,)`` quadrature weights with sum 1, float64.
    """

    points: Tensor
    weights: Tensor

    def harmonics(self, lmax: int) -> Tensor:
        """Return ``(points, (lmax+1)²)`` real spherical harmonics, component normalisation, float64."""
        return spherical_harmonics(lmax, self.points)

    def to_grid(self, lmax: int) -> Tensor:
        """Return the matrix ``(points, (lmax+1)²)`` from coefficients to values."""
        return self.harmonics(lmax)

    def from_grid(self, lmax: int) -> Tensor:
        """Return the matrix ``((lmax+1)², points)`` from values to coefficients.

        With component normalisation the harmonics are orthonormal under the mean over the sphere, so the
        coefficients are the weighted means of value times harmonic.
        """
        return (self.harmonics(lmax) * self.weights[:, None]).T.contiguous()


@lru_cache(maxsize=32)
def gauss_legendre_grid(num_latitudes: int, num_longitudes: int) -> SphereGrid:
    """Build the product grid of Gauss–Legendre latitudes and uniform longitudes."""
    nodes, weights = np.polynomial.legendre.leggauss(num_latitudes)
    azimuth = 2 * np.pi * (np.arange(num_longitudes) + 0.5) / num_longitudes
    sine = np.sqrt(1 - nodes**2)
    points = np.stack(
        [
            np.outer(sine, np.sin(azimuth)),
            np.outer(nodes, np.ones(num_longitudes)),
            np.outer(sine, np.cos(azimuth)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    all_weights = np.repeat(weights / (2 * num_longitudes), num_longitudes)
    return SphereGrid(torch.from_numpy(points), torch.from_numpy(all_weights))


def exact_resolution(total_degree: int) -> tuple[int, int]:
    """Return the smallest (latitudes, longitudes) that integrate degree ``total_degree`` exactly."""
    return max(1, ceil((total_degree + 1) / 2)), total_degree + 1


@lru_cache(maxsize=32)
def lebedev_grid(total_degree: int) -> SphereGrid:
    """Build the Lebedev rule with the fewest points that integrates degree ``total_degree`` exactly.

    The points have the symmetry of the octahedron and come in pairs ±r̂. Some rules (degrees 13, 25, 27) have
    negative weights, which is no harm for functions that they integrate exactly.

    Raises:
        ConfigError: a degree above 131, the highest with a known rule.
    """
    degree = next((n for n in LEBEDEV_DEGREES if n >= total_degree), None)
    if degree is None:
        raise ConfigError(
            f"Lebedev rules exist up to degree {LEBEDEV_DEGREES[-1]}, got {total_degree}; use gauss_legendre."
        )
    points, weights = lebedev_rule(degree)
    return SphereGrid(torch.from_numpy(points.T.copy()), torch.from_numpy(weights / weights.sum()))


def antipodal_half(grid: SphereGrid) -> SphereGrid:
    """Keep one point of each pair ±r̂ of a grid, with twice the weight.

    With ``f = f_e + f_o`` (even and odd degrees) ``f(-r̂) = f_e(r̂) - f_o(r̂)``. The even part of a product is
    ``f_e g_e + f_o g_o`` and is all that even degrees of the result see, the odd part is ``f_e g_o + f_o g_e``.

    Raises:
        ConfigError: a grid whose points do not come in pairs (a product grid with an odd number of longitudes).
    """
    # Adding 0 turns -0 into 0; coordinates that are equal by symmetry differ by rounding.
    places = [tuple(place) for place in (np.round(grid.points.numpy(), 9) + 0.0).tolist()]
    weights = dict(zip(places, grid.weights.tolist()))
    kept = []
    for k, place in enumerate(places):
        opposite = tuple(0.0 - coordinate for coordinate in place)
        if abs(weights.get(opposite, float("inf")) - weights[place]) > 1e-12:
            raise ConfigError(
                f"The {len(places)} points of the grid do not come in pairs ±r; take a Lebedev rule or an even "
                "number of longitudes."
            )
        if place > opposite:
            kept.append(k)
    return SphereGrid(grid.points[kept], 2 * grid.weights[kept])
