"""OC20 as LMDB: pickled PyTorch Geometric objects of old and new versions, S2EF and IS2RE."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlip.core.errors import DataError
from mlip.data.datasets.oc20_record import RandomLayout, Record, finite, system_number, whole
from mlip.data.formats.lmdb_file import LmdbFile
from mlip.data.formats.open_files import OpenFiles
from mlip.data.formats.safe_pickle import loads

_LENGTH = b"length"
_RELAXED = ("y_init", "y_relaxed", "pos_relaxed")
MOST_ATOMS = 10**6


class PygLmdb(RandomLayout):
    """Entries "0", "1", … of one or more LMDB files.

    Args:
        files: of the set, in order.

    Raises:
        DataError: a file is damaged, or has gaps between its entries.
    """

    def __init__(self, files: list[Path]) -> None:
        self._open = OpenFiles()
        self._tables: list[LmdbFile] = []
        self._ends: list[int] = []
        for number, file in enumerate(files):
            self._tables.append(LmdbFile(file))
            self._open.use(number, self._tables[-1])
            self._ends.append(_num_entries(self._tables[-1]) + (self._ends[-1] if number else 0))
        self.files = [table.path for table in self._tables]
        self.words = "an LMDB of PyG objects"

    def spans(self) -> list[tuple[Path, int, int]]:
        """Return (file, first index, index past the last) for every file."""
        return list(zip(self.files, [0, *self._ends[:-1]], self._ends, strict=True))

    def record(self, index: int) -> Record:
        """Return a record by its index over all files."""
        if not 0 <= index < self._ends[-1]:
            raise IndexError(f"entry {index} of {self._ends[-1]}")
        number = bisect_right(self._ends, index)
        position = index - (self._ends[number - 1] if number else 0)
        where = f"{self.files[number]}:{position}"
        self._open.use(number, self._tables[number])
        fields = loads(self._tables[number].get(b"%d" % position), where)
        if not isinstance(fields, dict) or "pos" not in fields:
            raise DataError(f"{where} is not a PyG object with the field 'pos'.")
        return _record(fields, where)


def _num_entries(table: LmdbFile) -> int:
    """Return the number of structures; an entry ``length`` is none.

    Raises:
        DataError: there are gaps, or another number is stated.
    """
    stated = table.find(_LENGTH)
    number = table.num_entries - (stated is not None)
    if number < 1:
        raise DataError(f"'{table.path}' has no entries.")
    if table.find(b"%d" % (number - 1)) is None or table.find(b"0") is None:
        digits = {int(key) for key in table.keys() if key.isdigit() and len(key) < 19}  # noqa: SIM118
        if not digits:
            raise DataError(f"'{table.path}' is an LMDB, but not one of OC20: it has no entries '0', '1', ….")
        missing = next((k for k in range(max(digits)) if k not in digits), None)
        if missing is not None:
            raise DataError(f"'{table.path}' has no entry '{missing}', though later ones: it is not whole.")
        number = len(digits)
    if stated is not None:
        length = loads(stated, f"'{table.path}', entry 'length'")
        if length != number:
            raise DataError(
                f"'{table.path}' has {number} entries, but says that it has {length}: it is not whole. Copy it again."
            )
    return number


def _record(fields: dict[str, Any], where: str) -> Record:
    positions = _value(fields, "pos", where)
    number = len(positions) if np.ndim(positions) else 0
    if not 1 <= number <= MOST_ATOMS:
        raise DataError(f"{where} has {number} atoms.")
    if "natoms" in fields and int(whole(_scalar(fields, "natoms", where), (), "natoms", where)) != number:
        raise DataError(f"{where}: natoms is {fields['natoms']}, but there are {number} positions.")
    record = Record(
        where,
        whole(_value(fields, "atomic_numbers", where), (number,), "atomic_numbers", where),
        finite(positions, (number, 3), "pos", where),
        _cell(fields, where),
        _pbc(fields, where),
        kind="is2re" if any(name in fields for name in _RELAXED) else None,
    )
    if "sid" in fields:
        record.system = system_number(_text(_scalar(fields, "sid", where)), f"{where}, sid")
    if "fid" in fields:
        record.frame = int(whole(_scalar(fields, "fid", where), (), "fid", where))
    if "tags" in fields:
        record.tags = whole(_value(fields, "tags", where), (number,), "tags", where)
    if "fixed" in fields:
        fixed = whole(_value(fields, "fixed", where), (number,), "fixed", where)
        if ((fixed != 0) & (fixed != 1)).any():
            raise DataError(f"{where}: fixed must be 0 or 1.")
        record.fixed = fixed.astype(bool)
    if record.kind == "is2re":
        record.initial_energy = _energy(fields, ("y_init",), where)
        record.energy = _energy(fields, ("y_relaxed",), where)
        if "pos_relaxed" in fields:
            relaxed = _value(fields, "pos_relaxed", where)
            record.relaxed_positions = finite(relaxed, (number, 3), "pos_relaxed", where)
        return record
    record.energy = _energy(fields, ("energy", "y"), where)
    forces = _one_of(fields, ("forces", "force"), where)
    if forces is not None:
        record.forces = finite(forces, (number, 3), "forces", where)
    # Entries of IS2RE keep the forces of some structure even where the energies are left out, as in test data.
    if record.energy is not None or (forces is not None and record.frame is not None):
        record.kind = "s2ef"
    return record


def _value(fields: dict[str, Any], name: str, where: str) -> np.ndarray:
    """Return a field as an array, float64 where it is of torch, which has types that numpy does not know."""
    if name not in fields:
        raise DataError(f"{where} has no field '{name}'. The fields there are: {', '.join(map(str, fields))[:300]}.")
    value = fields[name]
    if isinstance(value, torch.Tensor) and not value.is_complex():
        value = value.to(torch.float64) if value.is_floating_point() else value.to(torch.int64)
        return value.numpy()
    try:
        array = np.asarray(None if isinstance(value, torch.Tensor) else value)
    except ValueError as error:
        raise DataError(f"{where}: the field '{name}' is not an array of numbers.") from error
    if array.dtype.kind not in "biufU":
        raise DataError(f"{where}: the field '{name}' is not an array of numbers.")
    return array


def _scalar(fields: dict[str, Any], name: str, where: str) -> Any:
    """Return a field that is one number or text, perhaps in a tensor of one element."""
    array = _value(fields, name, where)
    if array.size != 1:
        raise DataError(f"{where}: the field '{name}' must be one value, got {array.size}.")
    return array.reshape(())[()]


def _text(value: Any) -> str:
    """Return the text of an identity; files of old versions may hold 12.0."""
    return str(int(value)) if isinstance(value, np.floating) and value == int(value) else str(value)


def _cell(fields: dict[str, Any], where: str) -> np.ndarray:
    """Return (3, 3) of (1, 3, 3), as PyG batches it, or of (3, 3)."""
    cell = _value(fields, "cell", where)
    return finite(cell[0] if cell.shape == (1, 3, 3) else cell, (3, 3), "cell", where)


def _pbc(fields: dict[str, Any], where: str) -> np.ndarray:
    """Return (3,) bools; OC20's own files do not say, and are periodic in all directions."""
    if "pbc" not in fields:
        return np.ones(3, dtype=bool)
    return whole(_value(fields, "pbc", where).reshape(-1), (3,), "pbc", where).astype(bool)


def _one_of(fields: dict[str, Any], names: tuple[str, ...], where: str) -> np.ndarray | None:
    """Return the field that is there under one of its names."""
    found = [_value(fields, name, where) for name in names if name in fields]
    if len(found) > 1 and not (found[0].shape == found[1].shape and np.allclose(found[0], found[1], rtol=1e-6)):
        raise DataError(f"{where} has both '{names[0]}' and '{names[1]}', with different values.")
    return found[0] if found else None


def _energy(fields: dict[str, Any], names: tuple[str, ...], where: str) -> float | None:
    value = _one_of(fields, names, where)
    if value is None:
        return None
    if value.size != 1:
        raise DataError(f"{where}: the energy must be one number, got {value.size}.")
    return float(finite(value.reshape(()), (), "the energy", where))
