"""Facet's envelope: one on most of the range, then a flat descent."""

import math

import torch
from torch import Tensor

from mlip.ops.envelope.base import Envelope, check_onset

_STEEPNESS = 0.1


class Flat(Envelope):
    """One up to the onset, then half of ``g(x) = expm1(cx)/expm1(c) · x² sin(πx/2)`` up and down, c = 0.1.

    With ``t = (r - r_on)/(r_c - r_on)``: ``1 - g(2t)/2`` for t < 1/2 and ``g(2 - 2t)/2`` after. The value
    and three derivatives vanish at both ends. In the middle (t = 1/2) the published form has a jump in its
    second derivative, so forces have a kink there (Facet's reference code, methods of arXiv 2509.08418).

    Args:
        cutoff: r_c in Å.
        onset: r_on as a fraction of the cutoff.
    """

    zero_derivatives = 3

    def __init__(self, cutoff: float, onset: float = 0.8) -> None:
        super().__init__(cutoff)
        self.onset = check_onset(onset, "Flat")

    def forward(self, distances: Tensor) -> Tensor:
        t = ((distances / self.cutoff - self.onset) / (1 - self.onset)).clamp(0.0, 1.0)
        x = 2 * torch.minimum(t, 1 - t)
        half = 0.5 * torch.expm1(_STEEPNESS * x) / math.expm1(_STEEPNESS) * x.square() * torch.sin(0.5 * torch.pi * x)
        return torch.where(t < 0.5, 1 - half, half)
