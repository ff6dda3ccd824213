"""The polynomial envelope of DimeNet."""

from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.envelope.base import Envelope

LARGEST_POWER = 1000
"""Terms of the sum: a damaged number would be summed for minutes."""


class Polynomial(Envelope):
    """``1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2)``, x = r / r_c.

    Value and two derivatives vanish at the cutoff; smooth everywhere below it
    (DimeNet, arXiv 2003.03123, eq. 8).

    Args:
        cutoff: r_c in Å.
        p: power; larger values keep the envelope at one for longer.
    """

    zero_derivatives = 2

    def __init__(self, cutoff: float, p: int = 6) -> None:
        super().__init__(cutoff)
        if not 2 <= p <= LARGEST_POWER or p != int(p):
            raise ConfigError(f"Polynomial needs a whole p from 2 to {LARGEST_POWER}, got {p}.")
        self.p = int(p)

    def forward(self, distances: Tensor) -> Tensor:
        p = self.p
        # In y = 1 - x the polynomial is y³ times a positive sum: no cancellation near the cutoff.
        x = (distances / self.cutoff).clamp(max=1.0)
        y = 1.0 - x
        # Σ_{k=0}^{p-1} (k+1)(k+2)/2 x^k is what remains after dividing by (1-x)³ (checked in the tests).
        total = (x * 0) + p * (p + 1) / 2
        for k in range(p - 2, -1, -1):
            total = total * x + (k + 1) * (k + 2) / 2
        return y * y * y * total
