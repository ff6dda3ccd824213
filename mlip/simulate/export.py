"""Trajectories for other programs: extended XYZ, which OVITO reads, and HDF5 in the H5MD layout of MDAnalysis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory
from ase.units import kJ, mol

from mlip.core.errors import SimulationError
from mlip.core.files import write_atomically
from mlip.core.units import FS

H5MD_SUFFIXES = (".h5", ".h5md", ".hdf5")
SUFFIXES = {"extxyz": "xyz", "h5md": "h5"}
"""Of the formats."""

KJ_PER_MOL = kJ / mol
"""In eV; MDAnalysis refuses files with forces in eV/Å."""

_BLOCK = 64
"""Frames that are written at once."""


def export_trajectory(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Write a ``.traj`` file of an MD run in the format of another file's suffix, whole or not at all.

    Args:
        source: the trajectory.
        target: ``.xyz`` and ``.extxyz`` give extended XYZ, ``.h5``, ``.h5md`` and ``.hdf5`` give H5MD.

    Returns:
        The number of frames.

    Raises:
        SimulationError: another suffix, no .traj file, an empty trajectory, or (H5MD) frames of different atoms.
        MlipError: the file cannot be written.
    """
    target = Path(target)
    if target.suffix in H5MD_SUFFIXES:
        write = _write_h5md
    elif target.suffix in (".xyz", ".extxyz"):
        write = _write_extxyz
    else:
        raise SimulationError(
            f"'{target}' has a suffix that stands for no format here: use .xyz or .extxyz (extended XYZ), or .h5, "
            ".h5md or .hdf5 (H5MD)."
        )
    if Path(source).suffix != ".traj":
        raise SimulationError(f"'{source}' is no .traj file of an MD run, which is what can be exported.")
    with Trajectory(os.fspath(source)) as frames:
        number = len(frames)
        if not number:
            raise SimulationError(f"The trajectory '{source}' has no frame.")
        write_atomically(target, lambda part: write(part, frames))
    return number


def _write_extxyz(path: Path, frames: Any) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for frame in _frames(frames):
            ase.io.write(handle, frame, format="extxyz")


def _frames(frames: Any) -> Iterator[Atoms]:
    for k in range(len(frames)):
        yield frames[k]


def _write_h5md(path: Path, frames: Any) -> None:
    """Write H5MD 1.1 (de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546, 2014)."""
    import h5py

    from mlip import __version__

    first = frames[0]
    with h5py.File(path, "w") as file:
        root = file.create_group("h5md")
        root.attrs["version"] = np.array([1, 1], dtype=np.int32)
        root.create_group("author").attrs["name"] = "mlip"
        creator = root.create_group("creator")
        creator.attrs["name"], creator.attrs["version"] = "mlip", __version__
        atoms = file.create_group("particles/atoms")
        box = atoms.create_group("box")
        box.attrs["dimension"] = np.int32(3)
        box.attrs["boundary"] = np.array([b"periodic" if axis else b"none" for axis in first.pbc])
        # Atomic numbers as an enumeration, so that the symbols can be read off the file.
        symbols = {symbol: int(number) for symbol, number in zip(first.symbols, first.numbers)}
        kind = h5py.enum_dtype(symbols, basetype=np.int32)
        atoms.create_dataset("species", data=first.numbers.astype(np.int32), dtype=kind)
        atoms.create_dataset("mass", data=first.get_masses()).attrs["unit"] = "u"
        series = {
            "position": (atoms, "Angstrom", lambda f: f.positions),
            "velocity": (atoms, "Angstrom fs-1", lambda f: f.get_velocities() * FS),
        }
        if "forces" in first.calc.results:
            series["force"] = (atoms, "kJ mol-1 Angstrom-1", lambda f: f.calc.results["forces"] / KJ_PER_MOL)
        if "energy" in first.calc.results:
            observables = file.create_group("observables")
            series["potential_energy"] = (observables, "eV", lambda f: f.calc.results["energy"])
        if first.pbc.any():
            series["edges"] = (box, "Angstrom", lambda f: f.cell.array)
        _write_series(frames, series, first.numbers)


def _write_series(frames: Any, series: dict[str, Any], numbers: np.ndarray) -> None:
    """Write what changes in time; all share the datasets of step and time."""
    total, step, time = len(frames), None, None
    data = {}
    example = frames[0]
    for name, (group, unit, get) in series.items():
        element = group.create_group(name)
        shape = np.shape(get(example))
        data[name] = element.create_dataset("value", (total, *shape), dtype=np.float64, chunks=(1, *shape))
        data[name].attrs["unit"] = unit
        if step is None:
            step = element.create_dataset("step", (total,), dtype=np.int64)
            time = element.create_dataset("time", (total,), dtype=np.float64)
            time.attrs["unit"] = "fs"
        else:
            element["step"], element["time"] = step, time
    for begin in range(0, total, _BLOCK):
        block = [frames[k] for k in range(begin, min(begin + _BLOCK, total))]
        if any(not np.array_equal(frame.numbers, numbers) for frame in block):
            raise SimulationError("H5MD needs the same atoms in all frames. Export to extended XYZ instead.")
        place = slice(begin, begin + len(block))
        for name, (_, _, get) in series.items():
            data[name][place] = np.array([get(frame) for frame in block])
        step[place] = [frame.info.get("step", begin + k) for k, frame in enumerate(block)]
        time[place] = [frame.info.get("time_fs", 0.0) for frame in block]
