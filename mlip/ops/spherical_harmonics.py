"""Real spherical harmonics of any degree, differentiable, in e3nn's order and axes.

e3nn's own stop at degree 11; products of degree-6 features on a grid need 12.
"""

import math

import torch
from torch import Tensor


def spherical_harmonics(lmax: int, vectors: Tensor) -> Tensor:
    """Return all degrees 0..lmax of unit vectors, component normalisation: ``Σ_m Y_lm² = 2l + 1``.

    Solid harmonics: for vectors of another length each degree is multiplied by ``|r|^l``. The polar axis is y,
    the azimuth runs from z to x. ``Y_l,±m ∝ Π_l^m(y) · {Re, Im}(z + i x)^m`` with the reduced Legendre
    functions ``Π_l^m = P_l^m / sin^m``, which are polynomials, so that nothing is singular at the poles.

    Args:
        lmax: highest degree.
        vectors: ``(..., 3)``.

    Returns:
        ``(..., (lmax + 1)²)``.
    """
    x, y, z = vectors.unbind(-1)
    squared = x * x + y * y + z * z
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(lmax):
        cosines.append(z * cosines[-1] - x * sines[-1])
        sines.append(x * cosines[-2] + z * sines[-1])
    columns: list[list[Tensor]] = [[] for _ in range(lmax + 1)]
    polynomials: dict[tuple[int, int], Tensor] = {}
    for l in range(lmax + 1):
        for m in range(l + 1):
            polynomials[l, m] = _next_polynomial(polynomials, l, m, y, squared)
        columns[l] = [polynomials[l, m] * sines[m] for m in range(l, 0, -1)]
        columns[l] += [polynomials[l, m] * cosines[m] for m in range(l + 1)]
    return torch.stack([column for degree in columns for column in degree], dim=-1)


def _next_polynomial(known: dict[tuple[int, int], Tensor], l: int, m: int, y: Tensor, squared: Tensor) -> Tensor:
    """Return the normalised ``r^(l-m) Π_l^m(y / r)`` from the two degrees below; stable upwards in l."""
    if l == m:
        # sqrt(2l + 1) at m = 0; for m > 0 the product of sqrt((2k + 1) / (2k)) and sqrt(2) for the real form.
        value = math.sqrt(math.prod((2 * k + 1) / (2 * k) for k in range(1, m + 1)) * (2 if m else 1))
        return torch.full_like(y, value)
    if l == m + 1:
        return math.sqrt(2 * m + 3) * y * known[m, m]
    a = math.sqrt((4 * l * l - 1) / (l * l - m * m))
    b = math.sqrt((2 * l + 1) * ((l - 1) ** 2 - m * m) / ((2 * l - 3) * (l * l - m * m)))
    return a * y * known[l - 1, m] - b * squared * known[l - 2, m]
