"""SPHNet's front end: scalars and vectors of atoms, near neighbours first, fragments farther away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.dense import Dense
from mlip.nn.edge_vectors import safe_norm
from mlip.nn.edges import Edges
from mlip.nn.front_end.base import FrontEnd
from mlip.nn.front_end.fragments import fragments
from mlip.nn.front_end.vector_layer import Links, VectorLayer
from mlip.ops.segment import segment_sum


class Vectorial(FrontEnd):
    """``n = Linear[ LayerNorm(x of the short layers) ‖ LayerNorm(x of the long layers) ]`` (arXiv 2502.01171).

    Short layers exchange messages between atoms, long ones from fragments (a heavy atom and its hydrogens, at the
    centre of their nuclear charges) to atoms. A hydrogen that moves from one heavy atom to another changes its fragment
    abruptly.

    Args:
        elements, num_channels: see the base class.
        cutoff: of the short layers, Å.
        long_cutoff: of the long layers, Å.
        num_layers: short layers.
        num_long_layers: long layers, 0 for none.
        num_heads: of the attention.
        num_basis: Gaussians in exp(-r).

    Raises:
        ConfigError: no layers, or cutoffs that are not positive.
    """

    def __init__(
        self,
        elements: Sequence[int],
        num_channels: int,
        cutoff: float = 5.0,
        long_cutoff: float = 9.0,
        num_layers: int = 4,
        num_long_layers: int = 4,
        num_heads: int = 8,
        num_basis: int = 50,
    ) -> None:
        super().__init__(elements, num_channels)
        if num_layers < 1 or num_long_layers < 0 or not (0 < cutoff < math.inf and 0 < long_cutoff < math.inf):
            raise ConfigError(
                f"The vectorial front end needs num_layers from 1, num_long_layers from 0 and cutoffs in Å, got "
                f"{num_layers}, {num_long_layers}, {cutoff} and {long_cutoff}."
            )
        self.cutoff, self.long_cutoff = float(cutoff), float(long_cutoff)
        self.embedding = nn.Parameter(torch.randn(len(elements), num_channels))
        self.register_constant("numbers", torch.tensor(list(elements)), keep_dtype=True)
        centres = torch.linspace(math.exp(-self.long_cutoff), 1.0, num_basis, dtype=torch.float64)
        self.register_constant("centres", centres)
        self.width = (2.0 / num_basis * (1.0 - math.exp(-self.long_cutoff))) ** -2
        self.embed_link, self.embed_pair = Dense([num_basis, num_channels]), Dense([2 * num_channels, num_channels])
        self.short = nn.ModuleList(
            VectorLayer(num_channels, num_heads, k < num_layers - 1) for k in range(num_layers)
        )
        self.long = nn.ModuleList(VectorLayer(num_channels, num_heads, False) for _ in range(num_long_layers))
        self.embed_long = Dense([num_basis, num_channels]) if num_long_layers else None
        streams = 2 if num_long_layers else 1
        self.norms = nn.ModuleList(nn.LayerNorm(num_channels) for _ in range(streams))
        self.out = Dense([streams * num_channels, num_channels])

    def forward(self, species: Tensor, edges: Edges, positions: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        x = self.embedding[species]
        near = (edges.distances < self.cutoff).nonzero()[:, 0]
        distances = edges.distances[near]
        links = Links(
            edges.senders[near],
            edges.receivers[near],
            edges.vectors[near] / distances[:, None],
            _cosine(distances, self.cutoff)[:, None],
        )
        f = self.embed_link(self._basis(distances)) * self.embed_pair(
            torch.cat([x[links.receivers], x[links.senders]], dim=1)
        )
        v = x.new_zeros(len(x), 3, x.shape[1])
        for layer in self.short:
            change = layer(x, v, f, links)
            x, v, f = x + change[0], v + change[1], f + change[2]
        found = [self.norms[0](x)]
        if len(self.long):
            found.append(self.norms[1](self._long(x, v, species, edges, positions, batch)))
        return self.out(torch.cat(found, dim=1))

    def _long(
        self, x: Tensor, v: Tensor, species: Tensor, edges: Edges, positions: Tensor, batch: Tensor
    ) -> Tensor:
        """Return the scalars after the long layers."""
        numbers = self.numbers[species]
        part, count = fragments(numbers == 1, edges.senders, edges.receivers, edges.distances)
        charge = numbers.to(positions.dtype)[:, None]
        order = part.argsort(stable=True)

        def pooled(values: Tensor) -> Tensor:
            return segment_sum(values[order], part[order], count)

        centres = pooled(positions * charge) / pooled(charge)
        owner = part.new_zeros(count).index_copy(0, part, batch)
        sizes = torch.bincount(part, minlength=count)[:, None].to(x.dtype)
        receivers, senders = (batch[:, None] == owner[None]).nonzero().unbind(1)
        vectors = (centres[senders] - positions[receivers]).to(x.dtype)
        distances = safe_norm(vectors)
        # An atom that is a fragment by itself stands in its centre, and has no direction to it.
        kept = ((distances < self.long_cutoff) & (distances > 1e-6)).nonzero()[:, 0]
        senders, receivers, vectors, distances = (t[kept] for t in (senders, receivers, vectors, distances))
        envelope = _cosine(distances, self.long_cutoff)[:, None]
        links = Links(senders, receivers, vectors / distances[:, None], envelope)
        f = self.embed_long(self._basis(distances))
        for layer in self.long:
            x_sent, v_sent = pooled(x) / sizes, (pooled(v.flatten(1)) / sizes).view(count, *v.shape[1:])
            change = layer(x, v, f, links, x_sent, v_sent)
            x, v = x + change[0], v + change[1]
        return x

    def _basis(self, distances: Tensor) -> Tensor:
        centres = self.constant_like("centres", distances)
        return torch.exp(-self.width * (torch.exp(-distances)[:, None] - centres).square())


def _cosine(distances: Tensor, cutoff: float) -> Tensor:
    """Return ``(cos(π r / r_c) + 1) / 2``, 0 beyond."""
    return 0.5 * (torch.cos(math.pi * distances / cutoff) + 1.0) * (distances < cutoff)
