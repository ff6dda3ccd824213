"""An exponential core, softer than that of the bare nuclei, fixed or learned."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlip.nn.pair_terms.base import Repulsion
from mlip.ops.constants import as_float64
from mlip.ops.universal_repulsion import universal_repulsion

_BOHR = 0.529177210903
_RANGE = (1.5 * _BOHR, 3.5 * _BOHR)
"""Å. Where Abrahamson found the exponential form to hold."""
_POINTS = 101


class BornMayer(Repulsion):
    """``V_ij = sqrt(A_i A_j) exp(-(b_i + b_j) r / 2)``: finite where two nuclei meet, monotone, never negative.

    The geometric mean of the potentials of equal atoms is the combining rule of A. A. Abrahamson, Phys. Rev. 178, 76
    (1969). A and b of an element (ρ = 1/b) are the straight line that fits ``ln V`` of two equal atoms of the universal
    potential of Ziegler, Biersack and Littmark best (least squares, 101 even points) in his range of 1.5 to 3.5 Bohr;
    there the two differ by 12 % (H) to 17 % (U) at most.

    Args:
        elements, cutoff, scale: as for :class:`~mlip.nn.pair_terms.base.Repulsion`.
        learned: learn ``A_i e^{α_i}`` and ``b_i e^{β_i}``, which stay positive, from α = β = 0. The data must have
            pairs within the range of the term: take a ``scale`` that bonds reach, such as 1.5.
    """

    def __init__(self, elements: Sequence[str], cutoff: float, scale: float = 0.8, learned: bool = False) -> None:
        super().__init__(elements, cutoff, scale)
        lines = [_fit(z) for z in self.numbers]
        self.register_constant("log_amplitudes", as_float64([log_amplitude for log_amplitude, _ in lines]))
        self.register_constant("rates", as_float64([rate for _, rate in lines]))
        names = ("amplitude_changes", "rate_changes")
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(len(lines))) if learned else None)

    def pair_energy(self, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        logs, rates = (self.constant_like(name, distances) for name in ("log_amplitudes", "rates"))
        if self.amplitude_changes is not None:
            logs, rates = logs + self.amplitude_changes, rates * torch.exp(self.rate_changes)
        return torch.exp(0.5 * (logs[first] + logs[second] - (rates[first] + rates[second]) * distances))


def _fit(number: int) -> tuple[float, float]:
    """Return (ln A, b) of two equal atoms: A in eV, b in 1/Å."""
    r = torch.linspace(*_RANGE, _POINTS, dtype=torch.float64)
    z = torch.full_like(r, float(number))
    logs = universal_repulsion(z, z, r).log()
    centred = r - r.mean()
    slope = (centred @ logs) / (centred @ centred)
    return float(logs.mean() - slope * r.mean()), -float(slope)
