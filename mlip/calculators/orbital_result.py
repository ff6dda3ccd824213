"""A Hamiltonian of one molecule, with the orbitals that it has: matrices, what their rows are, and what follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.core.units import BOHR
from mlip.data import quantum
from mlip.data.molecular_orbitals import closed_shells, density_matrix, molecular_orbitals
from mlip.data.orbitals import permutation


@dataclass(frozen=True, eq=False)
class OrbitalResult:
    """Matrices over atomic orbitals in Hartree; what was not asked for is None.

    Attributes:
        numbers: (atoms,) atomic numbers.
        positions: (atoms, 3) Å.
        basis: name of the basis.
        functional: level of theory of the training data, None if these do not say.
        order: how rows and columns are ordered, one of :data:`mlip.data.orbitals.ORDERS`.
        hamiltonian: (orbitals, orbitals), symmetric, Hartree.
        overlap: (orbitals, orbitals), exact.
        orbital_energies: (kept,) ε of ``H C = S C ε``, ascending, Hartree; as many as there are atomic orbitals, less
            the linearly dependent combinations of a large basis.
        coefficients: (orbitals, kept) C, one orbital a column, ``Cᵀ S C = 1``, its largest coefficient positive.
        occupations: (kept,) electrons in each orbital, 2 or 0.
    """

    numbers: np.ndarray
    positions: np.ndarray
    basis: str
    functional: str | None
    order: str
    hamiltonian: np.ndarray
    overlap: np.ndarray | None = None
    orbital_energies: np.ndarray | None = None
    coefficients: np.ndarray | None = None
    occupations: np.ndarray | None = None

    @property
    def num_orbitals(self) -> int:
        """Rows of the matrices."""
        return len(self.hamiltonian)

    @property
    def num_electrons(self) -> int:
        """Electrons in the occupied orbitals; those in effective core potentials are not among them."""
        return int(self._asked(self.occupations, "occupations").sum())

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, Hartree."""
        return float(self._asked(self.orbital_energies, "orbital energies")[self.homo_index])

    @property
    def lumo(self) -> float | None:
        """Energy of the lowest unoccupied orbital, Hartree; None if all are occupied."""
        energies = self._asked(self.orbital_energies, "orbital energies")
        return float(energies[self.homo_index + 1]) if self.homo_index + 1 < len(energies) else None

    @property
    def gap(self) -> float | None:
        """LUMO minus HOMO, Hartree; None without a LUMO."""
        return None if self.lumo is None else self.lumo - self.homo

    @property
    def homo_index(self) -> int:
        """Column of the highest occupied orbital; the next one is the LUMO."""
        return self.num_electrons // 2 - 1

    @property
    def density(self) -> np.ndarray:
        """Density matrix of the occupied orbitals, (orbitals, orbitals)."""
        coefficients = self._asked(self.coefficients, "coefficients")
        return density_matrix(coefficients, self._asked(self.occupations, "occupations"))

    def with_overlap(self) -> OrbitalResult:
        """Return the result with its overlap, through PySCF.

        Raises:
            DataError: PySCF is not installed, or as :func:`mlip.data.quantum.overlap`.
        """
        if self.overlap is not None:
            return self
        exact = quantum.overlap(self.numbers, self.positions, self.basis)
        index = permutation(self.numbers, self.basis, "mlip", self.order)
        return replace(self, overlap=exact[index[:, None], index])

    def with_orbitals(self) -> OrbitalResult:
        """Return the result with energies, coefficients and occupations of its orbitals, through PySCF.

        Raises:
            DataError: as `with_overlap`, or overlaps that are not positive definite.
        """
        if self.coefficients is not None:
            return self
        found = self.with_overlap()
        energies, coefficients = molecular_orbitals(found.hamiltonian, self._asked(found.overlap, "overlap"))
        largest = np.abs(coefficients).argmax(axis=0)
        signs = np.sign(coefficients[largest, np.arange(len(largest))])
        return replace(
            found,
            orbital_energies=energies,
            coefficients=coefficients * signs,
            occupations=closed_shells(len(energies), quantum.num_electrons(self.numbers, self.basis)),
        )

    def in_order(self, order: str) -> OrbitalResult:
        """Return the result with the rows (and columns) of all matrices in another order.

        Raises:
            DataError: an unknown order, or f shells in ORCA's.
        """
        index = permutation(self.numbers, self.basis, self.order, order)
        square = index[:, None], index
        return replace(
            self,
            order=order,
            hamiltonian=self.hamiltonian[square],
            overlap=None if self.overlap is None else self.overlap[square],
            coefficients=None if self.coefficients is None else self.coefficients[index],
        )

    def mol(self) -> Any:
        """Return the ``pyscf.gto.Mole``; its orbitals are in the order `pyscf`.

        Raises:
            DataError: PySCF is not installed.
        """
        return quantum.molecule(self.numbers, self.positions, self.basis)

    def dipole(self) -> np.ndarray:
        """Return the dipole moment of the density and the nuclei, (3,) e·Å (ASE's unit).

        Raises:
            DataError: the orbitals were not asked for, or PySCF is not installed.
        """
        mol = self.mol()
        density = self.in_order("pyscf").density
        charges, positions = mol.atom_charges(), mol.atom_coords()
        electronic = np.einsum("xij,ji->x", mol.intor_symmetric("int1e_r", comp=3), density)
        return (charges @ positions - electronic) * BOHR

    def _asked(self, value: np.ndarray | None, name: str) -> np.ndarray:
        if value is None:
            raise DataError(f"The {name} were not asked for: use predict(atoms, orbitals=True), or with_orbitals().")
        return value
