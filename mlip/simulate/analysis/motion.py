"""A trajectory as arrays, with positions that do not jump at the borders of the cell."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory

from mlip.core.errors import SimulationError, StructureError
from mlip.core.units import FS
from mlip.simulate.constraints import free_dimensions, free_translations
from mlip.simulate.structures import read_frames


@dataclass(frozen=True)
class Motion:
    """The same atoms at equally spaced times.

    Attributes:
        numbers: (atoms,) atomic numbers.
        masses: (atoms,) u.
        pbc: (3,).
        time: (frames,) fs.
        positions: (frames, atoms, 3) Å, as in the file.
        velocities: (frames, atoms, 3) Å/fs, or None if the file has none.
        cells: (frames, 3, 3) Å.
        dimensions: (atoms,) along how many directions constraints let each atom move.
        drifts: (3, 3) projection on the directions along which constraints hold the whole to no place.
    """

    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    time: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None
    cells: np.ndarray
    dimensions: np.ndarray
    drifts: np.ndarray

    @property
    def mobile(self) -> np.ndarray:
        """Which atoms can move at all, (atoms,)."""
        return self.dimensions > 0

    @property
    def interval(self) -> float:
        """Time between frames in fs."""
        return float(self.time[-1] - self.time[0]) / (len(self.time) - 1)

    @property
    def species(self) -> list[int]:
        """Atomic numbers that occur, in ascending order."""
        return sorted({int(number) for number in self.numbers})

    @cached_property
    def unwrapped(self) -> np.ndarray:
        """Positions in Å, (frames, atoms, 3), along which every atom moves by the shortest way from frame to frame.

        In cells that change, displacements between wrapped positions are added up (von Bülow, Bullerjahn and Hummer,
        J. Chem. Phys. 153, 021101, 2020), since images that are far away are moved by the barostat, too.
        """
        if not self.pbc.any():
            return self.positions
        cells = np.array([Atoms(cell=cell, pbc=self.pbc).cell.complete().array for cell in self.cells])
        inverse = np.linalg.inv(cells)
        fractions = self.positions @ inverse
        wrapped = np.where(self.pbc, fractions - np.floor(fractions), fractions) @ cells
        moved = np.diff(wrapped, axis=0) @ inverse[1:]
        moved = np.where(self.pbc, moved - np.round(moved), moved) @ cells[1:]
        return np.concatenate([self.positions[:1], self.positions[0] + np.cumsum(moved, axis=0)])

    def without_drift(self, values: np.ndarray) -> np.ndarray:
        """Take the motion of the centre of mass, where it is free, out of positions or velocities, shaped alike."""
        weights = self.masses / self.masses.sum()
        return values - (np.einsum("tax,a->tx", values, weights) @ self.drifts)[:, None]

    def after(self, skip: float, start: float | None = None) -> Motion:
        """Return the motion without the first ``skip`` fs, counted from its first frame or from ``start``.

        Raises:
            SimulationError: fewer than two frames are left.
        """
        kept = self.time >= (self.time[0] if start is None else start) + skip
        if kept.sum() < 2:
            raise SimulationError(f"Fewer than two frames are left when the first {skip:g} fs are left out.")
        velocities = None if self.velocities is None else self.velocities[kept]
        rest = {"time": self.time[kept], "positions": self.positions[kept], "cells": self.cells[kept]}
        return replace(self, **rest, velocities=velocities)


def read_motion(path: str | os.PathLike[str], interval: float | None = None) -> Motion:
    """Read a trajectory and turn it into arrays, see `frames_of` and `motion_of`.

    Raises:
        SimulationError: no such file, fewer than two frames, frames of other atoms, or no times.
    """
    return motion_of(frames_of(path), interval, str(path))


def frames_of(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read a trajectory: ``.traj`` of an MD run, or any file that ASE reads.

    Raises:
        SimulationError: no such file, or no trajectory.
    """
    path = Path(path)
    if not path.is_file():
        raise SimulationError(f"There is no trajectory '{path}'.")
    try:
        if path.suffix == ".traj":
            with Trajectory(str(path)) as reader:
                return list(reader)
        return read_frames(path)
    except StructureError as error:
        raise SimulationError(str(error)) from error
    except (OSError, ValueError, LookupError, EOFError, RuntimeError) as error:
        raise SimulationError(f"'{path}' cannot be read as a trajectory ({error}).") from error


def motion_of(frames: list[Atoms], interval: float | None = None, name: str = "the trajectory") -> Motion:
    """Turn frames into arrays.

    Frames that are not a multiple of the interval after the first one, as at the end of a run, are left out.

    Args:
        frames: with the time of each in ``info["time_fs"]``.
        interval: fs between frames, for those that do not state their times.
        name: of the trajectory, for messages.

    Raises:
        SimulationError: fewer than two frames, frames of other atoms, no times, or two intervals.
    """
    if len(frames) < 2:
        raise SimulationError(f"'{name}' has {len(frames)} frame(s); an analysis needs two or more.")
    first = frames[0]
    for number, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, first.numbers):
            raise SimulationError(
                f"'{name}' has frames of different atoms, so nothing can be followed through it: frame {number} is "
                f"{frame.get_chemical_formula()}, the first is {first.get_chemical_formula()}."
            )
    time = np.array([float(frame.info.get("time_fs", np.nan)) for frame in frames])
    if interval is not None:
        if np.isfinite(time).all():
            raise SimulationError(f"'{name}' states the times of its frames: leave the interval between them out.")
        time = interval * np.arange(len(frames))
    if not np.isfinite(time).all():
        raise SimulationError(f"'{name}' does not state the times of its frames: give the interval between them in fs.")
    kept = _even(time)
    frames, time = [frames[k] for k in kept], time[kept]
    moving = all(frame.has("momenta") for frame in frames)
    return Motion(
        numbers=first.numbers,
        masses=first.get_masses(),
        pbc=first.pbc,
        time=time,
        positions=np.array([frame.positions for frame in frames]),
        velocities=np.array([frame.get_velocities() * FS for frame in frames]) if moving else None,
        cells=np.array([frame.cell.array for frame in frames]),
        dimensions=free_dimensions(first),
        drifts=free_translations(first),
    )


def _even(time: np.ndarray) -> np.ndarray:
    """Return the numbers of the frames that are equally far apart: a run that ended in between has odd ones.

    The first frame may be one of them, where an earlier part of the run is left out.
    """
    if (np.diff(time) <= 0).any():
        raise SimulationError("The times of the frames do not grow: the trajectory is put together from several runs.")
    gap = float(np.median(np.diff(time)))
    start = int(np.argmax(np.abs(np.diff(time) - gap) < 1e-3 * gap))
    places = (time - time[start]) / gap
    kept = np.flatnonzero(np.abs(places - np.round(places)) < 1e-3)
    if len(kept) < 2 or (np.diff(np.round(places[kept])) != 1).any():
        raise SimulationError("The frames are not equally far apart in time; write them at one interval.")
    return kept
