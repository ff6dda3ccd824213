"""SPHNet's front end: scalars and vectors of atoms, near neighbours first, fragments farther away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_number, is_whole
from mlip.nn.dense import Dense
from mlip.nn.edges import Edges
from mlip.nn.fragments import fragments
from mlip.nn.front_end.base import FrontEnd
from mlip.nn.vector_layer import Changes, Links, VectorLayer
from mlip.ops.segment import segment_sum

SOFT = 0.1
"""Å. Distances r to centres are sqrt(r² + SOFT²): an atom may stand in one, as methane's carbon does, and its direction
would be that of the noise."""


class Vectorial(FrontEnd):
    """``n = Linear[ LayerNorm(x of the short layers) ‖ LayerNorm(x of the long layers) ]`` (arXiv 2502.01171).

    Short layers exchange messages between atoms, long ones from fragments (a heavy atom and its hydrogens, at the
    centre of their nuclear charges) to atoms. A hydrogen that moves from one heavy atom to another, or farther than the
    short cutoff from all of them, changes its fragment abruptly.

    Args:
        elements, num_channels: see the base class.
        cutoff: of the short layers, Å.
        long_cutoff: of the long layers, Å.
        num_layers: short layers.
        num_long_layers: long layers, 0 for none.
        num_heads: of the attention.
        num_basis: Gaussians in exp(-r).

    Raises:
        ConfigError: no layers, cutoffs that are not positive, or heads that do not divide the channels.
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
        for name, number, least, most in (
            ("num_layers", num_layers, 1, 64),
            ("num_long_layers", num_long_layers, 0, 64),
            ("num_basis", num_basis, 1, 1024),
        ):
            if not is_whole(number) or not least <= number <= most:
                raise ConfigError(f"front_end.{name} must be a whole number from {least} to {most}, got {number!r}.")
        for name, radius in (("cutoff", cutoff), ("long_cutoff", long_cutoff)):
            if not is_number(radius) or radius <= 0:
                raise ConfigError(f"front_end.{name} must be a positive number of Å, got {radius!r}.")
        self.cutoff, self.long_cutoff = float(cutoff), float(long_cutoff)
        self.reach = max(self.cutoff, self.long_cutoff if num_long_layers else 0.0)
        self.continuous = num_long_layers == 0
        self.embedding = nn.Parameter(torch.randn(len(elements), num_channels))
        self.register_constant("numbers", torch.tensor(list(elements)), keep_dtype=True)
        self.register_constant(
            "centres", torch.linspace(math.exp(-self.long_cutoff), 1.0, num_basis, dtype=torch.float64)
        )
        self.width = (2.0 / num_basis * (1.0 - math.exp(-self.long_cutoff))) ** -2
        self.embed_link, self.embed_pair = Dense([num_basis, num_channels]), Dense([2 * num_channels, num_channels])
        last = num_layers + num_long_layers - 1
        layers = [
            # Vectors begin at zero, and only scalars are read in the end; links of fragments stay as they are.
            VectorLayer(num_channels, num_heads, k > 0, k < last, k < num_layers - 1)
            for k in range(num_layers + num_long_layers)
        ]
        self.short, self.long = nn.ModuleList(layers[:num_layers]), nn.ModuleList(layers[num_layers:])
        self.embed_long = Dense([num_basis, num_channels]) if num_long_layers else None
        streams = 2 if num_long_layers else 1
        self.norms = nn.ModuleList(nn.LayerNorm(num_channels) for _ in range(streams))
        self.out = Dense([streams * num_channels, num_channels])

    def forward(self, species: Tensor, edges: Edges, positions: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        x = self.embedding[species]
        near = (edges.distances < self.cutoff).nonzero()[:, 0]
        senders, receivers, distances = edges.senders[near], edges.receivers[near], edges.distances[near]
        # Atoms on top of each other have no direction; dividing by zero would make it NaN.
        lengths = torch.where(distances == 0, torch.ones_like(distances), distances)[:, None]
        links = Links(senders, receivers, edges.vectors[near] / lengths, _cosine(distances, self.cutoff)[:, None])
        f = self.embed_link(self._basis(distances)) * self.embed_pair(torch.cat([x[receivers], x[senders]], dim=1))
        v = x.new_zeros(len(x), 3, x.shape[1])
        for layer in self.short:
            x, v, f = _add((x, v, f), layer(x, v, f, links))
        found = [self.norms[0](x)]
        if len(self.long):
            part, count = fragments(self.numbers[species] == 1, senders, receivers, distances)
            found.append(self.norms[1](self._long(x, v, self.numbers[species], part, count, positions, batch)))
        return self.out(torch.cat(found, dim=1))

    def _long(
        self, x: Tensor, v: Tensor, numbers: Tensor, part: Tensor, count: int, positions: Tensor, batch: Tensor
    ) -> Tensor:
        """Return the scalars after the long layers.

        Args:
            x, v: of the atoms.
            numbers: their nuclear charges.
            part: the fragment of each.
            count: how many fragments there are.
            positions: ``(atoms, 3)`` Å.
            batch: ``(atoms,)`` molecule of each.
        """
        charge, order = numbers.to(positions.dtype)[:, None], part.argsort(stable=True)

        def pooled(values: Tensor) -> Tensor:
            return segment_sum(values[order], part[order], count)

        centres = pooled(positions * charge) / pooled(charge)
        owner = part.new_zeros(count).index_copy(0, part, batch)
        sizes = torch.bincount(part, minlength=count)[:, None]
        # An atom that is a fragment by itself has nothing to hear from it.
        alone = (part[:, None] == torch.arange(count, device=part.device)) & (sizes == 1).T
        receivers, senders = ((batch[:, None] == owner[None]) & ~alone).nonzero().unbind(1)
        vectors = (centres[senders] - positions[receivers]).to(x.dtype)
        distances = (vectors.square().sum(dim=1) + SOFT**2).sqrt()
        kept = (distances < self.long_cutoff).nonzero()[:, 0]
        senders, receivers, vectors, distances = (t[kept] for t in (senders, receivers, vectors, distances))
        envelope = _cosine(distances, self.long_cutoff)[:, None]
        links = Links(senders, receivers, vectors / distances[:, None], envelope)
        f = self.embed_long(self._basis(distances))
        width = sizes.to(x.dtype)
        for layer in self.long:
            x_sent, v_sent = pooled(x) / width, (pooled(v.flatten(1)) / width).unflatten(1, v.shape[1:])
            x, v, f = _add((x, v, f), layer(x, v, f, links, x_sent, v_sent))
        return x

    def _basis(self, distances: Tensor) -> Tensor:
        centres = self.constant_like("centres", distances)
        return torch.exp(-self.width * (torch.exp(-distances)[:, None] - centres).square())


def _cosine(distances: Tensor, cutoff: float) -> Tensor:
    """Return ``(cos(π r / r_c) + 1) / 2``, 0 beyond."""
    return 0.5 * (torch.cos(math.pi * distances / cutoff) + 1.0) * (distances < cutoff)


def _add(state: tuple[Tensor, Tensor, Tensor], changes: Changes) -> list[Tensor]:
    return [value if change is None else value + change for value, change in zip(state, changes, strict=True)]
