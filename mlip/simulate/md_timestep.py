"""Whether a time step resolves the fastest vibration of a structure."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms
from ase.units import _c

from mlip.core.units import FS

ENOUGH = 8.0
"""Steps in the shortest period below which a time step is called long: 1.4 fs for a C–H bond."""

VECTORS = 12
"""Evaluations of the forces that the estimate takes."""

DISPLACEMENT = 0.01
"""Å, of the atom that moves most."""


def highest_frequency(atoms: Atoms, vectors: int = VECTORS) -> float:
    """Estimate the highest vibrational frequency from a few forces, by Lanczos' method on the Hessian.

    Products of the mass-weighted Hessian ``D = M^-1/2 H M^-1/2`` with a vector are differences of forces; the largest
    eigenvalue of D in the space of the first products approaches the largest one of all from below (Parlett, The
    Symmetric Eigenvalue Problem, ch. 13). Atoms that are fixed do not move.

    Args:
        atoms: with a calculator; not changed.
        vectors: products.

    Returns:
        Angular frequency in 1/fs; 0 if nothing vibrates.

    Raises:
        StructureError: the calculator refuses the structure.
    """
    moved = atoms.copy()
    moved.calc = atoms.calc
    root_mass = np.sqrt(atoms.get_masses())[:, None]
    at, forces = atoms.get_positions(), atoms.get_forces()
    free = _free(atoms)
    # Light atoms first: they vibrate fastest.
    start = np.random.default_rng(0).standard_normal(at.shape) / root_mass
    start[~free] = 0
    basis: list[np.ndarray] = []
    products: list[np.ndarray] = []
    vector = start.ravel()
    for _ in range(min(vectors, 3 * int(free.sum()))):
        size = np.linalg.norm(vector)
        if not size > 1e-10:
            break
        basis.append(vector / size)
        step = basis[-1].reshape(-1, 3) / root_mass
        scale = DISPLACEMENT / np.abs(step).max()
        moved.positions = at + scale * step
        product = ((forces - moved.get_forces()) / (scale * root_mass)).ravel()
        products.append(product)
        known = np.array(basis)
        vector = product - known.T @ (known @ product)
        vector -= known.T @ (known @ vector)
        if np.linalg.norm(vector) < 1e-6 * np.linalg.norm(product):
            break
    if not basis:
        return 0.0
    matrix = np.array(basis) @ np.array(products).T
    largest = float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])
    return math.sqrt(largest) * FS if largest > 0 else 0.0


def _free(atoms: Atoms) -> np.ndarray:
    """Return which atoms constraints let move: those whose force passes them."""
    trial = atoms.copy()
    passed = np.ones((len(atoms), 3))
    for constraint in trial.constraints:
        constraint.adjust_forces(trial, passed)
    return np.abs(passed).max(axis=1) > 0


def timestep_problem(atoms: Atoms, timestep: float) -> str | None:
    """Return why a time step is too long for a structure, or None.

    Args:
        atoms: with a calculator.
        timestep: fs.

    Raises:
        StructureError: the calculator refuses the structure.
    """
    frequency = highest_frequency(atoms)
    if frequency == 0 or timestep * ENOUGH * frequency <= 2 * math.pi:
        return None
    period = 2 * math.pi / frequency
    wave_number = 1e15 / (period * _c * 100)
    # Velocity Verlet of a harmonic vibration: stable for frequency · timestep < 2.
    unstable = " No integration is stable with it." if timestep * frequency >= 2 else ""
    return (
        f"A time step of {timestep:g} fs is long: the fastest vibration has a period of {period:.3g} fs "
        f"({wave_number:.0f} 1/cm), take at most {period / ENOUGH:.2g} fs.{unstable}"
    )
