"""Read the frames of extended-XYZ files, and say in one sentence what is wrong with those that are none."""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.data import chemical_symbols
from ase.io.extxyz import per_config_properties, read_xyz

from mlip.core.errors import DataError, did_you_mean
from mlip.data.formats.bounded import open_binary
from mlip.data.formats.extxyz_columns import DEFAULT_PROPERTIES, parse_layout, read_columns
from mlip.data.formats.extxyz_comment import parse_comment
from mlip.data.formats.extxyz_lines import empty, raw_frames
from mlip.data.formats.frame import Frame

# What ASE's reader raises on malformed text; XYZError is an OSError.
_PARSE_ERRORS = (
    ValueError,
    LookupError,
    OSError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    ArithmeticError,
)
_RESULTS = frozenset(all_properties)
_FRAME_RESULTS = frozenset(per_config_properties)
_PLAIN_RESULTS = frozenset({"energy", "free_energy", "magmom"})
_LARGEST_NUMBER = len(chemical_symbols) - 1


def expand_paths(path: str | PathLike[str] | list[str] | tuple[str, ...]) -> list[Path]:
    """Return the files behind one path, a list of paths or a glob pattern, in sorted order per pattern.

    Raises:
        DataError: nothing is there, or a path is a folder.
    """
    if path is None or path in ("", "???"):
        raise DataError("The data set needs a path: set data.path to an extxyz file, a list of files or a glob.")
    found: list[Path] = []
    for item in path if isinstance(path, list | tuple) else [path]:
        text = str(Path(item).expanduser())
        matches = [text] if Path(text).exists() else sorted(glob(text, recursive=True))
        if not matches:
            folder = Path(text).parent
            names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
            raise DataError(f"No file matches '{text}'.{did_you_mean(Path(text).name, names)}")
        found.extend(Path(match) for match in matches)
    for file in found:
        if file.is_dir():
            raise DataError(f"'{file}' is a folder, an extxyz file was expected: name the files or use '{file}/*.xyz'.")
    repeated = {str(file) for file in found if found.count(file) > 1}
    if repeated:
        raise DataError(f"Each file may be listed once, these are repeated: {', '.join(sorted(repeated))}.")
    return found


def read_frames(path: Path) -> Iterator[Atoms]:
    """Read all frames of one extxyz file, compressed or not.

    Raises:
        DataError: the file is empty, truncated, or no extxyz; names the file and the frame (from 0).
    """
    with open_binary(path) as stream:
        for frame in frames_from(stream, str(path)):
            if isinstance(frame, DataError):
                raise frame
            yield frame.to_atoms()


def frames_from(stream: BinaryIO, where: str, first: int = 0) -> Iterator[Frame | DataError]:
    """Read the frames of an open binary stream: a file, a member of an archive.

    Args:
        stream: from the beginning of a frame; it is not closed.
        where: name of the file, for messages.
        first: number of the first frame, for messages.

    Yields:
        Frames; a frame that is whole but cannot be understood is handed out as the `DataError` that says why,
        naming "where:frame".

    Raises:
        DataError: the stream is empty, truncated, or no extxyz.
    """
    number = first - 1
    for number, comment, rows in raw_frames(stream, where, first):
        try:
            yield parse_frame(comment, rows, f"{where}:{number}")
        except DataError as error:
            yield error
    if number < first:
        raise DataError(empty(where))


def parse_frame(comment: str, rows: list[str], where: str) -> Frame:
    """Read one frame from its comment line and the lines of its atoms.

    Frames with the usual columns are read here; others are left to ASE's reader.

    Raises:
        DataError: it cannot be understood, or holds positions, a cell or elements that cannot be right.
    """
    try:
        info = parse_comment(comment)
        layout = parse_layout(info.get("Properties", DEFAULT_PROPERTIES))
        if layout is None:
            text = f"{len(rows)}\n{comment}\n" + "\n".join(rows) + "\n"
            frame = Frame.from_atoms(next(read_xyz(StringIO(text), index=slice(None))))
        else:
            frame = _build(info, read_columns(rows, layout))
    except _PARSE_ERRORS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{where} is not a readable extxyz frame ({reason}).") from error
    _check_structure(frame, where)
    return frame


def _build(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> Frame:
    """Sort the entries and columns of a frame into what ASE's reader makes of them."""
    info.pop("Properties", None)
    lattice = info.pop("Lattice", None)
    pbc = _periodic(info.pop("pbc")) if "pbc" in info else np.full(3, lattice is not None)
    # Nine numbers are taken column by column for matrices, and lattice vectors are the columns.
    cell = np.zeros((3, 3)) if lattice is None else np.ascontiguousarray(lattice.T, dtype=np.float64)
    move = arrays.pop("move_mask", None)
    frame = Frame(arrays.pop("numbers"), arrays.pop("positions"), cell, pbc, info)
    frame.fixed = None if move is None else ~move.astype(bool)
    for name, array in arrays.items():
        if name in _RESULTS:
            frame.results[name] = array
        else:
            frame.arrays[name] = array
    for name in _FRAME_RESULTS & info.keys():
        value = info.pop(name)
        frame.results[name] = value if name in _PLAIN_RESULTS else np.array(value, dtype=np.float64)
    return frame


def _periodic(value: Any) -> np.ndarray:
    """Return (3,) bools for what ``pbc=`` says."""
    if isinstance(value, bool | int) and value in (0, 1):
        return np.full(3, bool(value))
    values = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(values, list) or len(values) != 3 or any(flag not in (0, 1) for flag in values):
        raise ValueError(f"pbc must be three of T and F, got {value}")
    return np.array(values, dtype=bool)


def _check_structure(frame: Frame, where: str) -> None:
    if not np.isfinite(frame.positions).all():
        bad = np.flatnonzero(~np.isfinite(frame.positions).all(axis=1))
        raise DataError(f"{where}: the position of atom {bad[0]} is not finite. Remove or repair the frame.")
    if not np.isfinite(frame.cell).all():
        raise DataError(f"{where}: the cell is not finite. Remove or repair the frame.")
    numbers = frame.numbers
    if numbers.min() < 1 or numbers.max() > _LARGEST_NUMBER:
        atom = numbers.argmin() if numbers.min() < 1 else numbers.argmax()
        raise DataError(f"{where}: atom {atom} has no chemical element ({numbers[atom]}).")
