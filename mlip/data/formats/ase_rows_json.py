"""Rows of one ASE database in JSON, the form of ``ase.db.connect('x.json')`` and of ``atoms.write('x.json')``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.formats.ase_rows_values import parse_json, plain_row

BEGINNING = re.compile(rb'\s*\{\s*"\d{1,18}"\s*:\s*\{')
"""How such a file begins: the id of its first row."""

LARGEST_FILE = 2**28
"""Bytes; the format has to be read as a whole."""


class JsonTable:
    """The rows of one file, in memory while they are read.

    Attributes:
        ids: in the order of the file's list.

    Raises:
        DataError: it is no such database, is damaged, or too large to be read as a whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: Mapping[str, Any] | None = None
        ids = self._read().get("ids")
        if not isinstance(ids, list) or not all(type(number) is int and str(number) in self._read() for number in ids):
            raise DataError(f"'{path}' is not an ASE database: a list 'ids' of its rows was expected.")
        self.ids = ids

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_content": None}

    def _read(self) -> Mapping[str, Any]:
        if self._content is None:
            try:
                if self.path.stat().st_size > LARGEST_FILE:
                    raise DataError(f"'{self.path}' is too large for JSON. Convert it: ase db {self.path} -i new.db")
                content = self.path.read_bytes()
            except OSError as error:
                raise DataError(f"Cannot read '{self.path}': {error.strerror or error}.") from error
            parsed = parse_json(content, f"'{self.path}'")
            if not isinstance(parsed, dict):
                raise DataError(f"'{self.path}' is not an ASE database: a JSON object was expected.")
            self._content = parsed
        return self._content

    def row(self, position: int) -> dict[str, Any]:
        """Return a row by its position."""
        number = self.ids[position]
        where = f"{self.path}:{position} (id {number})"
        raw = self._read().get(str(number))
        if not isinstance(raw, dict):
            raise DataError(f"{where}: a row must be a JSON object, got {type(raw).__name__}.")
        return plain_row({**raw, "id": number}, where)

    def num_atoms(self) -> np.ndarray | None:
        """None: the format has no table of sizes."""
        return None

    def close(self) -> None:
        """Forget the content until it is read again."""
        self._content = None
