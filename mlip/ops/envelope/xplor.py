"""The XPLOR switching function."""

import torch
from torch import Tensor

from mlip.ops.envelope.base import Envelope, check_onset


class Xplor(Envelope):
    """``(rc² - r²)² (rc² + 2r² - 3ron²) / (rc² - ron²)³`` for r > ron, one below.

    As published (X-PLOR; used by SevenNet and HOOMD). Its first derivative vanishes at the cutoff, its
    second does not: forces are continuous there, not differentiable. Prefer another envelope for phonons.

    Args:
        cutoff: rc in Å.
        onset: ron as a fraction of the cutoff.
    """

    zero_derivatives = 1

    def __init__(self, cutoff: float, onset: float = 0.8) -> None:
        super().__init__(cutoff)
        self.onset = check_onset(onset, "Xplor")

    def forward(self, distances: Tensor) -> Tensor:
        on2 = self.onset**2
        # Clamping to [ron, rc] gives exactly one below and zero above, with zero gradient.
        r2 = (distances / self.cutoff).clamp(self.onset, 1.0).square()
        return torch.square(1 - r2) * (1 + 2 * r2 - 3 * on2) / (1 - on2) ** 3
