"""The XPLOR switching function."""

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
        # Clamping to [ron, rc] gives exactly one below and zero above, with zero gradient.
        x = (distances / self.cutoff).clamp(self.onset, 1.0)
        # The same polynomial in t = (rc² - r²) / (rc² - ron²): as written above, rc² + 2r² and 3ron² cancel, which
        # in float32 cost a digit of the energies of SevenNet-0.
        t = (1 - x) * (1 + x) / (1 - self.onset**2)
        return t * t * (3 - 2 * t)
