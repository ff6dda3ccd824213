"""Spherical harmonics as trigonometric polynomials on the torus (θ, φ), and the way back.

``Y_lm(θ, φ) = Σ_uv y^lm_uv exp(i (u θ + v φ))`` with |u|, |v| <= l, continued to θ in [0, 2π) by
``(x, y, z) = (sin θ sin φ, cos θ, sin θ cos φ)`` (arXiv 2401.10216, section 3). Harmonics have ``∫ Y² dΩ = 1`` here.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.spherical_harmonics import spherical_harmonics


def torus_points(theta: Tensor, phi: Tensor) -> Tensor:
    """Return the unit vectors ``(..., 3)`` of angles; beyond θ = π they cover the sphere a second time."""
    theta, phi = torch.broadcast_tensors(theta, phi)
    return torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], dim=-1)


@lru_cache(maxsize=32)
def fourier_coefficients(lmax: int) -> Tensor:
    """Return ``y^lm_uv``, complex128 ``((lmax+1)², 2 lmax + 1, 2 lmax + 1)``, indices u + lmax and v + lmax.

    Only v = ±m and |u| <= l of the parity of l occur; the rest is exactly zero.
    """
    number = 2 * lmax + 1
    angle = 2 * math.pi * torch.arange(number, dtype=torch.float64) / number
    points = torus_points(angle[:, None], angle)
    values = spherical_harmonics(lmax, points) / math.sqrt(4 * math.pi)
    spectrum = torch.fft.fftshift(torch.fft.fft2(values, dim=(0, 1)), dim=(0, 1)) / number**2
    u, v = torch.arange(-lmax, lmax + 1)[:, None, None], torch.arange(-lmax, lmax + 1)[:, None]
    l, m = _degrees_and_orders(lmax)
    occurs = ((u - l) % 2 == 0) & (u.abs() <= l) & (v.abs() == m.abs())
    return (spectrum * occurs).permute(2, 0, 1).contiguous()


@lru_cache(maxsize=32)
def back_coefficients(lmax: int, bandwidth: int) -> Tensor:
    """Return ``z^lm_uv = ∫ Y_lm exp(i (u θ + v φ)) dΩ``, ``((lmax+1)², 2 bandwidth + 1, 2 lmax + 1)``, complex128.

    A function with coefficients Z (|u| <= bandwidth) has the projections ``Σ_uv Z_uv z^lm_uv``. In closed form
    ``z^lm_uv = 2π Σ_u' y^lm_u',-v I(u + u')``, ``I(k) = ∫_0^π exp(i k θ) sin θ dθ``.
    """
    u = torch.arange(-bandwidth, bandwidth + 1)
    k = u[:, None] + torch.arange(-lmax, lmax + 1)
    even = torch.where(k % 2 == 0, 2.0 / (1 - k.double() ** 2), 0.0)
    integral = torch.complex(even, torch.where(k.abs() == 1, k.double() * math.pi / 2, 0.0))
    reversed_v = fourier_coefficients(lmax).flip(2)
    return 2 * math.pi * torch.einsum("uw,lwv->luv", integral, reversed_v)


def exact_torus(lmax1: int, lmax2: int, lmax_out: int) -> tuple[int, int]:
    """Return the smallest (N_θ, N_φ) that give the degrees <= lmax_out of a product exactly.

    θ needs all frequencies of the product; in φ those above lmax_out may be aliased onto each other.
    """
    bandwidth = lmax1 + lmax2
    return 2 * bandwidth + 1, bandwidth + min(lmax_out, bandwidth) + 1


@dataclass(frozen=True)
class TorusGrid:
    """Samples of a uniform grid of the torus that say everything about the others.

    ``f(2π - θ, φ + π) = f(θ, φ)`` for functions on the sphere, so θ in [0, π] suffices, and one sample at the pole.
    Halved, even and odd degrees are sampled apart (as by :func:`mlip.ops.sphere_grid.antipodal_half`): they have even
    and odd frequencies in θ only, the period is π up to the sign, and θ in [0, π/2] suffices.

    Attributes:
        num_theta, num_phi: samples on the whole torus; N_θ is even where halved.
        halved: whether even and odd degrees are told apart.
    """

    num_theta: int
    num_phi: int
    halved: bool = False

    def __post_init__(self) -> None:
        if self.num_theta < 1 or self.num_phi < 1 or (self.halved and self.num_theta % 2):
            raise ConfigError(
                f"A torus grid needs at least one sample an axis, and an even num_theta where it is halved, got "
                f"({self.num_theta}, {self.num_phi})."
            )

    @property
    def period(self) -> int:
        """Number of samples in a period of θ."""
        return self.num_theta // 2 if self.halved else self.num_theta

    @property
    def angles(self) -> tuple[Tensor, Tensor]:
        """θ and φ of the grid lines that are kept."""
        theta = 2 * math.pi * torch.arange(self.period // 2 + 1, dtype=torch.float64) / self.num_theta
        return theta, 2 * math.pi * torch.arange(self.num_phi, dtype=torch.float64) / self.num_phi

    def to_samples(self, lmax: int) -> Tensor:
        """Return the matrix ``(samples, (lmax+1)²)`` from coefficients to values."""
        theta, phi = self.angles
        points = torus_points(theta[:, None], phi).flatten(0, 1)
        return spherical_harmonics(lmax, points[self.num_phi - 1 :]) / math.sqrt(4 * math.pi)

    def from_samples(self, lmax: int, bandwidth: int) -> Tensor:
        """Return the matrix ``((lmax+1)², samples)`` from values of a function to its projections on degrees <= lmax.

        Args:
            lmax: highest degree wanted.
            bandwidth: highest frequency of the function in θ.

        The discrete Fourier transform and :func:`back_coefficients` in one real matrix: a sample stands also for
        its mirror image, whose φ-spectrum is (-1)^v times its own.
        """
        theta, phi = self.angles
        u, v = torch.arange(-bandwidth, bandwidth + 1), torch.arange(-lmax, lmax + 1)
        back = back_coefficients(lmax, bandwidth)
        if self.halved:
            back = back * ((u - _degrees_and_orders(lmax)[0][:, None]) % 2 == 0)[:, :, None]
        wave = torch.exp(-1j * u[:, None] * theta)
        place = torch.arange(len(theta))
        mirrored = wave.conj() * ((2 * place) % self.period != 0)
        sign = 1.0 - 2.0 * (v % 2)
        spectrum = torch.einsum("luv,uj->lvj", back, wave)
        spectrum = spectrum + sign[:, None] * torch.einsum("luv,uj->lvj", back, mirrored)
        matrix = torch.einsum("lvj,vk->ljk", spectrum, torch.exp(-1j * v[:, None] * phi)).real
        matrix = matrix / (self.period * self.num_phi)
        # At the pole the values of all φ are the same.
        return torch.cat([matrix[:, 0].sum(dim=1, keepdim=True), matrix[:, 1:].flatten(1)], dim=1)


def _degrees_and_orders(lmax: int) -> tuple[Tensor, Tensor]:
    """Return l and m of each of the (lmax+1)² harmonics."""
    degrees = torch.arange(lmax + 1)
    l = degrees.repeat_interleave(2 * degrees + 1)
    return l, torch.arange(len(l)) - l * (l + 1)
