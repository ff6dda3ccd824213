"""Message passing: neighbours' features times spherical harmonics with radial weights."""

from collections.abc import Callable

from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.linear import EquivariantLinear
from mlip.nn.radial_weights import RadialWeights
from mlip.ops.tensor_product.base import TensorProduct


class Convolution(nn.Module):
    """``h'_i = Linear( Σ_j w(r_ij) h_j ⊗ Y(r̂_ij) / N^a ) + Linear(h_i)``.

    Args:
        irreps_in: node features.
        irreps_edge: spherical harmonics of the edge, multiplicity 1 each.
        irreps_out: new node features.
        tensor_product: factory of the backend (mode ``uvu``).
        num_basis: size of the radial basis.
        num_neighbors: average number of neighbours N in the data.
        neighbor_exponent: a; 0.5 keeps the variance for independent neighbours, 1 takes the mean, Facet's
            fit to data is 0.7 (arXiv 2509.08418).
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
    ) -> None:
        super().__init__()
        self.tensor_product = tensor_product(irreps_in, irreps_edge, irreps_out, mode="uvu")
        self.radial_weights = RadialWeights(num_basis, self.tensor_product.weight_numel)
        self.linear = EquivariantLinear(self.tensor_product.irreps_out, irreps_out)
        self.self_linear = EquivariantLinear(irreps_in, irreps_out)
        self.scale = float(num_neighbors) ** -neighbor_exponent

    def forward(
        self, features: Tensor, edge_harmonics: Tensor, edge_basis: Tensor, senders: Tensor, receivers: Tensor
    ) -> Tensor:
        """Update node features.

        Args:
            features: ``(atoms, irreps_in.dim)``.
            edge_harmonics: ``(edges, irreps_edge.dim)``, component normalisation.
            edge_basis: ``(edges, num_basis)``, envelope included.
            senders, receivers: ``(edges,)``, sorted by receiver.

        Returns:
            ``(atoms, irreps_out.dim)``.
        """
        weight = self.radial_weights(edge_basis)
        messages = self.tensor_product.convolve(features, edge_harmonics, weight, senders, receivers, features.shape[0])
        return self.linear(messages * self.scale) + self.self_linear(features)
