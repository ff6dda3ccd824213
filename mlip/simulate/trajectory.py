"""Trajectories in ASE's binary ``.traj`` format: full double precision, momenta, and cheap to append to.

A frame that was cut short by a crash is not counted by the format, so what came before stays readable.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from ase.io.ulm import InvalidULMFileError

from mlip.core.errors import SimulationError
from mlip.core.fields import FIELDS, SPREADS
from mlip.simulate.carried import without_labels

_COUNT = 32
"""Byte at which the format has the number of frames; the place of the table of their places follows."""

_TABLE_GROWTH = 42

_RESULTS = ("energy", "free_energy", "forces", "stress", "magmoms")


def snapshot(atoms: Atoms, info: Mapping[Any, Any] | None = None) -> Atoms:
    """Copy a structure with the results that its calculator already has, and no labels that its file had as arrays.

    Args:
        atoms: the structure, with momenta and constraints.
        info: becomes the copy's ``info``; what the input file had there is left out, since it may be
            anything, except for charge and spin, which a model may need again. Spreads of a committee are
            added, those of atoms as arrays, such as ``forces_std``.
    """
    frame = atoms.copy()
    frame.arrays = without_labels(frame.arrays)
    frame.info = {name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info} | dict(info or {})
    results = getattr(atoms.calc, "results", {})
    for name in SPREADS.values():
        # A restart brings those of the frame that it starts from, and a file may.
        frame.arrays.pop(name, None)
        frame.info.pop(name, None)
        if name in results:
            (frame.arrays if FIELDS[name].level == "atom" else frame.info)[name] = results[name]
    frame.calc = SinglePointCalculator(frame, **{name: results[name] for name in _RESULTS if name in results})
    return frame


@dataclass(frozen=True)
class FileMark:
    """How far a trajectory file went at some moment.

    Attributes:
        frames: in it.
        size: bytes.
        table: byte at which the table of the places of the frames is; it moves as the file grows.
    """

    frames: int
    size: int
    table: int


class FrameWriter:
    """Appends structures with their results to a trajectory file; use it as a context manager.

    Attributes:
        path: the file.
        num_frames: frames in the file, those of earlier runs included.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        """Open the file.

        Raises:
            SimulationError: the file cannot be written, or is to be appended to and is no trajectory.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.num_frames = 0
            if append:
                with Trajectory(str(self.path)) as frames:
                    self.num_frames = len(frames)
            self._file = Trajectory(str(self.path), "a" if append else "w")
        except OSError as error:
            raise SimulationError(f"Cannot write the trajectory '{self.path}': {error}.") from error

    def write(self, atoms: Atoms, **info: Any) -> None:
        """Append one frame with the energy, forces and stress that the calculator already has.

        Spreads of a committee go into the ``info`` of the frame, those of its atoms, too.

        Args:
            atoms: the structure, with momenta and constraints.
            info: numbers and strings to keep with the frame, such as ``step``.

        Raises:
            SimulationError: the disk is full or the file cannot be written any more.
        """
        frame = snapshot(atoms, info)
        # The format has no room for arrays of its own.
        frame.info |= {name: frame.arrays.pop(name) for name in SPREADS.values() if name in frame.arrays}
        try:
            self._file.write(frame)
        except OSError as error:
            raise SimulationError(
                f"Cannot write to the trajectory '{self.path}' ({error.strerror or error}); its first "
                f"{self.num_frames} frames are kept. Free some space and continue from there."
            ) from error
        self.num_frames += 1

    def mark(self) -> FileMark:
        """Bring all frames onto the disk and return how far the file goes, for `rewind`.

        Raises:
            SimulationError: the disk is full.
        """
        backend = self._file.backend
        try:
            backend.fd.flush()
            os.fsync(backend.fd.fileno())
        except OSError as error:
            raise SimulationError(
                f"Cannot write to the trajectory '{self.path}' ({error.strerror or error})."
            ) from error
        return FileMark(self.num_frames, backend.fd.seek(0, os.SEEK_END), int(backend.pos0))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def rewind(path: str | os.PathLike[str], mark: FileMark) -> None:
    """Take a trajectory back to what it was when it was marked, to the byte.

    Raises:
        SimulationError: the file is gone, shorter than it was, or cannot be written.
    """
    path = Path(path)
    if mark.frames == 0:
        path.unlink(missing_ok=True)
        return
    found = path.stat().st_size if path.is_file() else 0
    if found < mark.size:
        raise SimulationError(
            f"The trajectory '{path}' has {found} bytes and had {mark.size} when the checkpoint was written, so it was "
            "changed since. Put it back, or start without a restart."
        )
    try:
        with path.open("r+b") as handle:
            handle.seek(_COUNT)
            handle.write(struct.pack("<qq", mark.frames, mark.table))
            handle.truncate(mark.size)
            # Places of frames that are no more; the table has room for 1, 42, 42², … of them.
            room = 1
            while room < mark.frames:
                room *= _TABLE_GROWTH
            handle.seek(mark.table + 8 * mark.frames)
            handle.write(bytes(8 * (room - mark.frames)))
    except OSError as error:
        raise SimulationError(f"Cannot write the trajectory '{path}' ({error.strerror or error}).") from error


def last_frame(path: str | os.PathLike[str]) -> Atoms:
    """Read the last whole frame of a trajectory, with momenta, constraints and ``info``.

    Raises:
        SimulationError: no such file, not a trajectory, or no frame in it.
    """
    path = Path(path)
    if not path.is_file():
        raise SimulationError(f"There is no trajectory '{path}' to continue from. Start without a restart.")
    try:
        with Trajectory(str(path)) as frames:
            if len(frames):
                return frames[-1]
    except (InvalidULMFileError, OSError, EOFError, ValueError, LookupError) as error:
        raise SimulationError(
            f"'{path}' is damaged or no ASE trajectory, so nothing can be continued from it."
        ) from error
    raise SimulationError(f"The trajectory '{path}' has no frame to continue from. Start without a restart.")
