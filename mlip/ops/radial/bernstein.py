"""Bernstein polynomials of an exponentially damped distance."""

import torch
from scipy.special import comb
from torch import Tensor, nn

from mlip.ops.constants import as_float64
from mlip.ops.radial.base import RadialBasis


class ExponentialBernstein(RadialBasis):
    """``φ_n(r) = C(N, n) t^n (1 - t)^(N - n)`` with ``t = exp(-γ r)``, N = num_basis - 1, n = 0..N.

    The exponential puts the resolution at short distances, where chemistry is
    (SpookyNet, arXiv 2105.00304, eq. 12).

    Args:
        num_basis: number of functions.
        cutoff: radius in Å (states the range; the functions themselves do not end there).
        gamma: decay constant in 1/Å; the default 0.9448630629184640 is 0.5 per Bohr, as published.
        trainable: let γ be learned (through a softplus, so it stays positive).
    """

    def __init__(
        self, num_basis: int, cutoff: float, gamma: float = 0.9448630629184640, trainable: bool = False
    ) -> None:
        super().__init__(num_basis, cutoff)
        degree = num_basis - 1
        self.register_constant("binomials", as_float64([comb(degree, n) for n in range(num_basis)]))
        raw = torch.log(torch.expm1(as_float64(gamma)))
        if trainable:
            self.raw_gamma = nn.Parameter(raw.to(torch.float32))
        else:
            self.register_constant("raw_gamma", raw)

    def forward(self, distances: Tensor) -> Tensor:
        dtype = distances.dtype
        gamma = torch.nn.functional.softplus(self.raw_gamma.to(dtype))
        # One minus the exponential from expm1: at r = 0 both factors stay exact and differentiable.
        t = torch.exp(-gamma * distances)[:, None]
        s = -torch.expm1(-gamma * distances)[:, None]
        # Integer powers one by one: their derivative at zero is finite, unlike that of a tensor exponent.
        rising = torch.cat([t**n for n in range(self.num_basis)], dim=1)
        falling = torch.cat([s**n for n in reversed(range(self.num_basis))], dim=1)
        return self.binomials.to(dtype) * rising * falling
