"""Radial weights: a linear map on a radial basis under an envelope."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mlip.ops.envelope.base import Envelope
from mlip.ops.radial.base import RadialBasis


class RadialWeights(nn.Module):
    """``w_k(r) = env(r) Σ_n A_nk φ_n(r) / sqrt(num_basis)``: one free function of the distance a weight.

    No hidden layer and no bias: with a spline basis every path and channel owns a spline
    (Facet, arXiv 2509.08418). The basis values are shared by all layers, so they come in from outside.

    Args:
        num_basis: size of the basis.
        weight_numel: number of weights an edge.
    """

    def __init__(self, num_basis: int, weight_numel: int) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.randn(num_basis, weight_numel))

    def forward(self, enveloped_basis: Tensor) -> Tensor:
        """Map ``(edges, num_basis)``, envelope included, to ``(edges, weight_numel)``."""
        return enveloped_basis @ (self.coefficients * self.coefficients.shape[0] ** -0.5)


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
