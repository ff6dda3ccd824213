"""ASE's constraint along lattice vectors, with the forces that belong to it in cells that are not at right angles."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.constraints import FixConstraint, FixScaled


class FixAlong(FixScaled):
    """Holds fractional coordinates of atoms.

    ``∂E/∂s = C ∂E/∂r`` with the lattice vectors as rows of C, for which ASE takes the transpose of C. In a hexagonal
    cell an atom that may move along b is then taken for relaxed though there is a force along b.
    """

    def adjust_forces(self, atoms: Atoms, forces: np.ndarray) -> None:
        """Take away what pulls along the held coordinates, from forces (atoms, 3)."""
        cell = atoms.cell.array
        on_scaled = forces[self.index] @ cell.T
        on_scaled[:, self.mask] = 0
        forces[self.index] = np.linalg.solve(cell, on_scaled.T).T


def corrected(constraints: Iterable[FixConstraint]) -> list[FixConstraint]:
    """Return constraints with `FixAlong` for ASE's `FixScaled`."""
    return [
        FixAlong(constraint.index, constraint.mask) if type(constraint) is FixScaled else constraint
        for constraint in constraints
    ]
