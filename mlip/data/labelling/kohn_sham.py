"""Restricted Kohn-Sham calculations with PySCF."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from mlip.core.errors import ConfigError
from mlip.data.labelling.base import Labeller, Labels, NotLabelled, wanted_fields
from mlip.data.orbitals import check_basis, reorder
from mlip.data.pyscf_extra import require_pyscf
from mlip.data.quantum import GRID_LEVEL, PYSCF_NAMES, functional_of, kohn_sham, molecule, pyscf_functional

LARGEST_GRID = 9


class KohnShamLabeller(Labeller):
    """Energies, forces and Fock matrices of restricted Kohn-Sham (or, with ``xc: hf``, Hartree-Fock) theory.

    The defaults are those of QH9 Stable and Dynamic-300k. A calculation that does not converge by DIIS goes on to
    second order from where it is. The Fock matrix is that of the final density. Forces have the response of the
    integration grid in them: they are derivatives of the energy to the last digits and add up to zero.

    Args:
        fields: what to compute: ``energy`` and, if wanted, ``hamiltonian`` and ``forces``.
        xc: functional by our name, see :data:`mlip.data.quantum.PYSCF_NAMES`: ``b3lyp5`` has VWN5, ``b3lyp`` VWN-RPA.
        basis: any that PySCF knows by name.
        grid_level: 0 to 9.
        conv_tol: Hartree; change of the energy in the last cycle.
        grad_tol: Hartree; norm of the orbital gradient in the last cycle.
        max_cycle: cycles by DIIS, and again to second order.

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
        self._basis, self._grid_level, self._max_cycle = basis.lower(), grid_level, max_cycle
        self._conv_tol, self._grad_tol = float(conv_tol), float(grad_tol)
        self.program = f"PySCF {version('pyscf')}"
        self.level_of_theory = {
            "method": "restricted Kohn-Sham",
            "functional": self._xc,
            "basis": self._basis,
            "grid_level": grid_level,
            "conv_tol": self._conv_tol,
            "grad_tol": self._grad_tol,
        }

    def check(self, numbers: np.ndarray) -> None:
        """Refuse molecules that can never be computed, see `Labeller.check`."""
        # Places do not matter for electrons and orbitals, but no two atoms may be at one.
        molecule(numbers, 3.0 * np.arange(len(numbers))[:, None] * np.array([1.0, 0.0, 0.0]), self._basis)

    def label(self, numbers: np.ndarray, positions: np.ndarray) -> Labels:
        """Compute one structure, see `Labeller.label`."""
        calculation = self._converged(numbers, positions)
        hamiltonian = forces = None
        if "hamiltonian" in self.fields:
            fock = np.asarray(calculation.get_fock(), dtype=np.float64)
            hamiltonian = reorder(fock, numbers, self._basis, "pyscf", "mlip")
        if "forces" in self.fields:
            gradient = calculation.nuc_grad_method()
            gradient.grid_response = True
            forces = -np.asarray(gradient.kernel(), dtype=np.float64)
        energy = float(calculation.e_tot)
        for value in (energy, hamiltonian, forces):
            if value is not None and not np.isfinite(value).all():
                raise NotLabelled("The calculation gave numbers that are not finite.")
        return Labels(energy, forces, hamiltonian, int(calculation.cycles))

    def _converged(self, numbers: np.ndarray, positions: np.ndarray) -> Any:
        calculation = kohn_sham(molecule(numbers, positions, self._basis), self._xc, self._grid_level)
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
