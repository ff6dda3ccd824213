"""Total energy and dipole of the density that the occupied orbitals of a predicted Hamiltonian have, through PySCF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlip.data.molecular_orbitals import MolecularOrbitals, closed_shells, density_matrix
from mlip.data.orbitals import reorder
from mlip.data.quantum import GRID_LEVEL, kohn_sham, molecule


@dataclass(frozen=True)
class DensityErrors:
    """Errors of what follows from the density.

    Attributes:
        energy: predicted - true total energy, Hartree: the functional's value for either density. It is of second
            order in the density's error and, but for the integration grid, never below zero.
        dipole: length of the difference of the two dipoles, Debye.
    """

    energy: float
    dipole: float


def total_energy_and_dipole(
    numbers: Sequence[int] | np.ndarray,
    positions: np.ndarray,
    basis: str,
    functional: str,
    densities: Sequence[np.ndarray],
    grid_level: int = GRID_LEVEL,
) -> list[tuple[float, np.ndarray]]:
    """Return total energy (Hartree) and dipole ``(3,)`` (Debye, about the origin) for densities of one molecule.

    The functional is evaluated once for each density, about the cost of one cycle of an SCF.

    Args:
        numbers: atomic numbers of a neutral closed-shell molecule.
        positions: ``(atoms, 3)`` Å.
        basis: see :func:`mlip.data.quantum.molecule`.
        functional: our name of it.
        densities: density matrices in the order `mlip`.
        grid_level: of the integration grid.

    Raises:
        DataError: no PySCF, or as :func:`mlip.data.quantum.molecule` and :func:`mlip.data.quantum.kohn_sham`.
    """
    mol = molecule(numbers, positions, basis)
    calculation = kohn_sham(mol, functional, grid_level)
    found = []
    for density in densities:
        ordered = reorder(density, numbers, basis, "mlip", "pyscf")
        energy = float(calculation.energy_tot(dm=ordered))
        found.append((energy, np.asarray(calculation.dip_moment(mol, ordered, unit="Debye", verbose=0))))
    return found


def density_errors(
    numbers: Sequence[int] | np.ndarray,
    positions: np.ndarray,
    basis: str,
    functional: str,
    predicted: MolecularOrbitals,
    true: MolecularOrbitals,
    num_electrons: int,
) -> DensityErrors:
    """Return the errors of total energy and dipole.

    Both densities are evaluated by the same program on the same grid, so no other difference is in the errors.

    Args:
        numbers, positions, basis, functional: as `total_energy_and_dipole`.
        predicted, true: orbitals, in the order `mlip`.
        num_electrons: in these orbitals.

    Raises:
        DataError: as `total_energy_and_dipole`.
    """
    occupations = closed_shells(len(true.energies), num_electrons)
    densities = [density_matrix(orbitals.coefficients, occupations) for orbitals in (predicted, true)]
    (energy, dipole), (true_energy, true_dipole) = total_energy_and_dipole(
        numbers, positions, basis, functional, densities
    )
    return DensityErrors(energy - true_energy, float(np.linalg.norm(dipole - true_dipole)))
