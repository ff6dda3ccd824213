"""One row of QH9 as the file has it, and the checks that its raw numbers must pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase.data import atomic_numbers

from mlip.core.errors import DataError
from mlip.data.datasets.orbital_matrices import raw_numbers, short
from mlip.data.datasets.qh9_record import Record

HEAVIEST = atomic_numbers["Og"]


@dataclass(frozen=True)
class RawRow:
    """One row, checked, in the file's units and order.

    Attributes:
        numbers: (atoms,) int64.
        positions: (atoms, 3) in the file's unit.
        hamiltonian: (orbitals, orbitals) Hartree, PySCF's order.
        initial: the initial guess, likewise, where the file has one.
        molecule: the row's id: a molecule's in QM9.
        frame: geo_id, where the file has it.
        energy: Hartree, where the file has it.
        forces: (atoms, 3) Hartree/Bohr, where the file has them.
        converged: whether the SCF did, as far as the file says.
    """

    numbers: np.ndarray
    positions: np.ndarray
    hamiltonian: np.ndarray
    initial: np.ndarray | None = None
    molecule: int | None = None
    frame: int | None = None
    energy: float | None = None
    forces: np.ndarray | None = None
    converged: bool = True


class Rows(Protocol):
    """The rows of a file, by position.

    Attributes:
        dynamic: whether the rows are frames of trajectories; None if the layout does not say.
        layout: name of the layout.
        has_energy: whether rows have an energy.
        has_initial: whether rows have an initial guess.
        record: how the rows were computed, where the file says it: those of ``mlip data label`` do.
    """

    dynamic: bool | None
    layout: str
    has_energy: bool
    has_initial: bool
    record: Record | None

    def __len__(self) -> int: ...

    def read(self, position: int, where: str, basis: str) -> RawRow:
        """Return one row."""

    def geometry(self, position: int, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Return atomic numbers and positions of a row, without reading its matrices where possible."""

    def molecules(self) -> np.ndarray | None:
        """Return (rows,) ids without reading the matrices, None if that is not possible."""

    def num_atoms(self) -> np.ndarray | None:
        """Return (rows,) atoms, likewise."""

    def unconverged(self) -> np.ndarray:
        """Return the positions of rows whose SCF did not converge, sorted."""

    def num_bytes(self) -> int:
        """Return the size of the file."""


def geometry(count: Any, numbers: Any, positions: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return checked atomic numbers (atoms,) and positions (atoms, 3) of a row.

    Args:
        count: number of atoms, as the row states it.
        numbers: int32 numbers as bytes or an array.
        positions: float64 numbers likewise.
        where: names the row in messages.

    Raises:
        DataError: they do not fit together, or cannot be right.
    """
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise DataError(f"{where}: the number of atoms must be a positive integer, got {short(count)}.")
    elements = raw_numbers(numbers, "<i4", (int(count),), "atomic numbers", where).astype(np.int64)
    if elements.min() < 1 or elements.max() > HEAVIEST:
        raise DataError(f"{where}: atomic numbers must be 1 to {HEAVIEST}, got {sorted(set(elements.tolist()))}.")
    return elements, raw_numbers(positions, "<f8", (int(count), 3), "positions", where)


def identity(value: Any, where: str) -> int:
    """Return an id, which some files hold as an integer and others as its eight bytes.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, bytes) and len(value) == 8:
        return int.from_bytes(value, "little", signed=True)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise DataError(f"{where}: the id must be an integer or one of 8 bytes, got {short(value)}.")
