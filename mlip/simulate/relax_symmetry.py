"""Space groups: named, refined, and kept through a relaxation; needs spglib."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixedLine, FixedPlane, FixScaled, FixSymmetry
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from mlip.core.errors import ConfigError, SimulationError

SYMPREC = 0.01
"""Å by which atoms may be off their places, as in ASE and most databases."""

_PROJECTIONS = (FixAtoms, FixCartesian, FixCom, FixScaled, FixedLine, FixedPlane)
"""Constraints that take a part of the forces away, the same at every step."""


@dataclass(frozen=True)
class SpaceGroup:
    """A space group.

    Attributes:
        number: 1 to 230.
        symbol: international short symbol, such as ``Fm-3m``.
        operations: of the cell as it is, translations of a supercell among them.
    """

    number: int
    symbol: str
    operations: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.symbol} ({self.number})"


def space_group(atoms: Atoms, symprec: float = SYMPREC) -> SpaceGroup | None:
    """Find the space group of a crystal; None without spglib, for what is no crystal, and where none is found.

    Args:
        atoms: periodic along all axes, or there is none.
        symprec: Å.
    """
    if find_spec("spglib") is None or not atoms.pbc.all():
        return None
    dataset = _dataset(atoms, symprec)
    if dataset is None:
        return None
    return SpaceGroup(int(dataset.number), str(dataset.international), len(dataset.rotations))


def require_crystal(atoms: Atoms, option: str) -> None:
    """Refuse what has no space group.

    Raises:
        ConfigError: spglib is missing.
        SimulationError: the structure is not periodic along all axes.
    """
    if find_spec("spglib") is None:
        raise ConfigError(f"{option} needs spglib, which is not installed: pip install spglib.")
    if not atoms.pbc.all():
        raise SimulationError(
            f"{option} needs a crystal, periodic along all axes; this structure has pbc {atoms.pbc.tolist()}."
        )


def refined(atoms: Atoms, symprec: float = SYMPREC) -> Atoms:
    """Return a copy whose cell and positions have exactly the symmetry that they have to within ``symprec``.

    The cell is the same one (not made primitive or conventional) and keeps its orientation as nearly as can be; the
    order of the atoms, constraints and all else stay.

    Args:
        atoms: a crystal.
        symprec: Å.

    Raises:
        ConfigError: spglib is missing.
        SimulationError: no crystal, or spglib finds no symmetry, not even the identity.
    """
    from ase.spacegroup.symmetrize import refine_symmetry

    require_crystal(atoms, "Refining the symmetry")
    if _dataset(atoms, symprec) is None:
        raise SimulationError(_nothing(symprec))
    found = atoms.copy()
    found.set_constraint()
    refine_symmetry(found, symprec)
    found.set_constraint(atoms.copy().constraints)
    return found


class KeptSymmetry(FixSymmetry):
    """ASE's constraint, which takes the symmetric part of forces, stresses and steps, with all operations at once.

    Args:
        atoms: a crystal; it is refined in place.
        symprec: Å.
    """

    def __init__(self, atoms: Atoms, symprec: float = SYMPREC, **kwargs: Any) -> None:
        super().__init__(atoms, symprec, **kwargs)
        mapped = np.asarray(self.symm_map)
        if not (np.sort(mapped, axis=1) == np.arange(len(atoms))).all():
            raise SimulationError(
                f"The symmetry operations that spglib finds to {symprec:g} Å do not map the atoms one to one: "
                "choose a smaller --symprec."
            )
        self._came_from = np.argsort(mapped, axis=1)
        self._operations = np.asarray(self.rotations, dtype=np.float64)

    def adjust_positions(self, atoms: Atoms, new: np.ndarray) -> None:
        """Keep the symmetric part of a step (atoms, 3)."""
        new[:] = atoms.positions + self._vectors(atoms, new - atoms.positions)

    def adjust_forces(self, atoms: Atoms, forces: np.ndarray) -> None:
        """Keep the symmetric part of the forces (atoms, 3)."""
        forces[:] = self._vectors(atoms, forces)

    def adjust_stress(self, atoms: Atoms, stress: np.ndarray) -> None:
        """Keep the symmetric part of a stress (6,)."""
        stress[:] = full_3x3_to_voigt_6_stress(self._tensor(atoms, voigt_6_to_full_3x3_stress(stress)))

    def adjust_cell(self, atoms: Atoms, cell: np.ndarray) -> None:
        """Keep the symmetric part of a change of the cell (3, 3)."""
        now = atoms.cell.array
        step = np.linalg.solve(now, np.asarray(cell)).T - np.eye(3)
        largest = np.abs(step).max()
        if largest > 0.25:
            raise SimulationError(
                f"The cell changed by {100 * largest:.0f} % in one step, too much to keep the symmetry: start nearer "
                "to the minimum, or choose the optimizer FIRE."
            )
        cell[:] = now @ (self._tensor(atoms, step) + np.eye(3)).T

    def _vectors(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        cell = atoms.cell.array
        scaled = np.linalg.solve(cell.T, vectors.T)
        turned = np.take_along_axis(self._operations @ scaled, self._came_from[:, None, :], axis=2)
        return (cell.T @ turned.mean(axis=0)).T

    def _tensor(self, atoms: Atoms, tensor: np.ndarray) -> np.ndarray:
        cell = atoms.cell.array
        inverse = np.linalg.inv(cell)
        turned = self._operations.transpose(0, 2, 1) @ (cell @ tensor @ cell.T) @ self._operations
        return inverse @ turned.mean(axis=0) @ inverse.T


def keep_symmetry(atoms: Atoms, symprec: float = SYMPREC) -> None:
    """Refine a structure in place and add the constraint that keeps its symmetry to the ones that it has.

    Raises:
        ConfigError: spglib is missing.
        SimulationError: no crystal, one without a symmetry that can be kept, or constraints that the symmetry does not
            leave as they are.
    """
    constraints = atoms.constraints
    refine = refined(atoms, symprec)
    refine.set_constraint()
    kept = KeptSymmetry(refine, symprec)
    _check_constraints(refine, constraints, kept)
    atoms.set_constraint()
    atoms.set_cell(refine.cell)
    atoms.set_positions(refine.positions)
    atoms.set_constraint([*constraints, kept])


def _check_constraints(atoms: Atoms, constraints: list[Any], kept: KeptSymmetry) -> None:
    """Refuse constraints under which symmetric forces would not stay symmetric: the average over the operations would
    move what they hold."""
    foreign = next((one for one in constraints if not isinstance(one, _PROJECTIONS)), None)
    if foreign is not None:
        raise SimulationError(
            f"The symmetry can be kept together with fixed atoms, not with {type(foreign).__name__}: take this "
            "constraint out of the structure, or leave --keep-symmetry out."
        )
    # What is linear and right for forces in general directions is right for all.
    forces = np.random.default_rng(0).normal(size=(len(atoms), 3))
    kept.adjust_forces(atoms, forces)
    for constraint in constraints:
        constraint.adjust_forces(atoms, forces)
    symmetric = forces.copy()
    kept.adjust_forces(atoms, symmetric)
    if np.abs(symmetric - forces).max() > 1e-6:
        raise SimulationError(
            "The constraints hold an atom and leave an equivalent one free, so the symmetry cannot be kept: fix "
            "equivalent atoms in the same way, or leave --keep-symmetry out."
        )


def _dataset(atoms: Atoms, symprec: float) -> Any:
    import spglib
    from ase.utils import atoms_to_spglib_cell

    errors = (getattr(spglib, "SpglibError", RuntimeError), RuntimeError, ValueError, TypeError)
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return spglib.get_symmetry_dataset(atoms_to_spglib_cell(atoms), symprec=symprec)
    except errors:
        return None


def _nothing(symprec: float) -> str:
    return (
        f"spglib finds no symmetry of this structure to {symprec:g} Å: do atoms coincide? Change --symprec, or leave "
        "the symmetry alone."
    )
