"""QH9 as QHNet's and SPHNet's readers keep it: LMDB files with a pickled dictionary a row."""

from __future__ import annotations

from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.datasets.orbital_matrices import orbital_matrix
from mlip.data.datasets.qh9_rows import RawRow, geometry, identity
from mlip.data.formats.lmdb_file import LmdbFile
from mlip.data.formats.safe_pickle import loads

LENGTH = b"length"
KEY_BYTES = 4
NAMES = ("id", "num_nodes", "atoms", "pos", "Ham")


class LmdbRows:
    """Rows of a folder ``QH9Stable.lmdb/`` (QHNet) or of SPHNet's ``data.mdb``, in the order of their keys.

    Raises:
        DataError: no LMDB, or none with rows of QH9.
    """

    has_energy = False
    record = None

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path).expanduser()
        self._file = LmdbFile(self._path)
        if not len(self._keys):
            raise DataError(f"'{self._path}' has no rows.")
        first = self._value(0, f"{self._path}:0")
        self.has_initial = "Ham_init" in first
        self.layout = "sphnet" if self.has_initial else "qhnet"
        # SPHNet keeps no geo_id, whatever the data are.
        self.dynamic: bool | None = None if self.has_initial else "geo_id" in first

    @cached_property
    def _keys(self) -> np.ndarray:
        """Keys of the rows as numbers, ascending."""
        keys = self._file.keys()
        numbers = [key for key in keys if len(key) == KEY_BYTES]
        other = [key for key in keys if len(key) != KEY_BYTES and key != LENGTH]
        if other or not numbers:
            what = f"the key {other[0][:40]!r}" if other else "none"
            raise DataError(f"'{self._path}' is not QH9: keys of {KEY_BYTES} bytes were expected, there is {what}.")
        if LENGTH in keys:
            stated = loads(self._file.get(LENGTH), f"{self._path}, key 'length'")
            if stated != len(numbers):
                raise DataError(
                    f"'{self._path}' says that it has {stated} rows, but has {len(numbers)}: it was not written to its "
                    "end. Make or download it again."
                )
        return np.frombuffer(b"".join(numbers), dtype=">u4").astype(np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, position: int, where: str, basis: str) -> RawRow:
        """Return one row.

        Raises:
            DataError: it is damaged, or a pickle of something else.
        """
        value = self._value(position, where)
        numbers, positions = geometry(value["num_nodes"], value["atoms"], value["pos"], where)
        initial, molecule = value.get("Ham_init"), identity(value["id"], where)
        if self.has_initial and initial is None:
            raise DataError(f"{where}: other rows have an initial Hamiltonian (Ham_init), this one has none.")
        if self.dynamic is False and molecule != self._keys[position]:
            raise DataError(f"{where}: the id of a Stable row is its key {self._keys[position]}, got {molecule}.")
        return RawRow(
            numbers,
            positions,
            orbital_matrix(value["Ham"], numbers, basis, "Hamiltonian", where),
            None if initial is None else orbital_matrix(initial, numbers, basis, "initial Hamiltonian", where),
            molecule,
            identity(value["geo_id"], where) if "geo_id" in value else None,
        )

    def geometry(self, position: int, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Return atomic numbers and positions of a row.

        Raises:
            DataError: it is damaged.
        """
        value = self._value(position, where)
        return geometry(value["num_nodes"], value["atoms"], value["pos"], where)

    def molecules(self) -> np.ndarray | None:
        """Return (rows,) ids where the keys are these, as in Stable, else None."""
        return self._keys if self.dynamic is False else None

    def num_atoms(self) -> np.ndarray | None:
        """None: the sizes stand in the pickles."""
        return None

    def unconverged(self) -> np.ndarray:
        """Return nothing: the layout has no such mark."""
        return np.zeros(0, dtype=np.int64)

    def num_bytes(self) -> int:
        """Return the size of the file."""
        return (self._path / "data.mdb" if self._path.is_dir() else self._path).stat().st_size

    def _value(self, position: int, where: str) -> dict[str, Any]:
        value = loads(self._file.get(int(self._keys[position]).to_bytes(KEY_BYTES, "big")), where)
        missing = [name for name in NAMES if not isinstance(value, dict) or name not in value]
        if missing:
            raise DataError(f"{where}: a dictionary with {', '.join(NAMES)} was expected, it lacks {missing[0]}.")
        return value
