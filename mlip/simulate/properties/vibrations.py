"""Harmonic vibrations of a molecule or a cell by finite displacements, evaluated as one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms

from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import evaluate_all

IMAGINARY = 30.0
"""cm⁻¹ by which a frequency must be imaginary to count."""

STRAIGHT = 0.03
"""Å; a molecule whose atoms are all nearer to its axis is linear. Relaxed linear molecules are off by less, and in real
bent ones an atom is a few times farther, however long they are; ratios of moments of inertia fall with the length."""

PER_CM = units.invcm
"""1 cm⁻¹ in eV."""


@dataclass(frozen=True)
class Vibrations:
    """Modes of the atoms that are not held.

    Attributes:
        wavenumbers: (modes,) cm⁻¹, ascending; imaginary ones are negative.
        modes: (modes, atoms, 3) displacements, of length 1 with the square roots of the masses.
        free: numbers of the atoms that may move.
    """

    wavenumbers: np.ndarray
    modes: np.ndarray
    free: np.ndarray

    @property
    def num_imaginary(self) -> int:
        """Number of imaginary modes beyond the noise (`IMAGINARY`)."""
        return int((self.wavenumbers < -IMAGINARY).sum())

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "num_imaginary": self.num_imaginary,
            "wavenumbers_per_cm": self.wavenumbers.tolist(),
            "free_atoms": self.free.tolist(),
        }


def vibrations(atoms: Atoms, calculator: Calculator, displacement: float = 0.01) -> Vibrations:
    """Compute the harmonic vibrations around a structure from central differences of the forces.

    Translations, and for molecules rotations (two of a linear one, see `STRAIGHT`), are projected out where no atom is
    held.

    Args:
        atoms: at a stationary point; not changed. Atoms fixed by ``FixAtoms`` are held.
        calculator: of energies and forces.
        displacement: Å.

    Raises:
        SimulationError: a single atom, all atoms are held, or other constraints than ``FixAtoms``.
        StructureError: the calculator refuses the structure.
    """
    require_positive(displacement=displacement)
    if any(not isinstance(constraint, FixAtoms) for constraint in atoms.constraints):
        raise SimulationError("Vibrations know atoms that are held (FixAtoms), but no other constraints.")
    held = [index for constraint in atoms.constraints for index in constraint.index]
    free = np.setdiff1d(np.arange(len(atoms)), held)
    if not len(free):
        raise SimulationError("All atoms are held: nothing can vibrate.")
    if len(atoms) == 1:
        raise SimulationError("A single atom has no vibrations: it can only move as a whole.")
    structures = []
    for atom, axis, sign in ((a, x, s) for a in free for x in range(3) for s in (1, -1)):
        copy = atoms.copy()
        copy.positions[atom, axis] += sign * displacement
        structures.append(copy)
    forces = np.array([found.forces[free].ravel() for found in evaluate_all(structures, calculator)])
    hessian = -(forces[0::2] - forces[1::2]) / (2 * displacement)
    hessian = (hessian + hessian.T) / 2
    roots = np.repeat(np.sqrt(atoms.get_masses()[free]), 3)
    weighted = hessian / roots[:, None] / roots
    values, vectors = np.linalg.eigh(weighted)
    if len(free) == len(atoms):
        inside = _internal(atoms, roots)
        values, vectors = np.linalg.eigh(inside.T @ weighted @ inside)
        vectors = inside @ vectors
    # ħω for ω² in eV/(Å² amu).
    energies = np.sign(values) * np.sqrt(np.abs(values)) * units._hbar * units.m / np.sqrt(units._e * units._amu)
    modes = np.zeros((len(values), len(atoms), 3))
    modes[:, free] = vectors.T.reshape(len(values), -1, 3)
    return Vibrations(energies / PER_CM, modes, free)


def _internal(atoms: Atoms, roots: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (3 · atoms, modes) of the displacements that do not move or turn the whole."""
    moves = [np.tile(axis, len(atoms)) for axis in np.eye(3)]
    if not atoms.pbc.any():
        arms = atoms.positions - atoms.get_center_of_mass()
        # The first axis is that of a linear molecule, about which it does not turn.
        axes = np.linalg.svd(arms * roots.reshape(-1, 3), full_matrices=True)[2]
        off = np.linalg.norm(np.cross(arms, axes[0]), axis=1).max()
        moves += [np.cross(axis, arms).ravel() for axis in axes[1 if off < STRAIGHT else 0 :]]
    left = np.linalg.svd((np.array(moves) * roots).T, full_matrices=True)[0]
    return left[:, len(moves) :]
