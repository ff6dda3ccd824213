"""Networks that predict a molecule's Hamiltonian in a basis of atomic orbitals: QHNet, SPHNet and what lies between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Literal, get_args

import torch
from ase.data import atomic_numbers
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError, StructureError
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import AtomisticModel, graph_index
from mlip.models.hamiltonian_options import check_choice, check_graph, check_sizes, onsite_blocks, read_shells
from mlip.models.potential import check_factories
from mlip.nn.edges import EdgeFeatures, Edges
from mlip.nn.front_end.base import FrontEnd
from mlip.nn.orbitals.expansion import Expansion
from mlip.nn.orbitals.node_interaction import NodeInteraction
from mlip.nn.orbitals.pair_gate import PairGate
from mlip.nn.orbitals.pair_interaction import PairInteraction, SelfPair
from mlip.nn.orbitals.path_gate import PathGate
from mlip.nn.radial_weights.base import RadialWeights
from mlip.ops.envelope.base import Envelope
from mlip.ops.layout import natural_irreps
from mlip.ops.orbital_blocks import OrbitalBlocks, orbital_axes, scatter_blocks, transposed
from mlip.ops.radial.base import RadialBasis
from mlip.ops.tensor_product.base import TensorProduct

PairChoice = Literal["all", "by_element"]
"""``all``: a block for both orders of every two atoms, of which the mean is taken (QHNet). ``by_element``: for atoms of
different elements only the block whose rows are the heavier's orbitals. (SPHNet takes one order, that of the atoms in
the file, and so predicts another matrix when the file lists them differently.)"""

Target = Literal["hamiltonian", "difference"]
"""``hamiltonian``, or its ``difference`` to the graph's ``initial_hamiltonian``, which the result has added."""


class HamiltonianNetwork(AtomisticModel):
    """Spherical features of atoms, then of pairs, then blocks of the matrix.

        x  = front end, then `num_layers` of `NodeInteraction`
        f_ii, f_ij from the last `num_pair_layers` of x by `SelfPair` and `PairInteraction`
        H_ij = `Expansion` of f_ij, H = (X + Xᵀ) / 2, + the mean diagonal blocks of the training data

    Inside, vectors are (y, z, x), so that harmonics are those of the orbitals (:mod:`mlip.ops.orbital_blocks`). Blocks
    of two atoms have the factor env(r) of the envelope: they end smoothly at the cutoff, unless there is a pair gate.

    Args:
        elements: chemical symbols.
        cutoff: Å; 15 in the papers, where overlaps of valence orbitals have long been zero.
        num_neighbors: average number of neighbours in the training data.
        basis: name of the basis, of which ``shells`` are the degrees by element: ``{H: [0, 0, 1], …}``.
        shells: see :func:`mlip.data.orbitals.shells`.
        functional: level of theory, by our name; for the initial guess and for the record.
        onsite: by element and degree the mean of the matrices between shells, Hartree: ``{H: [[[…]], …], …}``; None
            starts from zero.
        num_channels: of every irrep.
        lmax: highest degree of the features of atoms.
        lmax_edge: degree of the harmonics of edges; None: ``lmax``.
        num_layers: layers of atoms.
        num_pair_layers: how many of the last of them the blocks are made from.
        front_end: factory, takes (atomic numbers, num_channels).
        radial, envelope: factories, take ``cutoff``.
        radial_weights: factory, see :mod:`mlip.nn.radial_weights`.
        tensor_product: factory of the product of messages, mode ``uvu``.
        pair_product: factory of the product of two atoms' features, mode ``uuu``.
        pair_gate: factory of the sparse pair gate, in the last layer of atoms and of pairs but never in the first one;
            None keeps all pairs.
        path_gate: factory of the sparse gate of the paths of products of two atoms; None keeps all paths.
        pairs: see :data:`PairChoice`.
        bottleneck: channels before the expansion.
        target: see :data:`Target`.
        graph: builder of the graphs.

    Attributes:
        shells: degrees by element.
        needs: ``("initial_hamiltonian",)`` where the target is the difference to it.

    Raises:
        ConfigError: options that do not fit each other.
    """

    fields = ("hamiltonian",)

    def __init__(
        self,
        *,
        elements: Sequence[str],
        cutoff: float,
        num_neighbors: float,
        basis: str,
        shells: Mapping[str, Sequence[int]],
        front_end: Callable[..., FrontEnd],
        radial: Callable[..., RadialBasis],
        envelope: Callable[..., Envelope],
        radial_weights: Callable[..., RadialWeights],
        tensor_product: Callable[..., TensorProduct],
        pair_product: Callable[..., TensorProduct],
        pair_gate: Callable[..., PairGate] | None = None,
        path_gate: Callable[..., PathGate] | None = None,
        functional: str | None = None,
        onsite: Mapping[str, Any] | None = None,
        num_channels: int = 128,
        lmax: int = 4,
        lmax_edge: int | None = None,
        num_layers: int = 5,
        num_pair_layers: int = 2,
        pairs: PairChoice = "all",
        bottleneck: int = 32,
        target: Target = "hamiltonian",
        graph: GraphBuilder | None = None,
    ) -> None:
        super().__init__(elements, cutoff, graph)
        check_choice("pairs", pairs, get_args(PairChoice))
        check_choice("target", target, get_args(Target))
        sizes = {"num_channels": num_channels, "num_layers": num_layers, "bottleneck": bottleneck}
        check_sizes(num_neighbors, num_pair_layers, lmax, lmax_edge, **sizes)
        check_graph(self.graph_builder)
        gates = {"pair_gate": pair_gate, "path_gate": path_gate}
        check_factories(
            front_end=front_end, radial=radial, envelope=envelope, radial_weights=radial_weights,
            tensor_product=tensor_product,
            # As it is chosen on the command line: model/tensor_product@model.pair_product=NAME.
            **{"tensor_product@model.pair_product": pair_product},
            **{name: gate for name, gate in gates.items() if gate is not None},
        )  # fmt: skip
        if pair_gate is not None and num_layers == 1:
            raise ConfigError(
                "The pair gate is in the last of several layers: raise num_layers, or model/pair_gate=none."
            )
        self.shells = read_shells(self.elements, basis, shells)
        self.basis, self.functional, self.pairs, self.target = basis, functional, pairs, target
        self.needs = ("initial_hamiltonian",) if target == "difference" else ()
        self.blocks = OrbitalBlocks(list(self.shells.values()))
        if self.blocks.irreps.lmax > 2 * lmax:
            raise ConfigError(
                f"Blocks in {basis} have degrees up to {self.blocks.irreps.lmax}, products of features up to "
                f"{2 * lmax}: raise lmax to {(self.blocks.irreps.lmax + 1) // 2}."
            )
        self.register_constant("onsite", onsite_blocks(self.blocks, self.shells, onsite), keep_dtype=True)
        numbers = torch.tensor([atomic_numbers[symbol] for symbol in self.elements])
        self.register_constant("element_numbers", numbers, keep_dtype=True)
        self.edges = EdgeFeatures(lmax if lmax_edge is None else lmax_edge, radial, envelope, self.cutoff)
        self.front_end = front_end(numbers.tolist(), num_channels)
        self.continuous = pair_gate is None and self.front_end.continuous
        if self.front_end.reach > self.cutoff:
            raise ConfigError(
                f"The front end looks {self.front_end.reach:g} Å far, the model {self.cutoff:g} Å: raise cutoff (the "
                "papers have 15), or lower model.front_end.cutoff and model.front_end.long_cutoff."
            )
        hidden, first = natural_irreps(lmax, num_channels), Irreps([(num_channels, (0, 1))])
        pair_irreps = Irreps([(num_channels, ir) for _, ir in self.blocks.irreps])
        num_basis = self.edges.num_basis
        self.layers = nn.ModuleList(
            NodeInteraction(
                hidden if number else first, self.edges.irreps, hidden, num_basis, num_neighbors, tensor_product,
                radial_weights, pair_gate if number and number == num_layers - 1 else None,
            )
            for number in range(num_layers)
        )  # fmt: skip
        last = range(num_pair_layers)
        self.self_pairs = nn.ModuleList(SelfPair(hidden, pair_irreps, pair_product, path_gate) for _ in last)
        self.pair_layers = nn.ModuleList(
            PairInteraction(
                hidden, pair_irreps, num_basis, pair_product, radial_weights,
                pair_gate if number and number == num_pair_layers - 1 else None, path_gate,
            )
            for number in last
        )  # fmt: skip
        self.expand_self = Expansion(pair_irreps, self.blocks, num_channels, bottleneck)
        self.expand_pair = Expansion(pair_irreps, self.blocks, 2 * num_channels, bottleneck)

    def begin_step(self, step: int) -> None:
        """Tell the gates of paths which step of the training begins; their phases end at steps."""
        for gate in self._path_gates():
            gate.begin_step(step)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Whether the training has ended before the gates of paths made the products smaller."""
        open_gates = [gate for gate in self._path_gates() if not gate.is_fixed]
        if not open_gates:
            return ()
        steps = max(gate.random_steps + gate.adaptive_steps for gate in open_gates)
        return (
            f"The paths of the products were not fixed, which happens after {steps} steps: train longer, or lower "
            "model.path_gate.random_steps and model.path_gate.adaptive_steps.",
        )

    def _path_gates(self) -> list[PathGate]:
        return [module for module in self.modules() if isinstance(module, PathGate)]

    @property
    def exactly_equivariant(self) -> bool:
        """Whether equivariance holds to rounding: all parts here are exact."""
        return True

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Return ``hamiltonian`` (Σ orbitals²,), the symmetric matrices row by row in the order `mlip`, Hartree.

        ``num_orbitals`` (graphs,) says how many rows each of them has.

        Raises:
            StructureError: a periodic structure, or no initial Hamiltonian where the target is the difference to it.
        """
        if bool(graph.pbc.any()):
            raise StructureError("This model predicts Hamiltonians of molecules; set pbc to false, it was true.")
        batch, num_graphs = graph_index(graph), graph.cell.shape[0]
        species = self.species_index[graph.atomic_numbers]
        turned = copy(graph)
        turned.positions, turned.cell = orbital_axes(graph.positions), orbital_axes(graph.cell)
        edges = self.edges(turned, batch, self.dtype)
        molecule = batch[edges.receivers]
        x = scalars = self.front_end(species, edges, turned.positions, batch, num_graphs)
        pairs = self._pairs(edges, species)
        pair_molecule = batch[pairs.receivers]
        of_self = of_pairs = None
        first = len(self.layers) - len(self.pair_layers)
        for number, layer in enumerate(self.layers):
            x = layer(x, edges, molecule, num_graphs)
            if number >= first:
                of_self = self.self_pairs[number - first](x, of_self)
                of_pairs = self.pair_layers[number - first](x, pairs, pair_molecule, num_graphs, of_pairs)
        found = self._assemble(of_self, of_pairs, scalars, pairs, species, batch, num_graphs)
        if self.target == "difference":
            found = found + self._initial(graph, found)
        return {"hamiltonian": found, "num_orbitals": self._num_orbitals(species, batch, num_graphs)}

    def _num_orbitals(self, species: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        own = self.blocks.orbitals_of[species]
        return torch.zeros(num_graphs, dtype=torch.long, device=own.device).index_add_(0, batch, own)

    def _pairs(self, edges: Edges, species: Tensor) -> Edges:
        """Return the edges whose blocks are computed: rows are the receiver's orbitals."""
        if self.pairs == "all":
            return edges
        number = self.element_numbers[species]
        kept = (number[edges.receivers] >= number[edges.senders]).nonzero()[:, 0]
        return Edges(*(value[kept] for value in edges[:6]))

    def _assemble(
        self,
        of_self: Tensor,
        of_pairs: Tensor,
        scalars: Tensor,
        pairs: Edges,
        species: Tensor,
        batch: Tensor,
        num_graphs: int,
    ) -> Tensor:
        """Expand features to blocks and put them into symmetric matrices, float64."""
        both = torch.cat([scalars[pairs.receivers], scalars[pairs.senders]], dim=1)
        # Features of pairs do not vanish at the cutoff, blocks must: the envelope is theirs.
        envelope = self.edges.basis.envelope(pairs.distances)[:, None]
        off_diagonal = self.blocks.to_blocks(self.expand_pair(of_pairs, both) * envelope).double()
        if self.pairs == "by_element":
            # The only one of its two blocks counts fully.
            single = species[pairs.receivers] != species[pairs.senders]
            off_diagonal = off_diagonal * (1.0 + single.double())[:, None, None]
        diagonal = self.blocks.to_blocks(self.expand_self(of_self, scalars)).double() + self.onsite[species]
        rows = self.blocks.rows(species, batch, num_graphs)
        atoms = torch.arange(len(species), device=species.device)
        first, second = torch.cat([atoms, pairs.receivers]), torch.cat([atoms, pairs.senders])
        entries = self.blocks.entries(species, rows, first, second)
        flat = scatter_blocks(torch.cat([diagonal, off_diagonal]), entries, rows.num_entries)
        return 0.5 * (flat + flat[transposed(rows)])

    def _initial(self, graph: AtomGraph, found: Tensor) -> Tensor:
        initial = graph.get("initial_hamiltonian")
        if initial is None or initial.shape != found.shape:
            raise StructureError(
                "The model adds to the Hamiltonian of the initial guess, and this structure has none in "
                f"{self.basis}: data need data.dataset.initial_guess=compute (mlip data prepare)."
            )
        return initial.double()
