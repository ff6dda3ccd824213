"""Rows of one `.aselmdb` file: an LMDB with zlib-compressed JSON under ids from 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.formats.ase_rows_values import parse_json, plain_row
from mlip.data.formats.bounded import inflate
from mlip.data.formats.lmdb_file import LmdbFile

RESERVED = (b"nextid", b"deleted_ids", b"metadata")
"""Keys that are no rows."""

LARGEST_ROW = 64 * 2**20
"""Bytes of JSON; a row of more is refused as an expansion bomb (100 000 atoms with forces have 12 MB)."""


class LmdbTable:
    """The rows of one file.

    Attributes:
        ids: in order; a range where there are no gaps.

    Raises:
        DataError: no LMDB, no ASE rows in it, or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LmdbFile(path)
        self.ids = self._find_ids()

    def _find_ids(self) -> Sequence[int]:
        """Take the ids from ``nextid`` and ``deleted_ids`` where these account for all entries, else from the keys."""
        special = {key: data for key in RESERVED if (data := self._file.find(key)) is not None}
        next_id = self._parsed(special, b"nextid")
        deleted = self._parsed(special, b"deleted_ids") or []
        entries = self._file.num_entries
        if isinstance(next_id, int) and next_id > 0 and not deleted and next_id - 1 + len(special) == entries:
            return range(1, next_id)
        keys = [key for key in self._file.keys() if key not in RESERVED]  # noqa: SIM118
        odd = next((key for key in keys if not (key.isdigit() and len(key) < 19)), None)
        if odd is not None or (not keys and not special):
            what = f"the key {odd[:40]!r}" if odd is not None else "no entries"
            raise DataError(f"'{self.path}' is not an ASE database: row ids were expected as keys, it has {what}.")
        try:
            gone = {int(number) for number in deleted}
        except (TypeError, ValueError) as error:
            raise DataError(f"'{self.path}': deleted_ids must be a list of integers.") from error
        return sorted({int(key) for key in keys} - gone)

    def _parsed(self, special: dict[bytes, bytes], key: bytes) -> Any:
        if key not in special:
            return None
        where = f"{self.path}, {key.decode()}"
        return parse_json(inflate(special[key], LARGEST_ROW, where), where)

    def row(self, position: int) -> dict[str, Any]:
        """Return a row by its position."""
        number = self.ids[position]
        where = f"{self.path}:{position} (id {number})"
        raw = parse_json(inflate(self._file.get(b"%d" % number), LARGEST_ROW, where), where)
        if not isinstance(raw, dict):
            raise DataError(f"{where}: a row must be a JSON object, got {type(raw).__name__}.")
        return plain_row({**raw, "id": number}, where)

    def close(self) -> None:
        """Close the file; it opens again when it is read."""
        self._file.close()

    def num_atoms(self) -> np.ndarray | None:
        """None: the format has no table of sizes."""
        return None
