"""Message passing: neighbours' features times spherical harmonics with radial weights."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.edges import Edges
from mlip.nn.filter_weights import filter_weighted
from mlip.nn.linear import EquivariantLinear
from mlip.nn.radial_weights.base import RadialWeights
from mlip.nn.self_connection.base import SelfConnection
from mlip.ops.tensor_product.base import TensorProduct

MANY_EDGES = 500
"""Edges from which replaced messages are used: it depends on the structure alone, not on what came before."""


class ReplacedMessages(Protocol):
    """What may take the place of radial weights, product and sum."""

    def fits(self, edges: Edges) -> bool:
        """Whether it gives the same for these edges as what it replaces."""

    def __call__(self, sent: Tensor, edges: Edges) -> Tensor:
        """Return the sums of the messages."""


class Convolution(nn.Module):
    """``h'_i = Linear( Σ_j w(r_ij) Linear(h_j) ⊗ Y(r̂_ij) / N^a ) + SelfConnection(h_i)``.

    Messages are linear in the radial weights w whatever the product: one for each path and channel, or, where a product
    has weights by degree (Gaunt), one for each degree of Y and channel, see :mod:`mlip.nn.filter_weights`.

    Args:
        irreps_in: node features.
        irreps_edge: spherical harmonics of the edge, multiplicity 1 each.
        irreps_out: new node features.
        tensor_product: factory of the backend (mode ``uvu``).
        num_basis: size of the radial basis.
        num_neighbors: average number of neighbours N in the data.
        neighbor_exponent: a; 0.5 keeps the variance for independent neighbours (NequIP, SevenNet), 1 takes the
            mean (MACE), Facet's fit to data is 0.7 (arXiv 2509.08418).
        elements: symbols in the order of the species index.
        radial_weights: factory, takes (num_basis, weight_numel).
        self_connection: factory, takes (irreps_in, irreps_out, elements); None: messages only.
        linear_in: mix the channels of the neighbours before the product (NequIP, SevenNet), or not (Facet).
        initial_messages: standard deviation at which the entries of the linear map behind the product start. Gates
            multiply features with features: a network of gates without norms squares any surplus of its messages
            layer by layer, and needs less than one.
        bias: add constants to the scalars of the linear maps (a level of theory of SevenNet-MF).
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_edge: Irreps,
        irreps_out: Irreps,
        tensor_product: Callable[..., TensorProduct],
        num_basis: int,
        num_neighbors: float,
        neighbor_exponent: float,
        elements: tuple[str, ...],
        radial_weights: Callable[..., RadialWeights],
        self_connection: Callable[..., SelfConnection] | None,
        linear_in: bool = False,
        bias: bool = False,
        initial_messages: float = 1.0,
    ) -> None:
        super().__init__()
        if not math.isfinite(neighbor_exponent):
            raise ConfigError(f"neighbor_exponent must be a number, such as 0.5 or 1, got {neighbor_exponent}.")
        if not 0 < num_neighbors < math.inf:
            raise ConfigError(f"A convolution needs num_neighbors > 0 (the data's average), got {num_neighbors}.")
        if not initial_messages > 0:
            raise ConfigError(f"A convolution needs initial_messages > 0, got {initial_messages!r}.")
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self.linear_in = EquivariantLinear(irreps_in, irreps_in, bias) if linear_in else None
        self.tensor_product = filter_weighted(tensor_product)(irreps_in, irreps_edge, irreps_out, mode="uvu")
        self.radial_weights = radial_weights(num_basis, self.tensor_product.weight_numel)
        self.linear = EquivariantLinear(self.tensor_product.irreps_out, irreps_out, bias)
        with torch.no_grad():
            for weight in self.linear.weights:
                weight.mul_(initial_messages)
        self.self_connection = None if self_connection is None else self_connection(irreps_in, irreps_out, elements)
        self.scale = float(num_neighbors) ** -neighbor_exponent
        self._messages: ReplacedMessages | None = None

    def replace_messages(self, messages: ReplacedMessages | None) -> None:
        """Have the sums of the messages computed by something else where it fits, until the next training."""
        self._messages = messages

    def __getstate__(self) -> dict[str, Any]:
        """Leave the replacement behind, which belongs to these weights and to this process."""
        return {**self.__dict__, "_messages": None}

    def train(self, mode: bool = True) -> "Convolution":
        """Forget the replacement, which was made from weights that a training changes."""
        if mode:
            self._messages = None
        return super().train(mode)

    def forward(self, features: Tensor, edges: Edges, species: Tensor) -> Tensor:
        """Update node features.

        Args:
            features: ``(atoms, irreps_in.dim)``.
            edges: with the harmonics and the basis that it was built for.
            species: ``(atoms,)`` element indices.

        Returns:
            ``(atoms, irreps_out.dim)``.
        """
        sent = features if self.linear_in is None else self.linear_in(features)
        if self._messages is not None and len(edges.senders) >= MANY_EDGES and self._messages.fits(edges):
            messages = self._messages(sent, edges)
        else:
            weight = self.radial_weights(edges.basis)
            messages = self.tensor_product.convolve(
                sent, edges.harmonics, weight, edges.senders, edges.receivers, features.shape[0], edges.starts
            )
        summed = self.linear(messages, self.scale)
        return summed if self.self_connection is None else summed + self.self_connection(features, species)
