"""All pairs of a molecule, however far: the blocks of a Hamiltonian."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.data.graphs.base import GraphBuilder
from mlip.data.neighbours import Pairs, check_positions

LARGEST = 5000
"""Atoms; the edges of more would not fit into the memory of most machines."""


class FullyConnected(GraphBuilder):
    """Edges are all ordered pairs i ≠ j of a structure without periodic axes: atoms · (atoms − 1).

    A matrix over orbitals has a block for each of them. The graph never changes, so it is smooth.
    """

    periodic = False

    def __init__(self) -> None:
        self.cutoff = math.inf

    @property
    def description(self) -> str:
        """See :class:`GraphBuilder`."""
        return "all pairs of a molecule"

    def __call__(self, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """See :class:`GraphBuilder`."""
        if atoms.pbc.any():
            raise StructureError(
                f"A fully connected graph is for molecules; this structure is periodic (pbc {atoms.pbc.tolist()}) and "
                "would have infinitely many pairs. Set atoms.pbc = False, or choose model/graph=radius."
            )
        num_atoms = len(atoms)
        if num_atoms > LARGEST:
            raise StructureError(
                f"A fully connected graph of {num_atoms} atoms has too many edges (at most {LARGEST} atoms). "
                "Choose model/graph=radius."
            )
        check_positions(atoms.positions)
        receivers, senders = np.nonzero(~np.eye(num_atoms, dtype=bool))
        return senders.astype(np.int64), receivers.astype(np.int64), np.zeros((len(senders), 3), dtype=np.int64)
