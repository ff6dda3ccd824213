"""Molecular orbitals of a Hamiltonian over atomic orbitals: ``H C = S C diag(ε)``. Needs no PySCF."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, eigh

from mlip.core.errors import DataError

LINEARLY_DEPENDENT = 1e-8
"""Combinations of atomic orbitals whose overlap with themselves is smaller than this are left out, as in PySCF."""

ASYMMETRY = 1e-6
"""Largest difference of a matrix to its transpose, as a fraction of its largest entry."""


class MolecularOrbitals(NamedTuple):
    """Solutions of ``H C = S C diag(ε)``.

    Attributes:
        energies: ε, ``(kept,)``, ascending, Hartree. ``kept`` is the number of atomic orbitals, less the linearly
            dependent combinations.
        coefficients: C, ``(orbitals, kept)``, one column an orbital, with ``Cᵀ S C = 1``. Signs are arbitrary, and so
            are rotations of orbitals of one energy among each other.
    """

    energies: np.ndarray
    coefficients: np.ndarray


def molecular_orbitals(
    hamiltonian: np.ndarray, overlap: np.ndarray, threshold: float = LINEARLY_DEPENDENT
) -> MolecularOrbitals:
    """Return orbital energies and coefficients of a molecule.

    Args:
        hamiltonian: ``(orbitals, orbitals)``, symmetric.
        overlap: of the same shape and in the same order.
        threshold: see `orthogonal_combinations`.

    Raises:
        DataError: as `orthogonal_combinations` and `orbitals_in`.
    """
    return orbitals_in(hamiltonian, orthogonal_combinations(overlap, threshold))


def orthogonal_combinations(overlap: np.ndarray, threshold: float = LINEARLY_DEPENDENT) -> np.ndarray:
    """Return X, ``(orbitals, kept)``, with ``Xᵀ S X = 1``: canonical orthogonalisation.

        S = U diag(s) Uᵀ,    X = U s^(-1/2) of the columns with s > threshold

    Args:
        overlap: S, ``(orbitals, orbitals)``, symmetric.
        threshold: of s. QHBench sets s to it instead, which adds orbitals that do not exist; for the molecules of QH9,
            whose s are above 1e-4, the two are the same.

    Raises:
        DataError: no square, symmetric, finite matrix, or one that is not positive: no overlap.
    """
    _check(overlap, "overlap")
    eigenvalues, vectors = _eigh(overlap, "overlap")
    if eigenvalues.size and eigenvalues[0] < -threshold:
        raise DataError(
            f"The overlap of orbitals must be positive definite, it has the eigenvalue {eigenvalues[0]:.3g}: it is of "
            "another structure, or its orbitals are in mixed orders."
        )
    kept = eigenvalues > threshold
    return vectors[:, kept] / np.sqrt(eigenvalues[kept])


def orbitals_in(hamiltonian: np.ndarray, combinations: np.ndarray) -> MolecularOrbitals:
    """Return the orbitals of a Hamiltonian; several ones of one structure share the combinations.

    Args:
        hamiltonian: ``(orbitals, orbitals)``, symmetric.
        combinations: X as `orthogonal_combinations` returns it.

    Raises:
        DataError: no square, symmetric, finite matrix, or one of another size.
    """
    _check(hamiltonian, "Hamiltonian")
    if len(hamiltonian) != len(combinations):
        raise DataError(
            f"Hamiltonian and overlap must be of one size, got {len(hamiltonian)} and {len(combinations)} orbitals."
        )
    energies, vectors = _eigh(combinations.T @ hamiltonian @ combinations, "Hamiltonian")
    return MolecularOrbitals(energies, combinations @ vectors)


def closed_shells(num_orbitals: int, num_electrons: int) -> np.ndarray:
    """Return the electrons in each orbital, ``(num_orbitals,)``: 2 in the lowest ones, then 0.

    Args:
        num_orbitals: in ascending order of their energies.
        num_electrons: see :func:`mlip.data.quantum.num_electrons`.

    Raises:
        DataError: the number of electrons is odd, not positive, or more than the orbitals can hold.
    """
    occupied, odd = divmod(num_electrons, 2)
    if odd or not 0 < occupied <= num_orbitals:
        raise DataError(
            f"A closed-shell molecule has an even number of electrons, 2 to {2 * num_orbitals} in its {num_orbitals} "
            f"orbitals; there are {num_electrons}."
        )
    return np.where(np.arange(num_orbitals) < occupied, 2.0, 0.0)


def density_matrix(coefficients: np.ndarray, occupations: np.ndarray) -> np.ndarray:
    """Return ``C diag(occupations) Cᵀ``, ``(orbitals, orbitals)``, in the order of the coefficients."""
    return (coefficients * occupations) @ coefficients.T


def _check(matrix: np.ndarray, name: str) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"The {name} of orbitals must be a square matrix, its shape is {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise DataError(f"The {name} of orbitals must be finite, it has NaN or infinite entries.")
    # A solver would look at one half of it and say nothing.
    difference = np.abs(matrix - matrix.T).max(initial=0.0)
    if difference > ASYMMETRY * np.abs(matrix).max(initial=0.0):
        raise DataError(f"The {name} of orbitals must be symmetric, it differs from its transpose by {difference:.3g}.")


def _eigh(matrix: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        return eigh(matrix, check_finite=False)
    except LinAlgError as error:
        raise DataError(f"The {name} of orbitals cannot be diagonalised ({error}).") from error
