"""QH9 as published: SQLite files with raw blobs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.datasets.orbital_matrices import orbital_matrix
from mlip.data.datasets.qh9_record import read_record, read_results
from mlip.data.datasets.qh9_rows import RawRow, geometry, identity
from mlip.data.formats.sqlite_file import SqliteFile

TABLE = "data"
LARGEST_ENERGY = 1e7
"""Hartree."""

STABLE_COLUMNS = ("id", "N", "Z", "pos", "Ham")
DYNAMIC_COLUMNS = ("geo_id", "epot", "converged")


class SqliteRows:
    """Rows of ``QH9Stable.db``, ``QH9Dynamic_300k.db`` and their like, in the order of the file.

    The list of rows is made when it is first needed: one pass over the table that leaves the matrices out. It
    travels with a pickled object.

    Raises:
        DataError: no SQLite file, or another table.
    """

    layout = "sqlite"
    has_initial = False

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = SqliteFile(path)
        columns = self._file.columns(TABLE)
        missing = [name for name in STABLE_COLUMNS if name not in columns]
        if missing:
            has = f"'{TABLE}' lacks {', '.join(missing)}" if columns else f"there: {', '.join(self._file.tables())}"
            raise DataError(
                f"'{path}' is not a QH9 file: a table '{TABLE}' with {', '.join(STABLE_COLUMNS)} was expected, {has}."
            )
        self.dynamic: bool | None = "geo_id" in columns
        if self.dynamic and not set(DYNAMIC_COLUMNS) <= set(columns):
            lacking = ", ".join(name for name in DYNAMIC_COLUMNS if name not in columns)
            raise DataError(f"'{path}' is like QH9 Dynamic, but its table '{TABLE}' lacks {lacking}.")
        self.record = read_record(self._file)
        self.has_energy = bool(self.dynamic) or self.record is not None

    def __len__(self) -> int:
        return len(self._index[0])

    @cached_property
    def _index(self) -> tuple[Sequence[int] | np.ndarray, np.ndarray, np.ndarray]:
        """Row ids of SQLite, ids of molecules (-1: unreadable) and numbers of atoms (0: unreadable)."""
        found = [
            (rowid, _integer(number, -1), count if isinstance(count, int) and count > 0 else 0)
            for rowid, number, count in self._file.rows(f"SELECT rowid, id, N FROM {TABLE} ORDER BY rowid")
        ]
        if not found:
            raise DataError(f"'{self._file.path}' has no rows.")
        try:
            rowids, molecules, counts = np.array(found, dtype=np.int64).T
        except OverflowError as error:
            raise DataError(f"'{self._file.path}' has ids or sizes that are no 64-bit integers.") from error
        if (np.diff(rowids) <= 0).any():
            raise DataError(f"'{self._file.path}' is damaged: its rows are not in order. Copy or download it again.")
        first, last = int(rowids[0]), int(rowids[-1])
        contiguous = last - first + 1 == len(rowids)
        return range(first, last + 1) if contiguous else rowids.copy(), molecules.copy(), counts.copy()

    def read(self, position: int, where: str, basis: str) -> RawRow:
        """Return one row.

        Raises:
            DataError: it is damaged.
        """
        names = ("id", "N", "Z", "pos", "Ham", *(DYNAMIC_COLUMNS if self.dynamic else ()))
        row = self._row(position, names, where)
        numbers, positions = geometry(row["N"], row["Z"], row["pos"], where)
        hamiltonian = orbital_matrix(row["Ham"], numbers, basis, "Hamiltonian", where)
        molecule = identity(row["id"], where)
        frame = identity(row["geo_id"], where) if self.dynamic else None
        energy = forces = None
        if self.record is not None:
            energy, forces = read_results(self._file, self.record, molecule, frame or 0, len(numbers), where)
        if not self.dynamic:
            return RawRow(numbers, positions, hamiltonian, molecule=molecule, energy=energy, forces=forces)
        energy, converged = row["epot"], row["converged"]
        if not isinstance(energy, float | int) or not abs(energy) < LARGEST_ENERGY:
            raise DataError(f"{where}: the energy epot must be a number of Hartree, got {energy!r}.")
        if converged not in (0, 1):
            raise DataError(f"{where}: converged must be 0 or 1, got {converged!r}.")
        return RawRow(
            numbers,
            positions,
            hamiltonian,
            molecule=molecule,
            frame=frame,
            energy=float(energy),
            forces=forces,
            converged=bool(converged),
        )

    def geometry(self, position: int, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Return atomic numbers and positions of a row without reading its matrix.

        Raises:
            DataError: they are damaged.
        """
        row = self._row(position, ("N", "Z", "pos"), where)
        return geometry(row["N"], row["Z"], row["pos"], where)

    def molecules(self) -> np.ndarray:
        """Return (rows,) ids."""
        return self._index[1]

    def num_atoms(self) -> np.ndarray:
        """Return (rows,) atoms."""
        return self._index[2]

    def unconverged(self) -> np.ndarray:
        """Return the positions of rows with ``converged = 0``; reads through the file."""
        if not self.dynamic:
            return np.zeros(0, dtype=np.int64)
        rows = self._file.rows(f"SELECT converged FROM {TABLE} ORDER BY rowid")
        return np.array([position for position, (flag,) in enumerate(rows) if flag == 0], dtype=np.int64)

    def num_bytes(self) -> int:
        """Return the size of the file."""
        return self._file.path.stat().st_size

    def _row(self, position: int, names: tuple[str, ...], where: str) -> dict[str, Any]:
        rowid = int(self._index[0][position])
        found = self._file.all(f"SELECT {', '.join(names)} FROM {TABLE} WHERE rowid = ?", (rowid,))
        if len(found) != 1:
            raise DataError(f"{where}: the row {rowid} is listed in the file, but not there; the file is damaged.")
        return dict(zip(names, found[0], strict=True))


def _integer(value: Any, otherwise: int) -> int:
    try:
        return identity(value, "")
    except DataError:
        return otherwise
