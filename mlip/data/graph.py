"""The graph of a structure: atoms are nodes, pairs of atoms are directed edges."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.data import Data


class AtomGraph(Data):
    """One structure (or, as a PyG batch, several) as a graph.

    ``Batch.from_data_list(graphs)`` concatenates every field on its first dimension (``edge_index`` on its
    second), shifts the atom numbers in ``edge_index`` and adds ``batch`` (atoms,) and ``ptr`` (graphs + 1,).
    A single graph has no ``batch``; readers take a missing one as all zeros.

    Attributes:
        positions: (atoms, 3) float64, Å.
        atomic_numbers: (atoms,) int64.
        cell: (graphs, 3, 3) float64, Å; rows are the lattice vectors, zero where there is none.
        pbc: (graphs, 3) bool, which lattice vectors are periodic.
        edge_index: (2, edges) int64, rows (sender j, receiver i), sorted by receiver.
        cell_shifts: (edges, 3) int64, S of the edge vector ``r_j + S·cell − r_i`` (Å, from i to j).
        energy: (graphs,) float64, eV; a label, as are the next ones. NaN means not labelled.
        forces: (atoms, 3) float64, eV/Å.
        stress: (graphs, 3, 3) float64, eV/Å³, tension positive.
        charge, spin, tags, fixed, …: whole numbers are int64, yes or no is bool; see `mlip.core.fields`.
        hamiltonian, initial_hamiltonian, overlap: (Σ orbitals²,) float64, the matrices of the graphs row by row, one
            after the other.
        num_orbitals: (graphs,) int64, rows of these matrices; there if they are.
    """

    def __init__(self, **fields: Any) -> None:
        # PyG knows the number of nodes only from fields called "x" or "pos", so it is stated here.
        if "positions" in fields and fields.get("num_nodes") is None:
            fields["num_nodes"] = len(fields["positions"])
        super().__init__(**fields)

    @property
    def senders(self) -> Tensor:
        """(edges,) atom j that each edge starts from."""
        return self.edge_index[0]

    @property
    def receivers(self) -> Tensor:
        """(edges,) atom i that each edge points to; ascending."""
        return self.edge_index[1]

    def matrices(self, name: str) -> list[Tensor]:
        """Return the square matrix (orbitals, orbitals) of every graph, e.g. of ``"hamiltonian"``; views."""
        sizes = self.num_orbitals.tolist()
        parts = self[name].split([size * size for size in sizes])
        return [part.view(size, size) for part, size in zip(parts, sizes, strict=True)]

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "edge_index":
            return self.num_nodes
        # PyG increments whatever has "index" in its name; our other fields never number atoms.
        return super().__inc__(key, value, *args, **kwargs) if key in ("batch", "ptr") else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 1 if key == "edge_index" else 0
