"""The state an MD run begins with: a structure, a checkpoint, or the last frame of a trajectory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import Ensemble
from mlip.simulate.md_checkpoint import Checkpoint, previous_checkpoint, read_checkpoint
from mlip.simulate.trajectory import last_frame, rewind
from mlip.simulate.velocities import degrees_of_freedom, draw_velocities, remove_rigid_motion


@dataclass(frozen=True)
class MDFiles:
    """Where a run writes to; None keeps nothing.

    Attributes:
        trajectory: ASE ``.traj`` with positions, momenta, energies and forces in double precision.
        thermo: CSV.
        restart: continue from the checkpoint, or without one after the last frame of the trajectory.
        checkpoint: ``.npz`` with the whole state, see :mod:`mlip.simulate.md_checkpoint`.
        keep_previous: also keep the checkpoint before the last one.
        at: the step of the checkpoint to continue from, the last one or the one before; None takes the last.
        selected: extended XYZ with the structures to label, if any are to be selected.
        replica: number of the run among several, noted there.
    """

    trajectory: str | os.PathLike[str] | None = None
    thermo: str | os.PathLike[str] | None = None
    restart: bool = False
    checkpoint: str | os.PathLike[str] | None = None
    keep_previous: bool = False
    at: int | None = None
    selected: str | os.PathLike[str] | None = None
    replica: int | None = None


@dataclass
class Start:
    """The state a run begins with.

    Attributes:
        atoms: with velocities once it is complete.
        step: done so far.
        origin: step and time in fs from which times are counted.
        notes: what the user should know.
        recorded: whether this step is in the log and the trajectory.
        whole: whether the rows before it belong to the same run.
        checkpoint: where it comes from, if from one.
    """

    atoms: Atoms
    step: int = 0
    origin: tuple[int, float] = (0, 0.0)
    notes: list[str] = field(default_factory=list)
    recorded: bool = False
    whole: bool = True
    checkpoint: Checkpoint | None = None

    @property
    def restarted(self) -> bool:
        """Whether something was computed before."""
        return self.recorded or self.checkpoint is not None


def begin(atoms: Atoms, files: MDFiles, ensemble: Ensemble, settings: Mapping[str, Any]) -> Start:
    """Return where a run begins. The files are not changed yet.

    Args:
        atoms: the structure; of a restart constraints, masses, charge and spin are taken from it.
        files: of the run.
        ensemble: to be sampled.
        settings: with ``timestep``; those that differ from the ones before are noted.

    Raises:
        SimulationError: there is nothing to continue from, or it does not fit.
    """
    if not files.restart:
        return Start(atoms.copy())
    found = chosen_checkpoint(files)
    if found is None:
        return _from_frame(atoms, files, ensemble, settings["timestep"])
    _same_structure(atoms, found.numbers, files.checkpoint)
    if not np.array_equal(found.pbc, atoms.pbc):
        raise SimulationError(f"The checkpoint '{files.checkpoint}' is of a structure with other periodic axes.")
    start = Start(atoms.copy(), found.step, found.origin, list(found.notes), found.recorded, checkpoint=found)
    # As arrays: setters would apply constraints to what has gone through them already.
    start.atoms.cell[:] = found.cell
    start.atoms.positions[:] = found.positions
    start.atoms.set_array("momenta", found.momenta.copy(), float, (3,))
    if found.step:
        start.notes.append(f"Continued from step {found.step}.")
    if found.ensemble != ensemble.name:
        start.notes.append("The inner variables of the thermostat (and barostat) started afresh.")
    changed = {name: (found.settings.get(name), now) for name, now in settings.items()}
    for name, (before, now) in changed.items():
        if before != now:
            start.whole = False
            label = {"timestep": "time step in fs"}.get(name, name.replace("_", " "))
            start.notes.append(f"The {label} changed from {before} to {now} at step {start.step}.")
    before = found.settings.get("timestep", settings["timestep"])
    if before != settings["timestep"]:
        start.origin = found.step, found.origin[1] + (found.step - found.origin[0]) * before
    return start


def chosen_checkpoint(files: MDFiles) -> Checkpoint | None:
    """Read the checkpoint that a restart goes on from; None if there is none.

    Raises:
        SimulationError: it is damaged.
    """
    if files.checkpoint is None:
        return None
    for path in (Path(files.checkpoint), previous_checkpoint(files.checkpoint)):
        if path.is_file():
            found = read_checkpoint(path)
            if files.at is None or found.step == files.at:
                return found
    if files.at is not None:
        raise SimulationError(f"There is no checkpoint of step {files.at} at '{files.checkpoint}'.")
    return None


def take_back(start: Start, files: MDFiles) -> None:
    """Cut off what was written after the checkpoint; the log does so by itself.

    Raises:
        SimulationError: the trajectory was changed since.
    """
    mark = None if start.checkpoint is None else start.checkpoint.trajectory
    if mark is not None and files.trajectory is not None:
        rewind(files.trajectory, mark)


def _from_frame(atoms: Atoms, files: MDFiles, ensemble: Ensemble, timestep: float) -> Start:
    """Take the state from the last frame of the trajectory."""
    if files.trajectory is None:
        raise SimulationError("A restart needs the checkpoint or the trajectory of the run to be continued.")
    frame = last_frame(files.trajectory)
    if "step" not in frame.info or not frame.has("momenta"):
        raise SimulationError(
            f"'{files.trajectory}' has no step number or no velocities in its last frame, so it was not written by "
            "an MD run. Start without a restart."
        )
    _same_structure(atoms, frame.numbers, files.trajectory)
    step = int(frame.info["step"])
    start = Start(frame, step, (step, float(frame.info["time_fs"])), recorded=True, whole=False)
    start.notes.append(f"Continued from step {start.step}.")
    if ensemble.inner:
        start.notes.append("The inner variables of the thermostat (and barostat) started afresh.")
    for name, before, now in (
        ("ensemble", frame.info.get("ensemble"), ensemble.name),
        ("time step in fs", frame.info.get("timestep_fs"), timestep),
    ):
        if before != now:
            start.notes.append(f"The {name} changed from {before} to {now} at step {start.step}.")
    return start


def _same_structure(atoms: Atoms, numbers: np.ndarray, path: object) -> None:
    if not np.array_equal(numbers, atoms.numbers):
        raise SimulationError(
            f"'{path}' holds {Atoms(numbers).get_chemical_formula()}, the structure is "
            f"{atoms.get_chemical_formula()} (or its atoms are in another order). Give the structure the run was "
            "started from."
        )


def set_velocities(start: Start, ensemble: Ensemble, rng: np.random.Generator, keep: bool) -> int:
    """Draw or keep velocities; return the number of degrees of freedom that carry heat.

    Raises:
        SimulationError: there are no velocities to keep, or nothing can move.
    """
    atoms = start.atoms
    if start.checkpoint is not None:
        # Counted anew, rotations of a molecule that is almost linear might come out otherwise.
        same = start.checkpoint.ensemble == ensemble.name
        return start.checkpoint.freedom if same else degrees_of_freedom(atoms, ensemble.momentum_conserved)
    if not (keep or start.restarted):
        draw_velocities(atoms, ensemble.temperature, rng)
    elif not atoms.has("momenta"):
        raise SimulationError("The structure has no velocities to keep. Let them be drawn.")
    elif not start.restarted and ensemble.momentum_conserved:
        remove_rigid_motion(atoms)
    freedom = degrees_of_freedom(atoms, ensemble.momentum_conserved)
    if freedom <= 0:
        raise SimulationError(f"A structure of {len(atoms)} atom(s) has no internal motion that MD could follow.")
    return freedom
