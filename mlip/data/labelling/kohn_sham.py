"""Kohn-Sham calculations with PySCF."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from mlip.core.errors import ConfigError
from mlip.data.labelling.base import Labeller, Labels, NotLabelled, wanted_fields
from mlip.data.labelling.structures import Structure, Takes
from mlip.data.orbitals import check_basis, reorder
from mlip.data.pyscf_extra import require_pyscf
from mlip.data.quantum import GRID_LEVEL, PYSCF_NAMES, functional_of, kohn_sham, molecule, pyscf_functional

LARGEST_GRID = 9


class KohnShamLabeller(Labeller):
    """Energies, forces and Fock matrices of Kohn-Sham (or, with ``xc: hf``, Hartree-Fock) theory.

    The defaults are those of QH9 Stable and Dynamic-300k. A calculation that does not converge by DIIS goes on to
    second order from where it is. The Fock matrix is that of the final density. Forces have the response of the
    integration grid in them: they are derivatives of the energy to the last digits and add up to zero. Without the
    Hamiltonian, charged molecules and open shells (unrestricted) can be computed, too.

    Args:
        fields: what to compute: ``energy`` and, if wanted, ``hamiltonian`` and ``forces``.
        xc: functional by our name, see :data:`mlip.data.quantum.PYSCF_NAMES`: ``b3lyp5`` has VWN5, ``b3lyp`` VWN-RPA.
        basis: any that PySCF knows by name.
        grid_level: 0 to 9.
        conv_tol: Hartree; change of the energy in the last cycle.
        grad_tol: Hartree; norm of the orbital gradient in the last cycle.
        max_cycle: cycles by DIIS, and again to second order.
        density_fit: approximate the Coulomb integrals by density fitting, with the auxiliary basis of the program.
        memory: MB that a process may use for integrals; None for the program's choice.

    Raises:
        ConfigError: a setting out of its range.
        DataError: an unknown functional or basis, or PySCF is not installed.
    """

    def __init__(
        self,
        fields: Sequence[str] = ("energy", "hamiltonian"),
        xc: str = "b3lyp5",
        basis: str = "def2-svp",
        grid_level: int = GRID_LEVEL,
        conv_tol: float = 1e-13,
        grad_tol: float = 3.16e-5,
        max_cycle: int = 100,
        density_fit: bool = False,
        memory: float | None = None,
    ) -> None:
        require_pyscf("computing labels")
        self.fields = wanted_fields(tuple(fields))
        self._xc = _our_name(xc)
        pyscf_functional(self._xc)
        check_basis(basis)
        if isinstance(grid_level, bool) or not isinstance(grid_level, int) or not 0 <= grid_level <= LARGEST_GRID:
            raise ConfigError(f"grid_level must be 0 to {LARGEST_GRID}, got {grid_level!r}.")
        if isinstance(max_cycle, bool) or not isinstance(max_cycle, int) or max_cycle < 1:
            raise ConfigError(f"max_cycle must be at least 1, got {max_cycle!r}.")
        for name, value in (("conv_tol", conv_tol), ("grad_tol", grad_tol)):
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise ConfigError(f"{name} must be a small positive number of Hartree, such as 1e-11, got {value!r}.")
        if memory is not None and not memory > 0:
            raise ConfigError(f"memory must be a positive number of MB, got {memory!r}.")
        if density_fit and "hamiltonian" in self.fields:
            raise ConfigError("Hamiltonians are computed without density fitting: leave it out.")
        self._density_fit, self._memory = bool(density_fit), memory
        self._basis, self._grid_level, self._max_cycle = basis.lower(), grid_level, max_cycle
        self._conv_tol, self._grad_tol = float(conv_tol), float(grad_tol)
        self.program = f"PySCF {version('pyscf')}"
        closed = "hamiltonian" in self.fields
        self.takes = Takes.closed_shell if closed else Takes.molecules
        self.level_of_theory = {
            "method": "restricted Kohn-Sham" if closed else "Kohn-Sham, unrestricted for open shells",
            "functional": self._xc,
            "basis": self._basis,
            "grid_level": grid_level,
            "conv_tol": self._conv_tol,
            "grad_tol": self._grad_tol,
            **({"density_fit": True} if density_fit else {}),
        }

    def check(self, numbers: np.ndarray) -> None:
        """Refuse molecules that can never be computed, see `Labeller.check`."""
        self._check(numbers, 0, 1)

    def check_structure(self, structure: Structure) -> None:
        """Refuse molecules that can never be computed, see `Labeller.check_structure`."""
        self._check(structure.numbers, structure.charge, structure.spin)

    def _check(self, numbers: np.ndarray, charge: int, spin: int) -> None:
        # Places do not matter for electrons and orbitals, but no two atoms may be at one.
        apart = 3.0 * np.arange(len(numbers))[:, None] * np.array([1.0, 0.0, 0.0])
        molecule(numbers, apart, self._basis, charge, spin)

    def label(self, numbers: np.ndarray, positions: np.ndarray) -> Labels:
        """Compute one neutral closed-shell structure, see `Labeller.label`."""
        return self._labels(numbers, positions, 0, 1)

    def compute(self, structure: Structure) -> Labels:
        """Compute one structure, see `Labeller.compute`."""
        return self._labels(structure.numbers, structure.positions, structure.charge, structure.spin)

    def _labels(self, numbers: np.ndarray, positions: np.ndarray, charge: int, spin: int) -> Labels:
        calculation = self._converged(molecule(numbers, positions, self._basis, charge, spin))
        hamiltonian = forces = None
        if "hamiltonian" in self.fields:
            fock = np.asarray(calculation.get_fock(), dtype=np.float64)
            hamiltonian = reorder(fock, numbers, self._basis, "pyscf", "mlip")
        if "forces" in self.fields:
            gradient = calculation.nuc_grad_method()
            # Hartree-Fock needs no grid, and PySCF fails if it is asked for that of an open shell.
            gradient.grid_response = self._xc != "hf"
            forces = -np.asarray(gradient.kernel(), dtype=np.float64)
        energy = float(calculation.e_tot)
        for value in (energy, hamiltonian, forces):
            if value is not None and not np.isfinite(value).all():
                raise NotLabelled("The calculation gave numbers that are not finite.")
        return Labels(energy, forces, hamiltonian, int(calculation.cycles))

    def _converged(self, mol: Any) -> Any:
        calculation = kohn_sham(mol, self._xc, self._grid_level)
        if self._density_fit:
            calculation = calculation.density_fit()
        if self._memory is not None:
            calculation.max_memory = self._memory
        calculation.conv_tol, calculation.conv_tol_grad = self._conv_tol, self._grad_tol
        calculation.max_cycle = self._max_cycle
        calculation.kernel()
        if calculation.converged:
            return calculation
        second = calculation.newton()
        second.kernel(calculation.mo_coeff, calculation.mo_occ)
        if not second.converged:
            raise NotLabelled(f"The SCF did not converge in {self._max_cycle} cycles, nor to second order.")
        calculation.mo_coeff, calculation.mo_occ = second.mo_coeff, second.mo_occ
        calculation.mo_energy, calculation.e_tot = second.mo_energy, second.e_tot
        calculation.converged = True
        return calculation


def _our_name(xc: str) -> str:
    """Return the functional by our name, which is that of today's PySCF in small letters but for B3LYP."""
    if not isinstance(xc, str) or not xc.strip():
        raise ConfigError(f"xc must name a functional, such as b3lyp5, got {xc!r}.")
    key = functional_of(xc, version("pyscf"))
    return key if key in PYSCF_NAMES else xc.strip().lower()
