"""Features of pairs of atoms, and of atoms with themselves: where the blocks of the matrix come from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.edges import Edges
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.nn.linear import EquivariantLinear
from mlip.nn.norm_gate import NormGate
from mlip.nn.orbitals.pair_gate import PairGate
from mlip.nn.orbitals.pair_invariants import PairInvariants
from mlip.nn.orbitals.pair_product import PairProduct
from mlip.nn.orbitals.pair_weights import PairWeights
from mlip.nn.orbitals.path_gate import PathGate
from mlip.nn.radial_weights.base import RadialWeights
from mlip.ops.tensor_product.base import TensorProduct


class PairInteraction(nn.Module):
    """``f_ij ← f_ij + Linear(NormGate( y_i ⊗ y_j, w_ij ))`` with ``y = Linear(NormGate(x̂))``, channel by channel.

    QHNet, arXiv 2306.04922; SPHNet, arXiv 2502.01171. The papers call all irreps even, so that cross products may be
    taken; here parities are kept, and cross products have irreps of their own (1e, 2o, …): the matrix is exact under
    reflections, too. ``x̂ = LayerNorm(x)``.

    Args:
        irreps_in: features of the atoms, one multiplicity for all.
        irreps_pair: features of the pairs, each irrep once.
        num_basis: size of the radial basis.
        tensor_product: factory of a backend, mode ``uuu``.
        radial_weights: factory, see `PairWeights`.
        pair_gate: factory of a gate; pairs that it leaves out keep the features that they had. None keeps all.
        path_gate: factory of a gate of the paths of the product; None keeps all.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_pair: Irreps,
        num_basis: int,
        tensor_product: Callable[..., TensorProduct],
        radial_weights: Callable[..., RadialWeights],
        pair_gate: Callable[..., PairGate] | None = None,
        path_gate: Callable[..., PathGate] | None = None,
    ) -> None:
        super().__init__()
        channels = max(mul for mul, _ in Irreps(irreps_in))
        self.irreps_pair = Irreps(irreps_pair)
        self.norm = EquivariantLayerNorm(irreps_in, initial_scale=1.0)
        self.before = EquivariantLinear(irreps_in, irreps_in)
        self.invariants = PairInvariants(irreps_in, symmetric=True)
        self.gate_in, self.inner = NormGate(irreps_in, channels), EquivariantLinear(irreps_in, irreps_in)
        self.pair_gate = None if pair_gate is None else pair_gate(self.invariants.num_scalars)
        self.product = PairProduct(irreps_in, irreps_pair, tensor_product, path_gate)
        numel = self.product.weight_numel
        self.weights = PairWeights(num_basis, self.invariants.num_scalars, numel, radial_weights)
        reached = self.product.irreps_out
        self.gate_out, self.linear = NormGate(reached, channels), EquivariantLinear(reached, irreps_pair)

    def forward(
        self, features: Tensor, pairs: Edges, molecule: Tensor, num_molecules: int, old: Tensor | None
    ) -> Tensor:
        """Update the features of pairs.

        Args:
            features: ``(atoms, irreps_in.dim)``.
            pairs: the pairs (sender j, receiver i).
            molecule: ``(pairs,)``.
            num_molecules: number of molecules.
            old: ``(pairs, irreps_pair.dim)`` of the layer before, None in the first.

        Returns:
            ``(pairs, irreps_pair.dim)``.
        """
        senders, receivers, basis = pairs.senders, pairs.receivers, pairs.basis
        x = self.norm(features)
        scalars = self.invariants(self.before(x), senders, receivers)
        kept = None
        if self.pair_gate is not None:
            kept, strength = self.pair_gate(scalars, molecule, num_molecules)
            senders, receivers, basis = senders[kept], receivers[kept], basis[kept]
            scalars = scalars[kept] * strength[:, None]
        y = self.inner(self.gate_in(x))
        weight = self.weights(basis, scalars, self.product.columns)
        product = self.product(y.index_select(0, receivers), y.index_select(0, senders), weight)
        new = self.linear(self.gate_out(product))
        if kept is None:
            return new if old is None else old + new
        start = new.new_zeros(len(pairs.senders), new.shape[1]) if old is None else old
        return start.index_add(0, kept, new)


class SelfPair(nn.Module):
    """``f_ii ← f_ii + Linear(NormGate( a_i ⊗ b_i )) + Linear(LayerNorm(x_i))``, a and b two
    maps ``Linear(NormGate(LayerNorm(x)))`` of x.

    Args:
        irreps_in, irreps_pair, tensor_product, path_gate: as for `PairInteraction`.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_pair: Irreps,
        tensor_product: Callable[..., TensorProduct],
        path_gate: Callable[..., PathGate] | None = None,
    ) -> None:
        super().__init__()
        channels = max(mul for mul, _ in Irreps(irreps_in))
        self.norm = EquivariantLayerNorm(irreps_in, initial_scale=1.0)
        self.gates = nn.ModuleList(NormGate(irreps_in, channels) for _ in range(2))
        self.inner = nn.ModuleList(EquivariantLinear(irreps_in, irreps_in) for _ in range(2))
        self.product = PairProduct(irreps_in, irreps_pair, tensor_product, path_gate)
        # No parameter without entries: it would never get a gradient.
        numel = self.product.weight_numel
        self.register_parameter("weight", nn.Parameter(torch.randn(numel)) if numel else None)
        reached = self.product.irreps_out
        self.gate_out, self.linear = NormGate(reached, channels), EquivariantLinear(reached, irreps_pair)
        self.skip = EquivariantLinear(irreps_in, irreps_pair)

    def forward(self, features: Tensor, old: Tensor | None) -> Tensor:
        """Update ``(atoms, irreps_pair.dim)``; None in the first layer."""
        x = self.norm(features)
        first, second = (inner(gate(x)) for inner, gate in zip(self.inner, self.gates))
        weight = self.weight if self.product.columns is None else self.weight[self.product.columns]
        new = self.linear(self.gate_out(self.product(first, second, weight))) + self.skip(x)
        return new if old is None else old + new
