"""How many directions constraints leave to the atoms, counted once even where constraints overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixConstraint,
    FixedLine,
    FixedPlane,
    FixInternals,
    FixLinearTriatomic,
    FixScaled,
    Hookean,
)

from mlip.core.errors import SimulationError

STRAIGHT = (FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled)
"""Constraints that take directions away from forces and momenta of single atoms, the same ones at all times."""

COUNTED = (FixBondLengths, FixCom, FixInternals, FixLinearTriatomic)
"""Constraints on several atoms whose degrees of freedom ASE counts right; `FixSubsetCom` is a `FixCom`."""


def free_directions(atoms: Atoms) -> int:
    """Return the number of degrees of freedom that the constraints leave, 3 · atoms without any.

    ASE adds up what each constraint takes away, so that an atom that is fixed twice would count for six. Here those on
    single atoms are applied together, and the rank of the projection that they are is what is left. The others must
    not share atoms with any: ASE applies one after the other, and the last one spoils what the first one did.

    Raises:
        SimulationError: constraints that cannot be counted, or do not go together.
    """
    straight = [constraint for constraint in atoms.constraints if isinstance(constraint, STRAIGHT)]
    held = np.zeros(len(atoms), dtype=bool)
    for constraint in straight:
        held[constraint.index] = True
    free = _rank(atoms, straight)
    for constraint in atoms.constraints:
        # A spring holds nothing.
        if isinstance(constraint, (*STRAIGHT, Hookean)):
            continue
        name = type(constraint).__name__
        if not isinstance(constraint, COUNTED):
            raise SimulationError(
                f"MD cannot be run with the constraint {name}: what it leaves to be heated cannot be counted. Take it "
                "off, or use FixAtoms or another constraint on positions."
            )
        own = constraint.index if isinstance(constraint, FixCom) else constraint.get_indices()
        if held[own].any():
            raise SimulationError(
                f"MD cannot be run with {name} on atoms that another constraint holds as well: the two do not go "
                "together. Take one of them off."
            )
        held[own] = True
        free -= int(constraint.get_removed_dof(atoms))
    return free


def _rank(atoms: Atoms, straight: Sequence[FixConstraint]) -> int:
    """Return the rank of what constraints on single atoms do to momenta: a matrix (3, 3) for each atom."""
    blocks = np.empty((len(atoms), 3, 3))
    for axis in range(3):
        momenta = np.zeros((len(atoms), 3))
        momenta[:, axis] = 1
        for constraint in straight:
            constraint.adjust_momenta(atoms, momenta)
        blocks[:, :, axis] = momenta
    if not np.allclose(blocks @ blocks, blocks, rtol=0, atol=1e-8):
        raise SimulationError(
            "An atom is held by constraints whose directions are not at right angles, and one undoes what the other "
            "does: give one constraint for it instead."
        )
    return round(float(np.trace(blocks, axis1=1, axis2=2).sum()))
