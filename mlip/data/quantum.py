"""Matrices of a molecule through PySCF: overlap, core Hamiltonian, initial guess.

All matrices are in the order `mlip` of :mod:`mlip.data.orbitals`, Hartree. PySCF is optional (``mlip-kit[qm]``) and
only imported where it is used. What needs none is in :mod:`mlip.data.molecular_orbitals`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import DataError, did_you_mean
from mlip.core.units import BOHR
from mlip.data.orbitals import basis_key, num_orbitals, permutation, shells
from mlip.data.pyscf_extra import require_pyscf

GRID_LEVEL = 3
"""Integration grid of QH9, and PySCF's own default."""

PYSCF_NAMES = {"b3lyp5": "b3lyp5", "b3lyp": "b3lypg"}
"""What every PySCF must be told for a functional of ours whose name has had two meanings.

``b3lyp5`` has the local correlation VWN5 (ORCA, Turbomole, QH9 Stable and Dynamic-300k); ``b3lyp`` has VWN's RPA
fit (Gaussian, QH9 Dynamic-100k). PySCF called the first one ``b3lyp`` before its version 2.3, the second one since;
``b3lypg`` has always been the second one. They differ by millihartrees.
"""

_FIRST_WITH_VWN_RPA = (2, 3)
_HEAVIEST_WITHOUT_ECP = 36
"""Of the def2 bases. Others (LANL2DZ, SBKJC, cc-pVDZ-PP, …) may have effective core potentials from lithium on."""

_OTHER_POTENTIALS = re.compile("gth|ccecp|bfdv")
"""Bases whose potentials PySCF keeps under other names; with all electrons their orbitals would be nonsense."""


def functional_of(name: str, pyscf_version: str) -> str:
    """Return our name of the functional that a version of PySCF used when it was told a name.

    >>> functional_of("b3lyp", "2.2.1"), functional_of("b3lyp", "2.14.0")
    ('b3lyp5', 'b3lyp')
    """
    key = re.sub(r"[-_ ]", "", name).lower()
    if key == "b3lypg":
        return "b3lyp"
    if key != "b3lyp":
        return key
    version = tuple(int(part) for part in re.findall(r"\d+", pyscf_version)[:2])
    return "b3lyp" if version >= _FIRST_WITH_VWN_RPA else "b3lyp5"


def pyscf_functional(functional: str) -> str:
    """Return what the installed PySCF is to be told for a functional, by our name.

    Raises:
        DataError: PySCF is not installed or does not know it.
    """
    require_pyscf(f"computing with {functional}")
    from pyscf.dft import libxc

    key = re.sub(r"[_ ]", "", str(functional)).lower()
    name = PYSCF_NAMES.get(key.replace("-", ""), key)
    try:
        hybrid, parts = libxc.parse_xc(name)
    except (KeyError, ValueError, NotImplementedError) as error:
        near = did_you_mean(key, ("b3lyp5", "b3lyp", "pbe", "pbe0", "blyp", "r2scan", "wb97x-v", "m06-2x"))
        raise DataError(f"PySCF knows no functional '{functional}'.{near}") from error
    if not parts and not any(hybrid):
        raise DataError(f"A functional must be named, such as b3lyp5, got {functional!r}.")
    return name


def molecule(
    numbers: Sequence[int] | np.ndarray, positions: np.ndarray, basis: str, charge: int = 0, spin: int = 1
) -> Any:
    """Return the ``pyscf.gto.Mole`` of a structure.

    Args:
        numbers: atomic numbers.
        positions: (atoms, 3) Å; turned into Bohr with the package's own constant.
        basis: see :func:`mlip.data.orbitals.shells`; elements get the effective core potential that the basis has for
            them.
        charge: e.
        spin: multiplicity 2S + 1.

    Raises:
        DataError: electrons that do not fit the multiplicity, positions that are not finite, a pseudopotential
            (gth-…, ccecp-…), no PySCF, or as `shells`.
    """
    require_pyscf("computing matrices")
    from pyscf import gto

    key = basis_key(basis)
    if _OTHER_POTENTIALS.match(key):
        raise DataError(f"The basis {basis} belongs to a pseudopotential, which is not supported. Use def2-svp.")
    elements = sorted({int(number) for number in numbers})
    for number in elements:
        shells(basis, number)
    if not np.isfinite(positions).all():
        raise DataError(f"The positions of {_formula(numbers)} must be finite numbers.")
    electrons = int(np.sum(np.asarray(numbers))) - charge
    if spin > 1 and (electrons % 2 == spin % 2 or electrons < spin - 1):
        raise DataError(
            f"{_formula(numbers)} with charge {charge} has {electrons} electrons, which cannot have the multiplicity "
            f"{spin} (2S + 1)."
        )
    if spin == 1 and (electrons % 2 or electrons <= 0):
        raise DataError(
            f"A closed-shell molecule needs an even number of electrons, {_formula(numbers)} with charge {charge} has "
            f"{electrons}. Give its charge; open shells are not supported."
        )
    ecp = _core_potentials(elements, key)
    atoms = [(chemical_symbols[number], tuple(xyz)) for number, xyz in zip(numbers, np.asarray(positions) / BOHR)]
    built = gto.Mole(atom=atoms, basis=key, ecp=ecp, charge=charge, spin=spin - 1, unit="Bohr", verbose=0)
    return built.build(dump_input=False, parse_arg=False)


def num_electrons(numbers: Sequence[int] | np.ndarray, basis: str, charge: int = 0) -> int:
    """Return how many electrons are in the orbitals of a structure: without those of an effective core potential.

    Args:
        numbers: atomic numbers.
        basis: as for `molecule`; PySCF is asked where it may have effective core potentials.
        charge: e.

    Raises:
        DataError: PySCF must be asked and is not installed.
    """
    elements, counts = np.unique(np.asarray(numbers, dtype=np.int64), return_counts=True)
    electrons, key = int(np.dot(elements, counts)) - charge, basis_key(basis)
    if len(elements) and (elements[-1] > _HEAVIEST_WITHOUT_ECP or not key.startswith("def2")):
        require_pyscf(f"counting the electrons of {_formula(numbers)} in {basis}")
        potentials = _core_potentials(elements.tolist(), key)
        for number, count in zip(elements.tolist(), counts.tolist()):
            # An effective core potential begins with the number of electrons that it stands for.
            electrons -= count * int(potentials.get(chemical_symbols[number], [0])[0])
    return electrons


def _core_potentials(elements: Sequence[int], key: str) -> dict[str, Any]:
    """Return PySCF's effective core potentials of a basis, by symbol, for those elements that have one."""
    found = {chemical_symbols[number]: _core_potential(key, chemical_symbols[number]) for number in elements}
    return {symbol: potential for symbol, potential in found.items() if potential}


def _core_potential(key: str, symbol: str) -> list[Any] | None:
    from pyscf import gto
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        with warnings.catch_warnings():
            # PySCF recommends another package where it has none.
            warnings.simplefilter("ignore")
            return gto.basis.load_ecp(key, symbol)
    except (BasisNotFoundError, KeyError, AssertionError, ValueError, OSError, RuntimeError):
        return None


def kohn_sham(mol: Any, functional: str, grid_level: int = GRID_LEVEL) -> Any:
    """Return the Kohn-Sham calculation of a molecule, unrestricted if it has an open shell, not run yet.

    Args:
        mol: as `molecule` returns it.
        functional: our name of it, see `PYSCF_NAMES`.
        grid_level: 0 to 9.

    Raises:
        DataError: as `pyscf_functional`.
    """
    from pyscf import dft

    kind = dft.UKS if mol.spin else dft.RKS
    calculation = kind(mol, xc=pyscf_functional(functional))
    calculation.grids.level = grid_level
    return calculation


def overlap(numbers: Sequence[int] | np.ndarray, positions: np.ndarray, basis: str) -> np.ndarray:
    """Return the overlaps of the orbitals, (orbitals, orbitals); positions in Å.

    Raises:
        DataError: as `molecule`, but any number of electrons will do.
    """
    # With an electron more where their number is odd: hydrogen has only one to take away.
    charge = -(int(np.sum(np.asarray(numbers))) % 2)
    mol = molecule(numbers, positions, basis, charge)
    return _in_package_order(mol.intor_symmetric("int1e_ovlp"), numbers, basis)


def initial_hamiltonian(
    numbers: Sequence[int] | np.ndarray,
    positions: np.ndarray,
    basis: str,
    functional: str,
    charge: int = 0,
    grid_level: int = GRID_LEVEL,
) -> np.ndarray:
    """Return the Fock matrix of the `minao` guess density, (orbitals, orbitals) Hartree; positions in Å.

    It is what a self-consistent calculation with the same functional would start from. Costs about as much as one
    of its cycles.

    Raises:
        DataError: as `molecule` and `pyscf_functional`.
    """
    calculation = kohn_sham(molecule(numbers, positions, basis, charge), functional, grid_level)
    fock = calculation.get_fock(dm=calculation.init_guess_by_minao())
    return _in_package_order(np.asarray(fock), numbers, basis)


def check_overlap(stored: np.ndarray, numbers: Sequence[int] | np.ndarray, positions: np.ndarray, basis: str) -> float:
    """Return the largest difference between an overlap and the one that PySCF computes for the same structure.

    A large one means another basis, another order of orbitals, or positions in another unit.

    Args:
        stored: (orbitals, orbitals) in the order `mlip`.
        numbers: atomic numbers.
        positions: Å.
        basis: see :func:`mlip.data.orbitals.shells`.

    Raises:
        DataError: as `overlap`.
    """
    return float(np.abs(stored - overlap(numbers, positions, basis)).max())


def _in_package_order(matrix: np.ndarray, numbers: Sequence[int] | np.ndarray, basis: str) -> np.ndarray:
    index = permutation(numbers, basis, "pyscf", "mlip")
    if len(index) != len(matrix):
        raise DataError(f"PySCF has {len(matrix)} orbitals in {basis}, {num_orbitals(numbers, basis)} were expected.")
    return np.ascontiguousarray(matrix[index[:, None], index], dtype=np.float64)


def _formula(numbers: Sequence[int] | np.ndarray) -> str:
    found, counts = np.unique(np.asarray(numbers), return_counts=True)
    return "".join(f"{chemical_symbols[n]}{c if c > 1 else ''}" for n, c in zip(found.tolist(), counts.tolist()))
