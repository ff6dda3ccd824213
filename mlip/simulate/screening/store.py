"""The results of a screening as one HDF5 file: writing and reading it. docs/screening.md describes the layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import dict2constraint

from mlip.core.errors import DataError
from mlip.core.files import write_atomically
from mlip.simulate.atoms_json import atoms_to_json, info_from_json, plain
from mlip.simulate.screening.record import Column, ScreenRecord, columns_of

STORE = "results.h5"
FORMAT = "mlip screen 1"

_TEXT = h5py.string_dtype("utf-8")
_MISSING = -1
"""Of integers and truth values."""

_ATOM_FIELDS: dict[str, tuple[int, ...]] = {"forces": (3,), "magmoms": ()}
_UNITS = {"positions": "A", "cell": "A", "forces": "eV/A", "energy": "eV", "stress": "eV/A3", "magmoms": "muB"}


def write_store(
    path: Path, records: Sequence[ScreenRecord], columns: Mapping[str, Column], about: Mapping[str, Any]
) -> None:
    """Write records, whole or not at all.

    Args:
        path: of the file.
        records: in the order of the input.
        columns: of the task.
        about: attributes of the file; what is neither text nor a number becomes JSON.

    Raises:
        MlipError: the folder cannot be written to, or the disk is full.
    """

    def write(part: Path) -> None:
        with h5py.File(part, "w") as file:
            file.attrs["format"] = FORMAT
            for name, value in about.items():
                file.attrs[name] = value if isinstance(value, str | int | float) else json.dumps(value, default=plain)
            table, arrays = file.create_group("table"), file.create_group("arrays")
            for name, column in columns_of(columns).items():
                values = [record.cell(name) for record in records]
                if column.kind == "numbers":
                    _write_ragged(arrays.create_group(name), values).attrs.update(_described(column))
                else:
                    table.create_dataset(name, data=_as_array(values, column)).attrs.update(_described(column))
            _write_structures(file.create_group("structures"), [record.structure for record in records])

    write_atomically(path, write)


def _described(column: Column) -> dict[str, str]:
    return {"unit": column.unit, "meaning": column.meaning, "kind": column.kind}


def _as_array(values: Sequence[Any], column: Column) -> np.ndarray:
    if column.kind == "text":
        return np.array([_printable(value or "") for value in values], dtype=_TEXT)
    if column.kind == "number":
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    integers = [_MISSING if value is None else int(value) for value in values]
    return np.array(integers, dtype=np.int64 if column.kind == "integer" else np.int8)


def _write_ragged(group: h5py.Group, values: Sequence[Sequence[float] | None]) -> h5py.Dataset:
    parts = [np.asarray([] if value is None else value, dtype=np.float64).ravel() for value in values]
    group.create_dataset("start", data=_starts([len(part) for part in parts]))
    return group.create_dataset("values", data=np.concatenate([*parts, np.zeros(0)]))


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _write_structures(group: h5py.Group, structures: Sequence[Atoms | None]) -> None:
    """Write atoms one after the other; a structure that is not there has none."""
    empty = Atoms()
    found = [empty if atoms is None else atoms for atoms in structures]
    results = [getattr(atoms.calc, "results", {}) for atoms in found]
    data: dict[str, np.ndarray] = {
        "start": _starts([len(atoms) for atoms in found]),
        "numbers": np.concatenate([*(atoms.numbers for atoms in found), np.zeros(0)]).astype(np.int32),
        "positions": np.concatenate([*(atoms.positions for atoms in found), np.zeros((0, 3))]),
        "cell": np.array([atoms.cell.array for atoms in found]).reshape(-1, 3, 3),
        "pbc": np.array([atoms.pbc for atoms in found], dtype=bool).reshape(-1, 3),
        "energy": np.array([result.get("energy", np.nan) for result in results], dtype=np.float64),
        "stress": np.array([result.get("stress", np.full(6, np.nan)) for result in results]).reshape(-1, 6),
        "extra": np.array([_extra(atoms) for atoms in found], dtype=_TEXT),
    }
    for name, shape in _ATOM_FIELDS.items():
        parts = [result.get(name, np.full((len(atoms), *shape), np.nan)) for atoms, result in zip(found, results)]
        data[name] = np.concatenate([*parts, np.zeros((0, *shape))])
    for name, values in data.items():
        group.create_dataset(name, data=values).attrs["unit"] = _UNITS.get(name, "")


def _extra(atoms: Atoms) -> str:
    """Return charge, spin, what else is in ``info``, and constraints as JSON; "" if there are none."""
    content = atoms_to_json(atoms)
    extra = {name: content[name] for name in ("info", "constraints") if content[name]}
    return json.dumps(extra, default=plain) if extra else ""


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\0", "")


class ScreeningResults:
    """Results of a screening in an open file; see :func:`open_results`.

    Attributes:
        about: what the file says of itself: task, options, model and its hash, dtype, version.
        units: of the columns and arrays that have one.
    """

    def __init__(self, file: h5py.File) -> None:
        """Read what concerns the whole."""
        self._file = file
        self.about: dict[str, Any] = {name: _value(value) for name, value in file.attrs.items()}
        self.units: dict[str, str] = {
            **{name: column.attrs["unit"] for name, column in file["table"].items() if column.attrs["unit"]},
            **{name: one["values"].attrs["unit"] for name, one in file["arrays"].items()},
        }

    def __len__(self) -> int:
        """Return the number of structures of the input that are dealt with."""
        return len(self._file["table"]["number"])

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the table."""
        return list(self._file["table"])

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that each structure has."""
        return list(self._file["arrays"])

    def column(self, name: str) -> np.ndarray:
        """Return a column (structures,): floats (NaN where nothing is known), integers (−1), text ("")."""
        found = self._file["table"][name]
        return np.array(found.asstr()[()], dtype=object) if h5py.check_string_dtype(found.dtype) else found[()]

    def array(self, name: str, index: int) -> np.ndarray:
        """Return an array of one structure; without entries where nothing is known."""
        group = self._file["arrays"][name]
        start, end = self._range(group, index)
        return group["values"][start:end]

    def atoms(self, index: int) -> Atoms | None:
        """Return the structure in a row of the table, with energy, forces and stress; None if there is none."""
        group = self._file["structures"]
        start, end = self._range(group, index)
        if start == end:
            return None
        atoms = Atoms(
            group["numbers"][start:end], positions=group["positions"][start:end], cell=group["cell"][index],
            pbc=group["pbc"][index],
        )  # fmt: skip
        extra = json.loads(group["extra"].asstr()[index] or "{}")
        atoms.info.update(info_from_json(extra.get("info", {})))
        atoms.set_constraint([dict2constraint(one) for one in extra.get("constraints", [])])
        results: dict[str, Any] = {"energy": float(group["energy"][index]), "stress": group["stress"][index]}
        results |= {name: group[name][start:end] for name in _ATOM_FIELDS}
        known = {name: value for name, value in results.items() if not np.isnan(value).any()}
        atoms.calc = SinglePointCalculator(atoms, **known)
        return atoms

    def _range(self, group: h5py.Group, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"There is no structure {index}: they count from 0 to {len(self) - 1}.")
        start, end = group["start"][index : index + 2]
        return int(start), int(end)


@contextmanager
def open_results(path: str | os.PathLike[str]) -> Iterator[ScreeningResults]:
    """Open the results of a screening.

    >>> with open_results("screen_crystals/results.h5") as results:  # doctest: +SKIP
    ...     results.column("energy_after"), results.atoms(3), results.array("volumes", 3)

    Args:
        path: of the file, or of the folder that has it.

    Raises:
        DataError: not the results of a screening.
    """
    path = Path(path)
    path = path / STORE if path.is_dir() else path
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"'{path}' cannot be read as the results of mlip screen ({error}).") from error
    with file:
        if file.attrs.get("format") != FORMAT:
            raise DataError(f"'{path}' holds no results of this version of mlip screen.")
        yield ScreeningResults(file)


def _value(value: Any) -> Any:
    """Return an attribute as it was given."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
