"""The universal repulsion of two nuclei with their electrons."""

import torch
from torch import Tensor

COULOMB = 14.399645478425668
"""e²/(4πε₀) in eV·Å."""
_SCREENING = 0.46850
"""Prefactor of the universal screening length in Å, 0.8854 Bohr."""
_TERMS = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4029), (0.02817, 0.2016))


def universal_repulsion(first: Tensor, second: Tensor, distances: Tensor) -> Tensor:
    """Return ``k Z_i Z_j / r · φ(r/a)`` of Ziegler, Biersack and Littmark (1985) in eV.

    φ(x) = 0.1818 e^(-3.2x) + 0.5099 e^(-0.9423x) + 0.2802 e^(-0.4029x) + 0.02817 e^(-0.2016x),
    a = 0.46850 / (Z_i^0.23 + Z_j^0.23) Å, and k = e²/(4πε₀).

    Args:
        first, second: nuclear charges Z_i and Z_j.
        distances: r in Å, positive.
    """
    x = distances * (first**0.23 + second**0.23) / _SCREENING
    screening = sum(amplitude * torch.exp(-decay * x) for amplitude, decay in _TERMS)
    return COULOMB * first * second / distances * screening
