"""Networks that predict a molecule's Hamiltonian in a basis of atomic orbitals: QHNet, SPHNet and what lies between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Literal, get_args

import torch
from ase.data import atomic_numbers
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError, StructureError, did_you_mean
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import AtomisticModel, graph_index, sort_elements
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

    Inside, vectors are (y, z, x), so that harmonics are those of the orbitals (:mod:`mlip.ops.orbital_blocks`). Blocks of
    atoms farther apart than the cutoff are zero.

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
        pair_gate: factory of the sparse pair gate, in the last layer of atoms and of pairs; None keeps all pairs.
        path_gate: factory of the sparse gate of the paths of products of two atoms; None keeps all paths.
        pairs: see :data:`PairChoice`.
        bottleneck: channels before the expansion.
        target: see :data:`Target`.
        graph: builder of the graphs.

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
        _choice("pairs", pairs, get_args(PairChoice))
        _choice("target", target, get_args(Target))
        if not 1 <= num_pair_layers <= num_layers:
            raise ConfigError(f"num_pair_layers must be from 1 to num_layers = {num_layers}, got {num_pair_layers}.")
        missing = sorted(set(self.elements) - set(shells))
        if missing:
            raise ConfigError(f"shells must name the shells of every element, there are none of {', '.join(missing)}.")
        self.basis, self.functional, self.pairs, self.target = basis, functional, pairs, target
        self.needs = ("initial_hamiltonian",) if target == "difference" else ()
        self.blocks = OrbitalBlocks([list(shells[symbol]) for symbol in self.elements])
        if self.blocks.irreps.lmax > 2 * lmax:
            raise ConfigError(
                f"Blocks in {basis} have degrees up to {self.blocks.irreps.lmax}, products of features up to "
                f"{2 * lmax}: raise lmax to {(self.blocks.irreps.lmax + 1) // 2}."
            )
        self.register_constant("onsite", onsite_blocks(self.blocks, self.elements, shells, onsite), keep_dtype=True)
        numbers = torch.tensor([atomic_numbers[symbol] for symbol in self.elements])
        self.register_constant("element_numbers", numbers, keep_dtype=True)
        self.edges = EdgeFeatures(lmax if lmax_edge is None else lmax_edge, radial, envelope, self.cutoff)
        self.front_end = front_end(numbers.tolist(), num_channels)
        hidden = natural_irreps(lmax, num_channels)
        pair_irreps = Irreps([(num_channels, ir) for _, ir in self.blocks.irreps])
        self.layers = nn.ModuleList()
        for number in range(num_layers):
            self.layers.append(
                NodeInteraction(
                    hidden if number else Irreps([(num_channels, (0, 1))]),
                    self.edges.irreps,
                    hidden,
                    self.edges.num_basis,
                    num_neighbors,
                    tensor_product,
                    radial_weights,
                    pair_gate if number and number == num_layers - 1 else None,
                )
            )
        last = range(num_pair_layers)
        self.self_pairs = nn.ModuleList(SelfPair(hidden, pair_irreps, pair_product, path_gate) for _ in last)
        self.pair_layers = nn.ModuleList(
            PairInteraction(
                hidden,
                pair_irreps,
                self.edges.num_basis,
                pair_product,
                radial_weights,
                pair_gate if number and number == num_pair_layers - 1 else None,
                path_gate,
            )
            for number in last
        )
        self.expand_self = Expansion(pair_irreps, self.blocks, num_channels, bottleneck)
        self.expand_pair = Expansion(pair_irreps, self.blocks, 2 * num_channels, bottleneck)

    def begin_step(self, step: int) -> None:
        """Tell the gates of paths which step of the training begins; their phases end at steps."""
        for module in self.modules():
            if isinstance(module, PathGate):
                module.begin_step(step)

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
        return Edges(*(value[kept] for value in edges))

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
        envelope = self.edges.basis.envelope(pairs.distances)[:, None]
        off_diagonal = self.blocks.to_blocks(self.expand_pair(of_pairs, both, envelope)).double()
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
                f"{self.basis}: data need data.dataset.initial_guess=compute."
            )
        return initial.double()


def onsite_blocks(
    blocks: OrbitalBlocks,
    elements: Sequence[str],
    shells: Mapping[str, Sequence[int]],
    onsite: Mapping[str, Any] | None,
) -> Tensor:
    """Return ``(elements, size, size)`` float64: the same number for every m of two shells of one degree.

    Raises:
        ConfigError: an element is missing, or a matrix has another shape than its shells need.
    """
    found = torch.zeros(len(elements), blocks.size, blocks.size, dtype=torch.float64)
    if onsite is None:
        return found
    for k, symbol in enumerate(sort_elements(elements)):
        start = 0
        for l, room in enumerate(blocks.counts):
            count = list(shells[symbol]).count(l)
            if count:
                try:
                    values = torch.tensor(onsite[symbol][l], dtype=torch.float64)
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise ConfigError(f"onsite must have a matrix for degree {l} of {symbol}.") from error
                if values.shape != (count, count):
                    raise ConfigError(f"onsite of degree {l} of {symbol} must be {count}x{count}, got {values.tolist()}.")
                width = count * (2 * l + 1)
                found[k, start : start + width, start : start + width] = torch.kron(values, torch.eye(2 * l + 1))
            start += room * (2 * l + 1)
    return found


def _choice(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{option} must be one of {', '.join(known)}, got {value!r}.{did_you_mean(str(value), known)}")
