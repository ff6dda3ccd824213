"""Forces and stress against finite differences of the energy, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from mlip.data.neighbours import neighbour_list
from mlip.models.base import AtomisticModel
from mlip.testing.evaluate import evaluate, evaluate_many, force_scale, largest
from mlip.testing.structures import away_from_cutoff

_STEP = 1e-3
"""Å: the error of the formula (fourth order) and that of rounding are then both below 1e-8 eV/Å."""
_STRAIN_STEP = 2e-4
_FINER = (0.1, 0.02)
"""A wrong derivative is wrong at any step; a kink of a spline or an envelope within the step is not one."""


def pair_distances(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Return all pair distances below the cutoff in Å, both directions."""
    i, j, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    return np.linalg.norm(atoms.positions[i] + shifts @ atoms.cell.array - atoms.positions[j], axis=1)


def settle(atoms: Atoms, cutoff: float) -> Atoms:
    """Rattle until no pair is so near to the cutoff that a finite difference would step over it."""
    return away_from_cutoff(atoms, lambda a: pair_distances(a, cutoff + 0.05), cutoff, 2.2 * _STEP)


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

    def move(component: int, step: float) -> Atoms:
        moved = atoms.copy()
        moved.positions[divmod(component, 3)] += step
        return moved

    moves = [partial(move, int(component)) for component in chosen]
    return _smallest_error(model, moves, -forces.reshape(-1)[chosen], _STEP) / force_scale(forces)


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
    across = stress - span @ (span.T @ stress @ span) @ span.T

    def deform(strain: np.ndarray, step: float) -> Atoms:
        deformed = atoms.copy()
        deformation = np.eye(3) + step * strain
        deformed.set_cell(atoms.cell.array @ deformation)
        deformed.positions = atoms.positions @ deformation
        return deformed

    strains = [0.5 * (np.outer(a, b) + np.outer(b, a)) for a, b in combinations_with_replacement(span.T, 2)]
    expected = np.array([(stress * strain).sum() for strain in strains]) * atoms.get_volume()
    error = _smallest_error(model, [partial(deform, strain) for strain in strains], expected, _STRAIN_STEP)
    return max(largest(across), error / atoms.get_volume()) / max(largest(stress), 1e-6)


def _smallest_error(
    model: AtomisticModel, moves: Sequence[Callable[[float], Atoms]], expected: np.ndarray, step: float
) -> float:
    """Return the largest error of ``expected`` against derivatives, each at the best of three steps."""
    errors = np.full(len(moves), np.inf)
    for h in (step, *(factor * step for factor in _FINER)):
        doubtful = np.flatnonzero(~(errors <= 1e-7 * largest(expected)))
        if doubtful.size:
            derivatives, rounding = _derivatives(model, [moves[k] for k in doubtful], h)
            found = np.maximum(np.abs(derivatives - expected[doubtful]) - rounding, 0.0)
            errors[doubtful] = np.minimum(errors[doubtful], found)
    return largest(errors)


def _derivatives(
    model: AtomisticModel, moves: Sequence[Callable[[float], Atoms]], step: float
) -> tuple[np.ndarray, float]:
    """Return ``dE/dx`` at 0 along each move, by central differences of fourth order, and their rounding."""
    structures = [move(k * step) for move in moves for k in (1, -1, 2, -2)]
    energies = [one["energies"] for one in evaluate_many(model, structures, ("energy", "energies"))]
    # Differences of the atoms' energies lose fewer digits than those of the total.
    sums = []
    for n in range(0, len(energies), 4):
        plus, minus, far_plus, far_minus = energies[n : n + 4]
        sums.append((8 * (plus - minus) - (far_plus - far_minus)).sum())
    # All-electron energies of 10⁵ eV an atom are known to 1e-11 eV, however right the model is.
    rounding = np.finfo(float).eps * largest(energies[0]) * len(energies[0]) ** 0.5 * 18 / (12 * step)
    return np.array(sums) / (12 * step), rounding
