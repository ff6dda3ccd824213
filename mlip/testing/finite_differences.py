"""Forces and stress against finite differences of the energy, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms

from mlip.data.neighbours import neighbour_list
from mlip.models.base import AtomisticModel
from mlip.testing.evaluate import energy_of, evaluate, force_scale, largest
from mlip.testing.structures import away_from_cutoff

_STEP = 3e-4
"""Å: the error of the formula (fourth order) and that of rounding are then both below 1e-8 eV/Å."""
_STRAIN_STEP = 1e-4


def pair_distances(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Return all pair distances below the cutoff in Å, both directions."""
    i, j, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    return np.linalg.norm(atoms.positions[i] + shifts @ atoms.cell.array - atoms.positions[j], axis=1)


def settle(atoms: Atoms, cutoff: float) -> Atoms:
    """Rattle until no pair is so near to the cutoff that a finite difference would step over it."""
    return away_from_cutoff(atoms, lambda a: pair_distances(a, cutoff + 0.05), cutoff, 4 * _STEP)


def force_error(model: AtomisticModel, atoms: Atoms, num_components: int = 9, seed: int = 0) -> float:
    """Compare forces with ``-∂E/∂r`` by central differences of fourth order.

    Args:
        model: in float64.
        atoms: any structure.
        num_components: how many components, drawn at random, are checked.
        seed: of that draw.

    Returns:
        The largest error over the RMS force.
    """
    forces = evaluate(model, atoms)["forces"]
    chosen = np.random.default_rng(seed).permutation(3 * len(atoms))[:num_components]
    errors = []
    for component in chosen:
        atom, axis = divmod(int(component), 3)

        def energy(step: float, atom: int = atom, axis: int = axis) -> np.ndarray:
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            return energy_of(model, moved)

        errors.append(_derivative(energy, _STEP) + forces[atom, axis])
    return largest(np.array(errors)) / force_scale(forces)


def stress_error(model: AtomisticModel, atoms: Atoms) -> float:
    """Compare the stress with ``∂E/∂ε / V`` along its periodic directions, and with zero across them.

    Args:
        model: in float64.
        atoms: periodic along one axis at least, with a cell that has volume.

    Returns:
        The largest error over the largest component of the stress (at least 1e-6 eV/Å³).
    """
    stress = evaluate(model, atoms, ("energy", "stress"))["stress"]
    # Columns span the periodic directions, orthonormal, by QR: not the projector that predict() uses.
    span = np.linalg.qr(atoms.cell.array[atoms.pbc].T)[0]
    errors = [stress - span @ (span.T @ stress @ span) @ span.T]
    dimension = span.shape[1]
    for a in range(dimension):
        for b in range(a, dimension):
            strain = 0.5 * (np.outer(span[:, a], span[:, b]) + np.outer(span[:, b], span[:, a]))

            def energy(step: float, strain: np.ndarray = strain) -> np.ndarray:
                deformed = atoms.copy()
                deformation = np.eye(3) + step * strain
                deformed.set_cell(atoms.cell.array @ deformation)
                deformed.positions = atoms.positions @ deformation
                return energy_of(model, deformed)

            numeric = _derivative(energy, _STRAIN_STEP) / atoms.get_volume()
            errors.append(np.array(numeric - (stress * strain).sum()))
    return max(largest(error) for error in errors) / max(largest(stress), 1e-6)


def _derivative(function: Callable[[float], np.ndarray], step: float) -> float:
    """Return the first derivative at 0 of the sum of a vector function, to fourth order."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return float((8 * near - far).sum() / (12 * step))
