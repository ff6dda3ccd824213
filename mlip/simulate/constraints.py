"""What constraints leave to the atoms: directions, counted once even where they overlap, and motions of the whole."""

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

INTERNAL = (FixBondLengths, FixInternals, FixLinearTriatomic)
"""Constraints between atoms, which a rigid motion of all does not feel."""

_HELD = 1e-8
"""Parts of a direction that count as nothing."""


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
    blocks = _passed(atoms, straight)
    if not np.allclose(blocks @ blocks, blocks, rtol=0, atol=_HELD):
        raise SimulationError(
            "An atom is held by constraints whose directions are not at right angles, and one undoes what the other "
            "does: give one constraint for it instead."
        )
    # Only these leave the energy alone; orthogonal ones after each other that are a projection are symmetric.
    if not np.allclose(blocks, blocks.transpose(0, 2, 1), rtol=0, atol=_HELD):
        raise SimulationError(
            "MD cannot be run with FixScaled along an axis of the cell that is not at right angles to those left free: "
            "it would heat the atoms. Use FixedPlane or FixedLine, or a rectangular cell."
        )
    return round(float(np.trace(blocks, axis1=1, axis2=2).sum()))


def _passed(atoms: Atoms, straight: Sequence[FixConstraint]) -> np.ndarray:
    """Return what constraints on single atoms let through, (atoms, 3, 3): momenta are multiplied by it."""
    blocks = np.empty((len(atoms), 3, 3))
    for axis in range(3):
        momenta = np.zeros((len(atoms), 3))
        momenta[:, axis] = 1
        for constraint in straight:
            constraint.adjust_momenta(atoms, momenta)
        blocks[:, :, axis] = momenta
    return blocks


def free_dimensions(atoms: Atoms) -> np.ndarray:
    """Return along how many directions each atom can move, (atoms,): 3, 2 in a plane, 1 on a line, 0 if it is fixed."""
    straight = [constraint for constraint in atoms.constraints if isinstance(constraint, STRAIGHT)]
    return np.linalg.matrix_rank(_passed(atoms, straight), tol=_HELD)


def holds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Return where and along which directions constraints hold atoms to places.

    The momentum of a rigid motion with the velocity v(r) is conserved if ``block @ v(point) = 0`` for all of them: no
    constraint does work on it, or takes up its momentum. An atom on a line or plane is to stay there as it moves on,
    so there are four points for every atom. Springs between atoms and `INTERNAL` constraints hold nothing to a place;
    constraints that are not known here hold all.

    Returns:
        Blocks (points, 3, 3) and points (points, 3) in Å.
    """
    straight = [constraint for constraint in atoms.constraints if isinstance(constraint, STRAIGHT)]
    blocks, points = [np.zeros((0, 3, 3))], [np.zeros((0, 3))]
    centre, spread = atoms.get_center_of_mass(), np.concatenate([np.zeros((1, 3)), np.eye(3)])
    if straight:
        passed = _passed(atoms, straight)
        held = np.abs(passed - np.eye(3)).max(axis=(1, 2)) > _HELD
        ways = np.concatenate([np.zeros((held.sum(), 1, 3)), passed[held].transpose(0, 2, 1)], axis=1)
        blocks.append(np.repeat(np.eye(3) - passed[held], 4, axis=0))
        points.append((atoms.positions[held, None] + ways).reshape(-1, 3))
    for constraint in atoms.constraints:
        block, where = np.eye(3), centre + spread
        if isinstance(constraint, (*STRAIGHT, *INTERNAL)):
            continue
        if isinstance(constraint, Hookean):
            if hasattr(constraint, "indices"):
                continue
            if hasattr(constraint, "origin"):
                where = constraint.origin[None]
            else:
                normal = np.array(constraint.plane[:3], dtype=np.float64)
                block = np.outer(normal, normal) / (normal @ normal)
        elif type(constraint) is FixCom:
            where = centre[None]
        blocks.append(np.broadcast_to(block, (len(where), 3, 3)))
        points.append(where)
    return np.concatenate(blocks), np.concatenate(points)


def unheld(blocks: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """Return the combinations of velocities that nothing holds, see `holds`.

    Args:
        blocks: (points, 3, 3).
        velocities: (motions, points, 3), of order 1.

    Returns:
        (combinations, motions), orthonormal.
    """
    number = len(velocities)
    rows = np.einsum("nij,gnj->nig", blocks, velocities).reshape(-1, number)
    # Rows of zeros, so that there is a singular value for each motion.
    _, sizes, basis = np.linalg.svd(np.concatenate([rows, np.zeros((number, number))]), full_matrices=False)
    return basis[sizes < 1e-6]


def free_translations(atoms: Atoms) -> np.ndarray:
    """Return the projection (3, 3) on the directions along which the structure as a whole is held to no place."""
    blocks, points = holds(atoms)
    basis = unheld(blocks, np.repeat(np.eye(3)[:, None], len(points), axis=1))
    return basis.T @ basis
