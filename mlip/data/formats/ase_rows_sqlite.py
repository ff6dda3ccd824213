"""Rows of one ASE sqlite `.db` file, read without writing a lock, a journal or anything else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.formats.ase_rows_values import decode_blob, parse_json, plain_row
from mlip.data.formats.sqlite_file import SqliteFile

KNOWN_VERSIONS = range(5, 10)
"""Versions of ASE's schema whose tables are read here; since 9 ``data`` is binary."""

_FLOATS = {
    "positions": (-1, 3),
    "cell": (3, 3),
    "initial_magmoms": (-1,),
    "initial_charges": (-1,),
    "masses": (-1,),
    "momenta": (-1, 3),
    "forces": (-1, 3),
    "stress": (6,),
    "dipole": (3,),
    "magmoms": (-1,),
    "charges": (-1,),
}
_PLAIN = ("id", "unique_id", "ctime", "mtime", "calculator", "energy", "free_energy", "magmom")
_JSON = ("constraints", "calculator_parameters", "key_value_pairs")


class SqliteTable:
    """The rows of one file.

    Attributes:
        ids: in order; a range where there are no gaps.

    Raises:
        DataError: no ASE database, damaged, from a newer ASE, or another program has not finished writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SqliteFile(path)
        tables = self._file.tables()
        if not {"systems", "information"} <= set(tables):
            raise DataError(
                f"'{path}' is an sqlite file, but not an ASE database: it has the tables "
                f"{', '.join(tables) or 'none'}, not 'systems' and 'information'."
            )
        self._version = self._read_version()
        self._columns = list(self._file.columns("systems"))
        self.ids = self._find_ids()

    def _read_version(self) -> int:
        found = self._file.all("SELECT value FROM information WHERE name = 'version'")
        text = str(found[0][0]) if found else "unknown"
        if not text.isdecimal() or int(text) not in KNOWN_VERSIONS:
            newer = text.isdecimal() and int(text) >= KNOWN_VERSIONS.stop
            advice = "Update mlip." if newer else "Convert it with 'python -m ase.db.convert'."
            raise DataError(
                f"'{self.path}' has version {text[:20]} of ASE's database format, versions {KNOWN_VERSIONS[0]} to "
                f"{KNOWN_VERSIONS[-1]} are known. {advice}"
            )
        return int(text)

    def _find_ids(self) -> Sequence[int]:
        ids = [number for (number,) in self._file.all("SELECT id FROM systems ORDER BY id")]
        if ids and ids[-1] - ids[0] + 1 == len(ids):
            return range(ids[0], ids[-1] + 1)
        return ids

    def row(self, position: int) -> dict[str, Any]:
        """Return a row by its position."""
        number = self.ids[position]
        where = f"{self.path}:{position} (id {number})"
        found = self._file.all("SELECT * FROM systems WHERE id = ?", (number,))
        if len(found) != 1:
            raise DataError(f"{where}: the row is in the index, but not in the table; the file is damaged.")
        columns = dict(zip(self._columns, found[0], strict=True))
        return plain_row(self._decode(columns, where), where)

    def _decode(self, columns: dict[str, Any], where: str) -> dict[str, Any]:
        numbers = _integers("numbers", columns.get("numbers"), None, where)
        if numbers is None:
            raise DataError(f"{where}: the row has no atomic numbers.")
        size = len(numbers)
        row: dict[str, Any] = {name: columns.get(name) for name in _PLAIN}
        row |= {"user": columns.get("username"), "numbers": numbers}
        row["tags"] = _integers("tags", columns.get("tags"), size, where)
        for name, shape in _FLOATS.items():
            row[name] = _floats(name, columns.get(name), shape, size, where)
        pbc = columns.get("pbc")
        if not (pbc is None or (isinstance(pbc, int) and 0 <= pbc < 8)):
            raise DataError(f"{where}: pbc must be an integer from 0 to 7, got {str(pbc)[:40]}.")
        row["pbc"] = None if pbc is None else [bool(pbc & bit) for bit in (1, 2, 4)]
        for name in _JSON:
            text = columns.get(name)
            row[name] = parse_json(text, f"{where}, {name}") if isinstance(text, str | bytes) else None
        data = columns.get("data")
        if isinstance(data, bytes):
            row["data"] = decode_blob(data, where)
        elif isinstance(data, str):
            row["data"] = parse_json(data, f"{where}, data")
        return row

    def close(self) -> None:
        """Close the file; it opens again when it is read."""
        self._file.close()

    def num_atoms(self) -> np.ndarray | None:
        """Return (rows,) atoms, from the sizes of columns."""
        # The column natoms stands behind the large ones; the length of this one is read without its content.
        counts = [count for (count,) in self._file.all("SELECT length(numbers) / 4 FROM systems ORDER BY id")]
        if not all(isinstance(count, int) for count in counts):
            return None
        return np.array(counts, dtype=np.int64)


def _floats(name: str, blob: Any, shape: tuple[int, ...], num_atoms: int, where: str) -> np.ndarray | None:
    """Return an array of a column whose size says how many numbers of eight bytes there must be."""
    if blob is None or blob == b"":
        return None
    size = int(np.prod([num_atoms if length == -1 else length for length in shape]))
    if name == "stress" and isinstance(blob, bytes) and len(blob) == 72:
        size, shape = 9, (3, 3)
    if name == "magmoms" and isinstance(blob, bytes) and len(blob) == 24 * num_atoms and num_atoms:
        size, shape = 3 * num_atoms, (-1, 3)
    if not isinstance(blob, bytes) or len(blob) != 8 * size:
        # ASE writes an array of another kind, such as float32, without saying so, and would read nonsense.
        raise DataError(
            f"{where}: {name} must be {size} numbers of 8 bytes, got "
            f"{f'{len(blob)} bytes' if isinstance(blob, bytes) else type(blob).__name__}."
        )
    return np.frombuffer(blob, dtype="<f8").astype(np.float64).reshape(shape)


def _integers(name: str, blob: Any, num_atoms: int | None, where: str) -> np.ndarray | None:
    if blob is None or (blob == b"" and num_atoms is not None):
        return None
    size = num_atoms if num_atoms is not None or not isinstance(blob, bytes) else len(blob) // 4
    if not isinstance(blob, bytes) or not blob or len(blob) != 4 * (size or 0):
        raise DataError(
            f"{where}: {name} must be integers of 4 bytes{'' if num_atoms is None else f' for {num_atoms} atoms'}, "
            f"got {f'{len(blob)} bytes' if isinstance(blob, bytes) else type(blob).__name__}."
        )
    return np.frombuffer(blob, dtype="<i4").astype(np.int64)
