"""Frames of one ASE trajectory, `.traj`: JSON and plain arrays in ASE's ulm container; no pickles."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.formats.ase_rows_values import array_in, parse_json, plain_row

MAGIC = b"- of Ulm"
_HEADER = struct.Struct("<8s16sqqq")
_TAG = b"ASE-Trajectory"
_ONCE = ("numbers", "pbc", "masses", "constraints")
"""What a trajectory says once, in its first frame, unless it changes."""
LARGEST_TEXT = 64 * 2**20
"""Bytes of JSON of one frame."""


class TrajTable:
    """The frames of one file.

    Attributes:
        ids: numbers of the frames, from 0.

    Raises:
        DataError: no trajectory, or a truncated one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as handle:
            head = handle.read(_HEADER.size)
            if len(head) < _HEADER.size:
                raise self._damaged("it ends too early")
            magic, tag, version, number, start = _HEADER.unpack(head)
            if magic != MAGIC or tag.strip() != _TAG or version not in (1, 2, 3):
                raise DataError(f"'{path}' is no ASE trajectory of a known version.")
            self._offsets = np.frombuffer(self._piece(handle, start, 8 * number), "<i8")
        self.ids = range(number)

    def row(self, position: int) -> dict[str, Any]:
        """Return a frame by its position; ``info`` is under ``data``, the file under ``trajectory``."""
        where = f"{self.path}:{position}"
        with self._open() as handle:
            frame = self._frame(handle, position, where)
        if "numbers" not in frame:
            frame |= self._said_once
        results = frame.pop("calculator", {})
        if not isinstance(results, dict):
            raise DataError(f"{where}: the results of the calculator are damaged.")
        initial = {f"initial_{name}": frame.pop(name, None) for name in ("magmoms", "charges")}
        renamed = {"calculator": results.pop("name", None), "calculator_parameters": results.pop("parameters", None)}
        row = plain_row({**results, **frame, **initial, **renamed, "data": frame.get("info"), "id": position}, where)
        return row | {"trajectory": str(self.path)}

    def num_atoms(self) -> np.ndarray | None:
        """None: sizes are known when frames are read."""
        return None

    def close(self) -> None:
        """Nothing: the file is only open while a frame is read."""

    @cached_property
    def _said_once(self) -> dict[str, Any]:
        with self._open() as handle:
            first = self._frame(handle, 0, f"{self.path}:0")
        return {name: first[name] for name in _ONCE if name in first}

    def _frame(self, handle: IO[bytes], position: int, where: str) -> dict[str, Any]:
        start = int(self._offsets[position])
        (size,) = struct.unpack("<q", self._piece(handle, start, 8))
        if size > LARGEST_TEXT:
            raise self._damaged(f"frame {position} has {size} bytes of text")
        found = parse_json(self._piece(handle, start + 8, size), where)
        if not isinstance(found, dict):
            raise DataError(f"{where}: a frame must be a JSON object, got {type(found).__name__}.")
        if not found.pop("_little_endian", True):
            raise DataError(f"{where} was written on a machine of other byte order, which is not read.")
        return self._with_arrays(handle, found, where)

    def _with_arrays(self, handle: IO[bytes], found: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Read the arrays that names with a point at the end stand for, and what is nested under such names."""
        values: dict[str, Any] = {}
        for name, value in found.items():
            if not name.endswith(".") or not isinstance(value, Mapping):
                values[name] = value
            elif "ndarray" in value:
                try:
                    shape, kind, start = value["ndarray"]
                    array = array_in(shape, kind, lambda size, at=start: self._piece(handle, at, size))
                except (TypeError, ValueError, OverflowError) as error:
                    raise DataError(f"{where}: the array '{name[:-1]}' is damaged ({error}).") from error
                values[name[:-1]] = array
            else:
                values[name[:-1]] = self._with_arrays(handle, value, where)
        return values

    def _open(self) -> IO[bytes]:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(f"Cannot read '{self.path}': {error.strerror or error}.") from error

    def _piece(self, handle: IO[bytes], start: int, size: int) -> bytes:
        if type(start) is not int or start < 0 or size < 0 or start + size > os.fstat(handle.fileno()).st_size:
            raise self._damaged("it is truncated, or says what lies outside of it")
        handle.seek(start)
        return handle.read(size)

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"'{self.path}' is a damaged trajectory: {reason}. Copy it again, or write it anew.")
