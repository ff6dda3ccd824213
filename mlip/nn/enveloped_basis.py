"""A radial basis under an envelope."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mlip.ops.envelope.base import Envelope
from mlip.ops.radial.base import RadialBasis


class EnvelopedBasis(nn.Module):
    """A radial basis times an envelope, normalised to unit mean square over the sphere of the cutoff.

    Args:
        basis: any :class:`~mlip.ops.radial.base.RadialBasis`.
        envelope: any :class:`~mlip.ops.envelope.base.Envelope` with the same cutoff.
    """

    def __init__(self, basis: RadialBasis, envelope: Envelope) -> None:
        super().__init__()
        self.basis, self.envelope = basis, envelope
        self.num_basis = basis.num_basis
        # Edges are roughly uniform in volume: weight r² on [0, cutoff], away from the core.
        r = torch.linspace(0.15, 1.0, 200, dtype=torch.float64) * basis.cutoff
        with torch.no_grad():
            # A copy: the basis passed in keeps its dtype.
            values = deepcopy(basis).double()(r) * envelope(r)[:, None]
        weight = r.square()[:, None]
        self.gain = float(((values.square() * weight).sum() / weight.sum() / self.num_basis).rsqrt())

    def forward(self, distances: Tensor) -> Tensor:
        """Evaluate at ``(edges,)`` in Å: ``(edges, num_basis)``, zero from the cutoff on."""
        return self.basis(distances) * (self.gain * self.envelope(distances))[:, None]
