"""Functions on the sphere: from coefficients to values on a grid and back.

Gauss–Legendre latitudes times uniform longitudes. The round trip of degrees <= lmax is exact, and so is
the projection to degree L3 of a product of functions of total degree D - L3, when
``num_latitudes >= (D + 1) / 2`` and ``num_longitudes >= D + 1``.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import torch
from e3nn import o3
from torch import Tensor


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
        return o3.spherical_harmonics(list(range(lmax + 1)), self.points, normalize=False, normalization="component")

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
