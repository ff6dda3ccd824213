"""The interface of envelopes."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mlip.core.errors import ConfigError


class Envelope(nn.Module, ABC):
    """A switch that is 1 at r = 0 and exactly 0 from the cutoff on.

    Attributes:
        cutoff: radius in Å.
        zero_derivatives: how many derivatives vanish at the cutoff (2: forces are differentiable there); ``math.inf``
            where all of them do.
    """

    zero_derivatives: float

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        if not cutoff > 0:
            raise ConfigError(f"{type(self).__name__} needs a cutoff > 0 Å, got {cutoff}.")
        self.cutoff = float(cutoff)

    @property
    def end(self) -> float:
        """Å from which on it is zero: the cutoff, unless it learns to end before."""
        return self.cutoff

    @abstractmethod
    def forward(self, distances: Tensor) -> Tensor:
        """Evaluate the envelope: ``(edges,)`` in Å to ``(edges,)``, dimensionless."""


def check_onset(onset: float, name: str) -> float:
    """Return the onset as a fraction of the cutoff, refusing values outside [0, 1)."""
    if not 0 <= onset < 1:
        raise ConfigError(f"{name} needs an onset in [0, 1) as a fraction of the cutoff, got {onset}.")
    return float(onset)
