"""An envelope whose end is learned, within the cutoff of the graph."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.ops.envelope.base import Envelope


class LearnedRange(Envelope):
    """``env(r · (1 + |θ|))`` of another envelope: it ends at ``cutoff / (1 + |θ|)``, where θ starts at zero.

    Facet learns its cutoff (reference code of arXiv 2509.08418), on graphs of a fixed number of neighbours. Here the
    edges end at the cutoff of the graph, so that the range may shrink from there and grow back, never further.

    Args:
        cutoff: of the graph, Å.
        envelope: factory of the envelope, takes ``cutoff``.

    Raises:
        ConfigError: no such factory.
    """

    def __init__(self, cutoff: float, envelope: Callable[..., Envelope]) -> None:
        super().__init__(cutoff)
        inner = envelope if isinstance(envelope, nn.Module) or not callable(envelope) else envelope(cutoff=cutoff)
        if not isinstance(inner, Envelope):
            raise ConfigError(
                f"LearnedRange needs an envelope of mlip.ops.envelope with _partial_: true, got {envelope!r}."
            )
        self.envelope = inner
        self.zero_derivatives = inner.zero_derivatives
        self.shrinkage = nn.Parameter(torch.zeros(()))

    @property
    def end(self) -> float:
        return self.envelope.end / (1 + abs(float(self.shrinkage.detach())))

    def forward(self, distances: Tensor) -> Tensor:
        # Not abs: its gradient at zero is zero, and the range would never leave the cutoff.
        shrinkage = torch.where(self.shrinkage < 0, -self.shrinkage, self.shrinkage)
        return self.envelope(distances * (1 + shrinkage.to(distances.dtype)))
