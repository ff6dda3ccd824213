"""Rows of ASE databases, `.aselmdb`, sqlite `.db` and `.json`, and frames of `.traj`, as plain dicts."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from glob import glob
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlip.core.errors import DataError, did_you_mean
from mlip.data.formats.ase_rows_json import BEGINNING, JsonTable
from mlip.data.formats.ase_rows_lmdb import LmdbTable
from mlip.data.formats.ase_rows_sqlite import SqliteTable
from mlip.data.formats.ase_rows_traj import MAGIC as TRAJ_MAGIC
from mlip.data.formats.ase_rows_traj import TrajTable
from mlip.data.formats.open_files import OpenFiles
from mlip.data.formats.sqlite_file import MAGIC

SUFFIXES = (".aselmdb", ".db")
"""What is taken for a database in a folder."""
TRAJECTORIES = (".traj",)
"""What is taken in a folder without databases."""


class RowTable(Protocol):
    """The rows of one file."""

    path: Path
    ids: Sequence[int]

    def row(self, position: int) -> dict[str, Any]:
        """Return a row by its position in the file, see `AseRows.row`."""

    def num_atoms(self) -> np.ndarray | None:
        """Return (rows,) atoms if the file has a table of them, else None."""

    def close(self) -> None:
        """Close the file until it is read again."""


class AseRows:
    """The rows of one or more ASE databases, in order of file names and ids.

    Pickles; files are opened by each process when it first needs them, and never written to or locked. Nothing in a
    file is executed: no pickles, no ASE object types.

    Args:
        path: a file, a folder (searched with its sub-folders for ``.aselmdb`` and ``.db``; if there are none, for
            ``.traj``), a glob pattern, or a list of these. Files that are named or matched may have any suffix; their
            content says what they are.

    Attributes:
        files: sorted within each item of ``path``.

    Raises:
        DataError: nothing is there; a file is empty, truncated, no ASE database or from a newer version.
    """

    def __init__(self, path: str | PathLike[str] | Sequence[str | PathLike[str]]) -> None:
        self.files = find_databases(path)
        self._open = OpenFiles()
        self._tables: list[RowTable] = []
        for number, file in enumerate(self.files):
            self._tables.append(open_table(file))
            self._open.use(number, self._tables[-1])
        self._ends = list(itertools.accumulate(len(table.ids) for table in self._tables))

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, index: int) -> dict[str, Any]:
        """Return one row; `IndexError` past the end.

        Returns:
            What the file has of: ``id``; ``numbers`` (atoms,) int64; ``positions`` (atoms, 3), ``cell`` (3, 3), ``pbc``
            (3,) bool, always there; ``tags`` (atoms,) int64; ``fixed`` (atoms,) bool, from constraints that hold atoms
            in all directions; ``energy`` and ``free_energy`` as float; ``forces`` (atoms, 3) as calculated, also on
            fixed atoms; ``stress`` (6,) Voigt or (3, 3); ``magmoms``, ``charges``, ``dipole``, ``magmom``,
            ``initial_magmoms``, ``initial_charges``, ``momenta``, ``masses``; ``constraints``, ``calculator``,
            ``calculator_parameters``, ``unique_id``, ``user``, ``ctime``, ``mtime`` as stored; ``key_value_pairs`` and
            ``data``, always there; ``trajectory``, the name of a ``.traj`` file. Units are ASE's: eV, Å, eV/Å, eV/Å³.

        Raises:
            DataError: the row is damaged; names file and id.
        """
        number, position = self.locate(index)
        self._open.use(number, self._tables[number])
        return self._tables[number].row(position)

    def locate(self, index: int) -> tuple[int, int]:
        """Return the number of the file in `files` and the position in it, both from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def source(self, index: int) -> str:
        """Return "file:position", for messages and ``info``."""
        number, position = self.locate(index)
        return f"{self.files[number]}:{position}"

    def spans(self) -> list[tuple[Path, int, int]]:
        """Return (file, first index, index past the last) for every file."""
        starts = [0, *self._ends[:-1]]
        return list(zip(self.files, starts, self._ends, strict=True))

    def num_atoms(self) -> np.ndarray | None:
        """Return (rows,) atoms if all files have a table of them (sqlite does), else None."""
        counts = [table.num_atoms() for table in self._tables]
        known = [count for count in counts if count is not None]
        return np.concatenate(known) if len(known) == len(counts) else None


def open_table(file: Path) -> RowTable:
    """Open one database by its content.

    Raises:
        DataError: it is none.
    """
    if file.is_dir():
        return LmdbTable(file)
    try:
        with file.open("rb") as handle:
            head = handle.read(64)
    except OSError as error:
        raise DataError(f"Cannot read '{file}': {error.strerror or error}.") from error
    if not head:
        raise DataError(f"'{file}' is empty, an ASE database (.aselmdb or sqlite .db) or .traj was expected.")
    if head.startswith(TRAJ_MAGIC):
        return TrajTable(file)
    if BEGINNING.match(head):
        return JsonTable(file)
    return SqliteTable(file) if head.startswith(MAGIC) else LmdbTable(file)


def find_databases(path: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[Path]:
    """Return the database files behind a path, a folder, a glob or a list of these.

    Raises:
        DataError: nothing is there, or a file is listed twice.
    """
    if path is None or path in ("", "???"):
        raise DataError("The data set needs a path: set data.path to a .aselmdb or .db file, a folder or a glob.")
    found: list[Path] = []
    for item in path if isinstance(path, Sequence) and not isinstance(path, str) else [path]:
        found.extend(_matches(Path(item).expanduser()))
    if not found:
        raise DataError("The list of database files is empty. Set data.path to at least one.")
    repeated = sorted({str(file) for file in found if found.count(file) > 1}) if len(set(found)) < len(found) else []
    if repeated:
        raise DataError(f"Each file may be listed once, these are repeated: {', '.join(repeated)}.")
    return found


def _matches(path: Path) -> list[Path]:
    if path.is_dir():
        return [path] if (path / "data.mdb").is_file() else _in_folder(path)
    if path.exists():
        return [path]
    matches: list[Path] = []
    for name in sorted(glob(str(path), recursive=True)):
        match = Path(name)
        matches.extend(_in_folder(match) if match.is_dir() and not (match / "data.mdb").is_file() else [match])
    if not matches:
        folder = path.parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        raise DataError(f"No file matches '{path}'.{did_you_mean(path.name, names)}")
    return matches


def _in_folder(folder: Path) -> list[Path]:
    """Return the databases below a folder; hidden files are not data."""
    for suffixes in (SUFFIXES, TRAJECTORIES):
        files = [file for suffix in suffixes for file in folder.rglob(f"*{suffix}") if not file.name.startswith(".")]
        if files:
            return sorted(files, key=str)
    raise DataError(f"The folder '{folder}' has no {', '.join(SUFFIXES)} or {TRAJECTORIES[0]} files.")
