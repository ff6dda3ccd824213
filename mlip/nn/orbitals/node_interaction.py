"""The spherical layer of atoms: messages weighted by distance and by what two atoms have in common."""

from __future__ import annotations

from collections.abc import Callable

from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.edges import Edges
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.nn.linear import EquivariantLinear
from mlip.nn.norm_gate import NormGate
from mlip.nn.orbitals.pair_gate import PairGate
from mlip.nn.orbitals.pair_invariants import PairInvariants
from mlip.nn.orbitals.pair_weights import PairWeights
from mlip.nn.radial_weights.base import RadialWeights
from mlip.ops.tensor_product.base import TensorProduct


class NodeInteraction(nn.Module):
    """``x_i ← x_i + Linear( Σ_j x̃_j ⊗ Y(r_ij), w_ij )`` (QHNet, arXiv 2306.04922; SPHNet, arXiv 2502.01171).

    ``x̃ = Linear(NormGate(x̂))``, ``w_ij = R(r_ij) ⊙ MLP(s_ij)`` with the invariants s of `PairInvariants` and
    ``x̂ = LayerNorm(x)``; where x has only scalars, x̃ and x̂ are x, and the result is not added to it. The papers
    normalise after the sum or not at all; the weights are cubic in the features, which then explode easily.

    Args:
        irreps_in: features in, each irrep once.
        irreps_edge: harmonics of the edges.
        irreps_out: features out, each irrep once.
        num_basis: size of the radial basis.
        num_neighbors: average number of neighbours; messages are divided by its root.
        tensor_product: factory of a backend, mode ``uvu``.
        radial_weights: factory of R.
        pair_gate: factory of a gate that leaves out edges, takes ``num_scalars``; None keeps all.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_edge: Irreps,
        irreps_out: Irreps,
        num_basis: int,
        num_neighbors: float,
        tensor_product: Callable[..., TensorProduct],
        radial_weights: Callable[..., RadialWeights],
        pair_gate: Callable[..., PairGate] | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        only_scalars = self.irreps_in.lmax == 0
        channels = max(mul for mul, _ in self.irreps_in)
        self.norm = None if only_scalars else EquivariantLayerNorm(irreps_in, initial_scale=1.0)
        self.before = None if only_scalars else EquivariantLinear(irreps_in, irreps_in)
        self.invariants = PairInvariants(self.irreps_in)
        self.gate = None if only_scalars else NormGate(self.irreps_in, channels)
        self.inner = None if only_scalars else EquivariantLinear(irreps_in, irreps_in)
        self.pair_gate = None if pair_gate is None else pair_gate(self.invariants.num_scalars)
        self.tensor_product = tensor_product(irreps_in, irreps_edge, irreps_out, mode="uvu")
        numel = self.tensor_product.weight_numel
        self.weights = PairWeights(num_basis, self.invariants.num_scalars, numel, radial_weights)
        self.linear = EquivariantLinear(self.tensor_product.irreps_out, irreps_out)
        self.scale = float(num_neighbors) ** -0.5
        self.residual = self.irreps_in == self.irreps_out

    def forward(self, features: Tensor, edges: Edges, molecule: Tensor, num_molecules: int) -> Tensor:
        """Update the features of atoms.

        Args:
            features: ``(atoms, irreps_in.dim)``.
            edges: of the atoms.
            molecule: ``(edges,)`` molecule of each edge.
            num_molecules: number of molecules.

        Returns:
            ``(atoms, irreps_out.dim)``.
        """
        senders, receivers = edges.senders, edges.receivers
        harmonics, basis = edges.harmonics, edges.basis
        x = features if self.norm is None else self.norm(features)
        scalars = self.invariants(x if self.before is None else self.before(x), senders, receivers)
        if self.pair_gate is not None:
            kept, strength = self.pair_gate(scalars, molecule, num_molecules)
            senders, receivers, harmonics, basis = (x[kept] for x in (senders, receivers, harmonics, basis))
            scalars = scalars[kept] * strength[:, None]
        sent = x if self.gate is None else self.inner(self.gate(x))
        weight = self.weights(basis, scalars)
        messages = self.tensor_product.convolve(sent, harmonics, weight, senders, receivers, len(features))
        found = self.linear(messages, self.scale)
        return features + found if self.residual else found
