"""Wigner 3j symbols of the real basis: e3nn's values, in float64, with exact zeros, for any degree."""

from functools import lru_cache

import torch
from e3nn import o3
from torch import Tensor


@lru_cache(maxsize=4096)
def wigner_3j(l1: int, l2: int, l3: int) -> Tensor:
    """Return the 3j symbols ``(2 l1 + 1, 2 l2 + 1, 2 l3 + 1)``, float64, Frobenius norm 1.

    They are invariant: contracted with three features of degrees l1, l2, l3 they give a scalar. Do not change
    the result in place: it is shared.
    """
    degrees = (l1, l2, l3)
    order = sorted(range(3), key=lambda k: degrees[k])
    symbol = _sorted_3j(*(degrees[k] for k in order))
    # The sorted axis s holds degree number order[s]; an odd exchange has the sign (-1)^(l1 + l2 + l3).
    exchanges = sum(order[a] > order[b] for a in range(3) for b in range(a + 1, 3))
    sign = -1.0 if exchanges % 2 and sum(degrees) % 2 else 1.0
    return sign * symbol.permute([order.index(k) for k in range(3)])


@lru_cache(maxsize=4096)
def _sorted_3j(l1: int, l2: int, l3: int) -> Tensor:
    symbol = o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
    # Entries that vanish by symmetry come with rounding of 1e-17, which a sparse product would multiply.
    return torch.where(symbol.abs() < 1e-13, 0.0, symbol)


def gaunt_coefficients(l1: int, l2: int, l3: int) -> Tensor:
    """Return ``∫ Y_l1m1 Y_l2m2 Y_l3m3 dΩ`` for harmonics with ``∫ Y² dΩ = 1``, ``(2l1+1, 2l2+1, 2l3+1)``.

    ``G = sqrt((2l1+1)(2l2+1)(2l3+1) / 4π) |3j(000)| 3j`` (arXiv 2401.10216, eq. 2, in e3nn's real basis); zero
    where l1 + l2 + l3 is odd.
    """
    symbol = wigner_3j(l1, l2, l3)
    if (l1 + l2 + l3) % 2:
        return torch.zeros_like(symbol)
    scale = ((2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1) / (4 * torch.pi)) ** 0.5
    return scale * symbol[l1, l2, l3].abs() * symbol
