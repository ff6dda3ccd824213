"""What every layer of a potential reads from the edges: computed once for each graph."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.data.graph import AtomGraph
from mlip.nn.edge_vectors import edge_vectors, safe_norm
from mlip.nn.enveloped_basis import EnvelopedBasis
from mlip.ops.envelope.base import Envelope
from mlip.ops.radial.base import RadialBasis
from mlip.ops.segment import first_edges, is_ascending
from mlip.ops.spherical_harmonics import spherical_harmonics


class Edges(NamedTuple):
    """The edges j→i of a graph, sorted by receiver i.

    Attributes:
        vectors: ``(edges, 3)`` Å, from i to j.
        distances: ``(edges,)`` Å.
        harmonics: ``(edges, (lmax + 1)²)`` spherical harmonics of the directions (or solid ones of the vectors),
            component normalisation.
        basis: ``(edges, num_basis)`` radial basis, envelope included: zero from the cutoff on.
        senders, receivers: ``(edges,)`` j and i.
        starts: ``(atoms + 1,)`` the first edge of each receiver, and the number of edges; None where it is not known.
    """

    vectors: Tensor
    distances: Tensor
    harmonics: Tensor
    basis: Tensor
    senders: Tensor
    receivers: Tensor
    starts: Tensor | None = None


class EdgeFeatures(nn.Module):
    """Vectors, harmonics and radial basis of the edges of a graph.

    Args:
        lmax: degree of the harmonics.
        radial: factory of a basis, takes ``cutoff``.
        envelope: factory of an envelope, takes ``cutoff``.
        cutoff: Å.
        parity: ``natural`` labels degree l with (-1)^l; ``even`` labels all of them even, for models that are
            equivariant to rotations only and may then couple degrees that inversion forbids (Facet, SevenNet-0).
        solid: solid harmonics, ``|r|^l`` (Å) times those of the direction (SevenNet-0 of May 2024).

    Attributes:
        irreps: labels of the harmonics, multiplicity 1.
        num_basis: size of the basis.
        cutoff: as given.
    """

    def __init__(
        self,
        lmax: int,
        radial: Callable[..., RadialBasis],
        envelope: Callable[..., Envelope],
        cutoff: float,
        parity: str = "natural",
        solid: bool = False,
    ) -> None:
        super().__init__()
        self.lmax, self.solid, self.cutoff = lmax, solid, float(cutoff)
        self.irreps = Irreps.spherical_harmonics(lmax, p=1 if parity == "even" else -1)
        self.basis = EnvelopedBasis(radial(cutoff=cutoff), envelope(cutoff=cutoff))
        self.num_basis = self.basis.num_basis

    def forward(self, graph: AtomGraph, batch: Tensor, dtype: torch.dtype) -> Edges:
        """Evaluate for a graph or a batch.

        Args:
            graph: positions in float64; differences are taken before rounding to ``dtype``.
            batch: ``(atoms,)`` graph of every atom.
            dtype: of the result.
        """
        senders, receivers = graph.edge_index[0], graph.edge_index[1]
        vectors = edge_vectors(graph.positions, graph.cell, graph.cell_shifts, senders, receivers, batch[receivers])
        vectors = vectors.to(dtype)
        distances = safe_norm(vectors)
        # Dividing by a norm that may be zero has a gradient of 1e12 there; this one has a finite one.
        directions = vectors / torch.where(distances == 0, torch.ones_like(distances), distances)[:, None]
        starts = first_edges(receivers, len(graph.positions)) if is_ascending(receivers) else None
        harmonics = spherical_harmonics(self.lmax, vectors if self.solid else directions)
        return Edges(vectors, distances, harmonics, self.basis(distances), senders, receivers, starts)
