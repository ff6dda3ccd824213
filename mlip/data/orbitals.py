"""Atomic orbitals of a molecule: how many, which ones, and in which order the rows of a matrix list them.

An atom's orbitals come in shells of one degree l (0 is s, 1 is p, 2 is d, …), a shell in 2l + 1 orbitals of order
m = -l … l: real solid harmonics about the z axis, e.g. p = (y, z, x) and d = (xy, yz, z², xz, x² - y²). Atoms are
listed as the structure has them and shells as PySCF lists them: all s shells of the atom, then all p, then all d, ….
Programs differ in the order inside a shell:

| order   | p         | d                | others            |
|---------|-----------|------------------|-------------------|
| `mlip`  | y, z, x   | m = -2 … 2       | m = -l … l        |
| `pyscf` | x, y, z   | m = -2 … 2       | m = -l … l        |
| `orca`  | z, x, y   | m = 0, 1, -1, 2, -2 | refused, see below |

Between these no orbital changes its sign. ORCA's f and higher shells may do; they are refused until somebody has
checked them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import DataError, did_you_mean
from mlip.data.pyscf_extra import require_pyscf

ORDERS = ("mlip", "pyscf", "orca")
"""Orders of orbitals that `reorder` knows."""

ORCA_LARGEST_DEGREE = 2

_BUILT_IN: dict[str, dict[int, tuple[int, ...]]] = {
    "def2svp": {1: (0, 0, 1)} | {number: (0, 0, 0, 1, 1, 2) for number in (6, 7, 8, 9)},
}
"""Shells by basis and element, so that QH9 and MD17 are read without PySCF."""

_WELL_KNOWN = ("def2-svp", "def2-tzvp", "def2-qzvp", "sto-3g", "6-31g", "6-31g*", "6-311g**", "cc-pvdz", "cc-pvtz")


def basis_key(basis: str) -> str:
    """Return the name of a basis as it is compared: ``def2-SVP``, ``def2_svp`` and ``def2svp`` are one.

    Raises:
        DataError: no name.
    """
    if not isinstance(basis, str) or not re.fullmatch(r"[\w+*(),\- ]+", basis):
        raise DataError(f"A basis must be named, such as def2-svp, got {basis!r}.")
    return re.sub(r"[-_ ]", "", basis).lower()


def shells(basis: str, atomic_number: int) -> tuple[int, ...]:
    """Return the degree l of every shell of an element, in order, ``(0, 0, 0, 1, 1, 2)`` for carbon in def2-SVP.

    Args:
        basis: any basis that PySCF knows by name; def2-SVP of H, C, N, O and F is known without PySCF.
        atomic_number: of the element.

    Raises:
        DataError: an unknown basis, an element that it lacks, or PySCF is needed and not installed.
    """
    key, number = basis_key(basis), int(atomic_number)
    known = _BUILT_IN.get(key, {}).get(number)
    if known is not None:
        return known
    if not 1 <= number < len(chemical_symbols):
        raise DataError(f"Atomic numbers must be 1 to {len(chemical_symbols) - 1}, got {atomic_number}.")
    return _shells_by_pyscf(basis, key, number)


@lru_cache(maxsize=1024)
def _shells_by_pyscf(basis: str, key: str, number: int) -> tuple[int, ...]:
    """Ask PySCF for the shells of an element; general contractions count as several shells."""
    symbol = chemical_symbols[number]
    require_pyscf(f"knowing the orbitals of {symbol} in {basis}")
    from pyscf import gto

    parsed = _load_basis(key, symbol)
    if parsed is None:
        check_basis(basis)
        raise DataError(f"The basis {basis} has no orbitals for {symbol}. Choose another basis.")
    molecule = gto.Mole(atom=[[symbol, (0.0, 0.0, 0.0)]], basis={symbol: parsed}, spin=None, verbose=0)
    molecule.build(dump_input=False, parse_arg=False)
    return tuple(
        int(molecule.bas_angular(shell)) for shell in range(molecule.nbas) for _ in range(molecule.bas_nctr(shell))
    )


def check_basis(basis: str) -> None:
    """Refuse what is no name of a basis.

    Raises:
        DataError: PySCF does not know it, or is not installed and needed to tell.
    """
    key = basis_key(basis)
    if key in _BUILT_IN:
        return
    require_pyscf(f"knowing the basis {basis}")
    from pyscf import gto

    # Every basis has hydrogen or carbon, unless it is for heavy elements only.
    if key in gto.basis.ALIAS or any(_load_basis(key, symbol) for symbol in ("H", "C")):
        return
    names = {basis_key(name): name for name in _WELL_KNOWN}
    near = did_you_mean(key, [*names, *gto.basis.ALIAS])
    for short, readable in names.items():
        near = near.replace(f"'{short}'", f"'{readable}'")
    raise DataError(f"PySCF knows no basis '{basis}'.{near}")


def _load_basis(key: str, symbol: str) -> list[Any] | None:
    """Return the exponents and coefficients of an element, None if PySCF has none."""
    from pyscf import gto
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        with warnings.catch_warnings():
            # PySCF recommends another package where it does not know a name.
            warnings.simplefilter("ignore")
            return gto.basis.load(key, symbol)
    except (BasisNotFoundError, KeyError, AssertionError, ValueError, OSError):
        return None


def num_orbitals(numbers: Sequence[int] | np.ndarray, basis: str) -> int:
    """Return the number of orbitals of a structure, the rows of its matrices.

    Raises:
        DataError: as `shells`.
    """
    elements, counts = np.unique(np.asarray(numbers, dtype=np.int64), return_counts=True)
    per_element = [sum(2 * l + 1 for l in shells(basis, number)) for number in elements.tolist()]
    return int(np.dot(per_element, counts)) if len(per_element) else 0


@dataclass(frozen=True)
class Orbitals:
    """What each row of a matrix is, in the order `mlip`; every array has one entry an orbital.

    Attributes:
        atom: index of the atom.
        shell: index of the shell among those of its atom.
        rank: index of the shell among those of its atom that have the same degree: 0 for the first p shell.
        degree: l of the shell.
        order: m, -l … l.
    """

    atom: np.ndarray
    shell: np.ndarray
    rank: np.ndarray
    degree: np.ndarray
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.atom)


def orbital_table(numbers: Sequence[int] | np.ndarray, basis: str) -> Orbitals:
    """Return what each row of a structure's matrices is, in the order `mlip`.

    Args:
        numbers: atomic numbers of the structure.
        basis: as for `shells`.

    Raises:
        DataError: as `shells`.
    """
    rows: list[tuple[int, int, int, int, int]] = []
    for atom, number in enumerate(np.asarray(numbers).tolist()):
        of_degree: dict[int, int] = {}
        for shell, degree in enumerate(shells(basis, number)):
            rank = of_degree.setdefault(degree, 0)
            of_degree[degree] += 1
            rows += [(atom, shell, rank, degree, order) for order in range(-degree, degree + 1)]
    return Orbitals(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)


def permutation(numbers: Sequence[int] | np.ndarray, basis: str, source: str, target: str) -> np.ndarray:
    """Return the index ``p`` that brings orbitals from one order to another, ``in_target = in_source[p]``.

    Args:
        numbers: atomic numbers of the structure.
        basis: as for `shells`.
        source: order that the orbitals have, one of `ORDERS`.
        target: order that they get.

    Raises:
        DataError: an unknown order, ORCA's f shells, or as `shells`.
    """
    for name in (source, target):
        if name not in ORDERS:
            raise DataError(
                f"An order of orbitals must be one of {', '.join(ORDERS)}, got {name!r}."
                f"{did_you_mean(str(name), ORDERS)}"
            )
    parts, start = [np.zeros(0, dtype=np.int64)], 0
    for number in np.asarray(numbers).tolist():
        of_atom = _atom_permutation(shells(basis, number), source, target)
        parts.append(start + of_atom)
        start += len(of_atom)
    return np.concatenate(parts)


@lru_cache(maxsize=1024)
def _atom_permutation(degrees: tuple[int, ...], source: str, target: str) -> np.ndarray:
    """Return the permutation of one atom with these shells; shared, not to be changed."""
    index = np.empty(sum(2 * degree + 1 for degree in degrees), dtype=np.int64)
    start = 0
    for degree in degrees:
        # Orbital m stands at one place in the source and at another in the target.
        index[start + _shell_positions(target, degree)] = start + _shell_positions(source, degree)
        start += 2 * degree + 1
    index.flags.writeable = False
    return index


def _shell_positions(order: str, degree: int) -> np.ndarray:
    """Return where an order puts the orbitals m = -l … l of a shell."""
    if order == "pyscf" and degree == 1:
        return np.array([1, 2, 0])
    if order == "orca":
        if degree > ORCA_LARGEST_DEGREE:
            raise DataError(
                f"ORCA's order is known for s, p and d shells; this basis has a shell of degree {degree}, whose signs "
                "nobody has checked. Use matrices in PySCF's order."
            )
        # m = 0, 1, -1, 2, -2, …
        return np.array([2 * m - 1 if m > 0 else -2 * m for m in range(-degree, degree + 1)])
    return np.arange(2 * degree + 1)


def reorder(
    matrix: np.ndarray, numbers: Sequence[int] | np.ndarray, basis: str, source: str, target: str
) -> np.ndarray:
    """Return matrices over orbitals with rows and columns in another order; no signs change.

    Args:
        matrix: ``(..., orbitals, orbitals)``.
        numbers: atomic numbers of the structure.
        basis: as for `shells`.
        source: order that the matrix has, one of `ORDERS`.
        target: order that it gets.

    Raises:
        DataError: a matrix of another size, or as `permutation`.
    """
    index = permutation(numbers, basis, source, target)
    if matrix.shape[-2:] != (len(index), len(index)):
        raise DataError(
            f"A matrix of this structure in {basis} must have shape ({len(index)}, {len(index)}), got "
            f"{matrix.shape[-2:]}."
        )
    return matrix[..., index[:, None], index]
