"""Units inside the package, and the factors that adapters use to get there.

Inside: eV, Å, eV/Å, eV/Å³, amu, fs, K. Hartree and Bohr appear in Hamiltonians only. Values are ASE's
CODATA constants, so that a calculator and an adapter never disagree in the last digits.
"""

from ase import units as _ase

HARTREE: float = _ase.Hartree
"""1 Hartree in eV."""

BOHR: float = _ase.Bohr
"""1 Bohr in Å."""

KCAL_PER_MOL: float = _ase.kcal / _ase.mol
"""1 kcal/mol in eV."""

KBAR: float = 0.1 * _ase.GPa
"""1 kbar in eV/Å³. VASP's stress has the opposite sign of ASE's on top of it."""

GPA: float = _ase.GPa
"""1 GPa in eV/Å³."""

FS: float = _ase.fs
"""1 fs in ASE's unit of time (Å·sqrt(amu/eV)), for calls into ASE's integrators."""

KB: float = _ase.kB
"""Boltzmann's constant in eV/K."""

MEV: float = 1e-3
"""1 meV in eV."""

KJ_PER_MOL: float = _ase.kJ / _ase.mol
"""1 kJ/mol in eV."""

ANGSTROM_PER_NM: float = 10.0
"""1 nm in Å."""
