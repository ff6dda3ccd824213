"""Powers of a function on the sphere by the 2D Fourier series of its extension to the torus."""

import math

import torch
from torch import Tensor

from mlip.ops.many_body.gaunt import GauntManyBody
from mlip.ops.spherical_harmonics import spherical_harmonics


class GauntFourierManyBody(GauntManyBody):
    """Convolutions of 2D Fourier series, projected back in closed form (arXiv 2401.10216, section 3.2).

    The polar angle θ of a polynomial on the sphere runs on to 2π, which makes it a function on the torus with
    the frequencies |u|, |v| <= its degree; ``F(2π - θ, φ + π) = F(θ, φ)``. The convolutions
    ``F_ν = F_⌊ν/2⌋ * F_⌈ν/2⌉`` of the coefficients are products of samples (convolution theorem) on
    ``2 (ν lmax + 1)`` angles θ, half of which follow from the symmetry, and ``ν lmax + lmax_out + 1`` (made
    even) angles φ: beyond |v| = lmax_out the series may alias. The discrete Fourier transform and the integrals
    z are one real matrix. With torch.fft and coefficient arrays that grow with ν, as in the paper's code, the
    same takes many times longer (:func:`mlip.testing.many_body.fourier_convolutions`).
    """

    def sample(self, lmax_in: int, lmax_out: int, nu: int) -> tuple[Tensor, Tensor]:
        degree = nu * lmax_in
        num_theta = degree + 1
        num_phi = degree + lmax_out + 1
        num_phi += num_phi % 2
        theta = math.pi * (torch.arange(2 * num_theta, dtype=torch.float64) + 0.5) / num_theta
        phi = 2 * math.pi * torch.arange(num_phi, dtype=torch.float64) / num_phi
        values = spherical_harmonics(lmax_in, torus_points(theta[:num_theta], phi)).flatten(0, 1)
        u, v = torch.arange(-degree, degree + 1), torch.arange(-lmax_out, lmax_out + 1)
        waves_theta = torch.exp(-1j * u * theta[:, None]) / len(theta)
        waves_phi = torch.exp(-1j * v * phi[:, None]) / num_phi
        integrals = sphere_integrals(lmax_out, degree) / (4 * math.pi)
        full = torch.einsum("cuv,tu,pv->ctp", integrals, waves_theta, waves_phi).real
        # The second half of the angles θ repeats the first, at the opposite φ.
        repeated = full[:, num_theta:].flip(1).roll(num_phi // 2, dims=2)
        return values, (full[:, :num_theta] + repeated).flatten(1)


def torus_points(theta: Tensor, phi: Tensor) -> Tensor:
    """Return ``(theta, phi, 3)`` points ``(sinθ sinφ, cosθ, sinθ cosφ)``."""
    theta, phi = torch.broadcast_tensors(theta[:, None], phi)
    return torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], dim=-1)


def fourier_coefficients(lmax: int) -> Tensor:
    """Return y with ``Y_lm(θ, φ) = Σ_uv y^{lm}_uv e^{i(uθ + vφ)}``, component normalisation.

    Returns:
        ``((lmax + 1)², 2 lmax + 1, 2 lmax + 1)``, complex128, frequencies -lmax..lmax.
    """
    n = 2 * lmax + 1
    angles = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    samples = spherical_harmonics(lmax, torus_points(angles, angles))
    waves = torch.exp(-1j * torch.arange(-lmax, lmax + 1) * angles[:, None]) / n
    return torch.einsum("tpc,tu,pv->cuv", samples.to(waves.dtype), waves, waves)


def sphere_integrals(lmax: int, degree: int) -> Tensor:
    """Return ``z^{lm}_uv = ∫_0^π dθ ∫_0^2π dφ Y_lm e^{i(uθ + vφ)} sinθ`` for |u| <= degree, |v| <= lmax.

    In closed form ``2π Σ_u' y^{lm}_{u', -v} I(u + u')`` with ``I(k) = ∫_0^π e^{ikθ} sinθ dθ``, which is
    ``2 / (1 - k²)`` for even k, ``± iπ/2`` for k = ±1 and zero for other odd k.

    Returns:
        ``((lmax + 1)², 2 degree + 1, 2 lmax + 1)``, complex128.
    """
    k = torch.arange(-degree, degree + 1)[:, None] + torch.arange(-lmax, lmax + 1)
    even = torch.where(k % 2 == 0, 2.0 / (1.0 - k.double() ** 2), 0.0)
    single = torch.where(k.abs() == 1, k.double() * math.pi / 2, 0.0)
    return 2 * math.pi * torch.einsum("cwv,uw->cuv", fourier_coefficients(lmax).flip(2), torch.complex(even, single))
