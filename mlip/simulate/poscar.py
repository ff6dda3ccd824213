"""Constraints as VASP's POSCAR has them: three flags for each atom, along the lattice vectors."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixConstraint, FixScaled

from mlip.simulate.constraints import STRAIGHT

SAME = 1e-5
"""Part of a lattice vector by which it may turn away and still count as free."""


def with_selective_dynamics(atoms: Atoms) -> Atoms:
    """Return a copy that has only those constraints that flags along the lattice vectors express, as such.

    ASE refuses to write a plane or a line that is not parallel to a lattice vector, and leaves out `FixCartesian`. Here
    an atom gets flags if the directions that all its constraints together leave are spanned by lattice vectors;
    otherwise it is free in the copy. Constraints on several atoms are left out.
    """
    found = atoms.copy()
    found.set_constraint(as_constraints(_held(atoms)))
    return found


def as_constraints(held: np.ndarray) -> list[FixConstraint]:
    """Return the constraints for flags, as ASE's reader of POSCAR has them.

    Args:
        held: (atoms, 3) bool, True where an atom is not to move along a lattice vector.
    """
    found: list[FixConstraint] = []
    for mask in np.unique(held[held.any(axis=1) & ~held.all(axis=1)], axis=0):
        found.append(FixScaled(np.flatnonzero((held == mask).all(axis=1)), mask))
    if held.all(axis=1).any():
        found.append(FixAtoms(np.flatnonzero(held.all(axis=1))))
    return found


def _held(atoms: Atoms) -> np.ndarray:
    """Return (atoms, 3), which lattice vectors each atom may not follow."""
    straight = [constraint for constraint in atoms.constraints if isinstance(constraint, STRAIGHT)]
    held = np.zeros((len(atoms), 3), dtype=bool)
    if not straight:
        return held
    # What is left of a step along each axis: v becomes v @ left[atom].
    left = np.empty((len(atoms), 3, 3))
    for axis in range(3):
        places = atoms.positions.copy()
        places[:, axis] += 1
        for constraint in straight:
            constraint.adjust_positions(atoms, places)
        left[:, axis] = places - atoms.positions
    cell = atoms.cell.array
    turned = np.linalg.norm(cell @ left - cell, axis=2)
    free = turned < SAME * np.linalg.norm(cell, axis=1)
    spanned = free.sum(axis=1) == np.linalg.matrix_rank(left, tol=SAME)
    held[spanned] = ~free[spanned]
    return held
