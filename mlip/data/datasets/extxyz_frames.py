"""Read the frames of extended-XYZ files, and say in one sentence what is wrong with those that are none."""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob
from os import PathLike
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz

from mlip.core.errors import DataError, did_you_mean

# What ASE's reader raises on malformed text; XYZError is an OSError.
_PARSE_ERRORS = (
    ValueError,
    KeyError,
    IndexError,
    OSError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
)


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
    """Read all frames of one extxyz file.

    Raises:
        DataError: the file is empty, truncated, or no extxyz; names the file and the frame (from 0).
    """
    num_frames = check_layout(path)
    with path.open(encoding="utf-8") as handle:
        frames = read_xyz(handle, index=slice(None))
        for number in range(num_frames):
            try:
                atoms = next(frames)
            except (StopIteration, *_PARSE_ERRORS) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise DataError(f"{path}:{number} is not a readable extxyz frame ({reason}).") from error
            _check_structure(atoms, f"{path}:{number}")
            yield atoms


def check_layout(path: Path) -> int:
    """Count the frames of a file line by line, without parsing them.

    ASE's reader stops without a word at the first blank line, and a number cut in the middle is still a
    number; so this is looked at first.

    Raises:
        DataError: as `read_frames`.
    """
    number = 0
    try:
        with path.open(encoding="utf-8") as handle:
            for line in handle:
                if not line.strip():
                    if any(rest.strip() for rest in handle):
                        raise DataError(
                            f"{path}: there are more lines after a blank line where frame {number} should "
                            "begin. Remove the blank line."
                        )
                    break
                _check_frame(handle, line, path, number)
                number += 1
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not a text file, an extxyz file was expected.") from error
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    if number == 0:
        raise DataError(f"'{path}' is empty, an extxyz file with at least one frame was expected.")
    return number


def _check_frame(handle: Iterator[str], first: str, path: Path, number: int) -> None:
    """Consume the lines of one frame after its first line."""
    try:
        num_atoms = int(first)
    except ValueError as error:
        raise DataError(
            f"'{path}' is not an extxyz file: frame {number} must begin with the number of atoms, "
            f"got {first.strip()[:40]!r}."
        ) from error
    if num_atoms < 1:
        raise DataError(f"{path}:{number} must have at least one atom, got {num_atoms}.")
    if next(handle, None) is None:
        raise DataError(f"'{path}' is truncated: frame {number} has no comment line.")
    line = "\n"
    for row in range(num_atoms):
        line = next(handle, "")
        if not line.strip():
            raise DataError(f"'{path}' is truncated: frame {number} has {row} of {num_atoms} atoms.")
    if not line.endswith("\n"):
        # Half a number is a number: 0.1234 cut to 0.12 would be read without complaint.
        raise DataError(
            f"'{path}' may be truncated: the last line of frame {number} has no line end. If the file is "
            "whole, add one."
        )


def _check_structure(atoms: Atoms, where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if bad.size:
        raise DataError(f"{where}: the position of atom {bad[0]} is not finite. Remove or repair the frame.")
    if not np.isfinite(atoms.cell.array).all():
        raise DataError(f"{where}: the cell is not finite. Remove or repair the frame.")
    if atoms.numbers.min() < 1:
        raise DataError(f"{where}: atom {atoms.numbers.argmin()} has no chemical element ('X').")
