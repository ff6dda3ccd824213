"""The values of an ASE row: JSON with ASE's marks for arrays, binary ``data``, and the checks of shapes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from mlip.core.errors import DataError
from mlip.data.formats import bounded

_PER_ATOM = {
    "forces": (3,),
    "momenta": (3,),
    "magmoms": None,
    "charges": (),
    "initial_magmoms": None,
    "initial_charges": (),
    "masses": (),
}
"""Shape of one atom's value; None takes a number or a vector."""

_NUMBERS = ("energy", "free_energy", "magmom")
_AS_STORED = ("calculator", "calculator_parameters", "unique_id", "user", "ctime", "mtime")
_HOLDS_ATOMS = ("FixAtoms", "FixCartesian", "FixScaled")
HEAVIEST = 118


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON; ASE's ``{"__ndarray__": …}`` become arrays, its other marks stay dicts. Builds no objects.

    Raises:
        DataError: it is no JSON.
    """
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        # The standard library's parser takes NaN, too, which ASE writes; whoever uses the number refuses it.
        parsed = bounded.parse_json(text, where)
    try:
        return _with_arrays(parsed, where)
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply, as no data are: it is refused.") from error


def _with_arrays(value: Any, where: str) -> Any:
    """Replace marked arrays in a JSON value; only dicts are looked into, as ASE writes them."""
    if not isinstance(value, dict):
        return value
    mark = value.get("__ndarray__")
    if mark is None:
        return {key: _with_arrays(item, where) for key, item in value.items()}
    try:
        shape, kind, flat = mark
        array = np.array(flat, dtype=_dtype(kind))
        return array.reshape([int(size) for size in shape])
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: an array of the row is damaged ({error}).") from error


def decode_blob(blob: bytes, where: str) -> Any:
    """Return the object of a binary ``data`` column: an offset, arrays, then JSON that points to them.

    Raises:
        DataError: it is damaged.
    """
    start = int.from_bytes(blob[:8], "little")
    if len(blob) < 9 or not 8 <= start < len(blob):
        raise DataError(f"{where}: the binary data of the row are damaged.")
    try:
        parsed = json.loads(blob[start:])
        return _point_to_arrays(parsed, blob[:start])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: the binary data of the row are damaged ({error}).") from error


def _point_to_arrays(value: Any, blob: bytes) -> Any:
    if isinstance(value, list):
        return [_point_to_arrays(item, blob) for item in value]
    if not isinstance(value, dict):
        return value
    mark = value.get("__ndarray__")
    if mark is None:
        return {key: _point_to_arrays(item, blob) for key, item in value.items()}
    shape, kind, offset = mark

    def take(size: int) -> bytes:
        if not 8 <= offset <= len(blob) - size:
            raise ValueError("an array lies outside of them")
        return blob[offset : offset + size]

    return array_in(shape, kind, take)


def array_in(shape: Sequence[Any], kind: Any, take: Callable[[int], bytes]) -> np.ndarray:
    """Return an array of numbers out of bytes.

    Args:
        shape: of the array.
        kind: name of the type of its numbers.
        take: returns as many bytes as it is asked for.

    Raises:
        ValueError, TypeError, OverflowError: that is no shape, or no type of numbers.
    """
    dtype = _dtype(kind)
    sizes = [int(size) for size in shape]
    if any(size < 0 for size in sizes):
        raise ValueError(f"the shape {sizes}")
    return np.frombuffer(take(math.prod(sizes) * dtype.itemsize), dtype).reshape(sizes)


def _dtype(name: Any) -> np.dtype[Any]:
    """Return the type of an array's numbers; text and Python objects are refused."""
    dtype = np.dtype(str(name)).newbyteorder("<")
    if dtype.kind not in "biufc":
        raise ValueError(f"numbers were expected, got {str(name)[:20]}")
    return dtype


def plain_row(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a row with arrays of known types and shapes, see `AseRows.row`; what is None is left out.

    Raises:
        DataError: a value cannot be right; names it.
    """
    numbers = _numbers(raw.get("numbers"), where)
    size = len(numbers)
    cell = raw.get("cell")
    if isinstance(cell, Mapping):
        cell = cell.get("array", cell.get("cell"))
    row: dict[str, Any] = {"id": raw.get("id"), "numbers": numbers}
    row["positions"] = _array("positions", raw.get("positions"), (size, 3), where)
    row["cell"] = np.zeros((3, 3)) if cell is None else _array("cell", cell, (3, 3), where)
    row["pbc"] = _pbc(raw.get("pbc"), where)
    for name in ("positions", "cell"):
        if not np.isfinite(row[name]).all():
            raise DataError(f"{where}: the {name} are not finite. Remove or repair the row.")
    if raw.get("tags") is not None:
        row["tags"] = _array("tags", raw["tags"], (size,), where).astype(np.int64)
    for name, shape in _PER_ATOM.items():
        if raw.get(name) is not None:
            row[name] = _per_atom(name, raw[name], shape, size, where)
    for name in _NUMBERS:
        if raw.get(name) is not None:
            row[name] = _number(name, raw[name], where)
    if raw.get("stress") is not None:
        stress = _array("stress", raw["stress"], None, where)
        row["stress"] = stress.reshape(3, 3) if stress.size == 9 else stress
    if raw.get("dipole") is not None:
        row["dipole"] = _array("dipole", raw["dipole"], (3,), where)
    row |= {name: raw[name] for name in _AS_STORED if raw.get(name) is not None}
    if raw.get("constraints"):
        row["constraints"] = _constraints(raw["constraints"], where)
        row["fixed"] = _fixed(row["constraints"], size, where)
    for name in ("key_value_pairs", "data"):
        value = raw.get(name) or {}
        if not isinstance(value, dict):
            raise DataError(f"{where}: {name} must be a JSON object, got {type(value).__name__}.")
        row[name] = value
    return row


def _numbers(value: Any, where: str) -> np.ndarray:
    if value is None:
        raise DataError(f"{where}: the row has no atomic numbers.")
    numbers = _array("numbers", value, None, where)
    if numbers.ndim != 1 or not numbers.size or (numbers != np.round(numbers)).any():
        raise DataError(f"{where}: the atomic numbers must be a list of integers, got shape {numbers.shape}.")
    if numbers.min() < 1 or numbers.max() > HEAVIEST:
        bad = int(np.flatnonzero((numbers < 1) | (numbers > HEAVIEST))[0])
        raise DataError(f"{where}: atom {bad} has the atomic number {numbers[bad]:g}, which is no element.")
    return numbers.astype(np.int64)


def _array(name: str, value: Any, shape: tuple[int, ...] | None, where: str) -> np.ndarray:
    """Return float64 numbers of a shape (None: any)."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: {name} must be numbers, got {str(value)[:60]}.") from error
    if shape is not None and array.shape != shape:
        raise DataError(f"{where}: {name} must have shape {shape}, got {array.shape}.")
    return array


def _per_atom(name: str, value: Any, item: tuple[int, ...] | None, size: int, where: str) -> np.ndarray:
    array = _array(name, value, None, where)
    wanted = {(size, *item)} if item is not None else {(size,), (size, 3)}
    if array.shape not in wanted:
        shapes = " or ".join(str(shape) for shape in sorted(wanted))
        raise DataError(f"{where}: {name} must have shape {shapes}, got {array.shape}.")
    return array


def _number(name: str, value: Any, where: str) -> float:
    array = _array(name, value, None, where)
    if array.size != 1:
        raise DataError(f"{where}: {name} must be one number, got shape {array.shape}.")
    return float(array.item())


def _pbc(value: Any, where: str) -> np.ndarray:
    if value is None:
        return np.zeros(3, dtype=bool)
    pbc = np.asarray(value)
    if pbc.dtype.kind not in "bi" or pbc.shape not in {(), (3,)} or (pbc != pbc.astype(bool)).any():
        raise DataError(f"{where}: pbc must be true or false for three axes, got {str(value)[:60]}.")
    return np.array(np.broadcast_to(pbc, 3), dtype=bool)


def _constraints(value: Any, where: str) -> list[dict[str, Any]]:
    """Return constraints as ``[{"name": …, "kwargs": {…}}]``; old rows name the class in ``__name__``."""
    if isinstance(value, str):
        value = parse_json(value, where)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{where}: constraints must be a list of JSON objects.")
    found = []
    for item in value:
        name = item.get("name", item.get("__name__", ""))
        kwargs = item.get("kwargs", {key: part for key, part in item.items() if key not in ("name", "__name__")})
        if not isinstance(name, str) or not isinstance(kwargs, dict):
            raise DataError(f"{where}: a constraint has no name.")
        found.append({"name": name.rsplit(".", 1)[-1], "kwargs": kwargs})
    return found


def _fixed(constraints: list[dict[str, Any]], size: int, where: str) -> np.ndarray:
    """Return which atoms the constraints hold in all directions."""
    fixed = np.zeros(size, dtype=bool)
    for constraint in constraints:
        if constraint["name"] not in _HOLDS_ATOMS:
            continue
        kwargs = constraint["kwargs"]
        # ASE's mask of FixCartesian and FixScaled: true is held. Atoms held in some directions can still move.
        if not np.all(kwargs.get("mask", True)) and constraint["name"] != "FixAtoms":
            continue
        atoms: Any = next((kwargs[key] for key in ("indices", "a", "mask") if kwargs.get(key) is not None), [])
        index = np.atleast_1d(np.asarray(atoms))
        if index.size == 0:
            continue
        if index.dtype == bool and index.shape == (size,):
            fixed |= index
        elif index.dtype.kind in "iu" and index.ndim == 1 and -size <= index.min() and index.max() < size:
            fixed[index] = True
        else:
            raise DataError(f"{where}: {constraint['name']} holds atoms that the row does not have.")
    return fixed
