"""The state an MD run begins with: a structure, a checkpoint, or the last frame of a trajectory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import Ensemble
from mlip.simulate.md_checkpoint import Checkpoint, previous_checkpoint, read_checkpoint
from mlip.simulate.md_traits import inherited, refuse_others, traits_of
from mlip.simulate.trajectory import last_frame, rewind
from mlip.simulate.velocities import degrees_of_freedom, draw_velocities, remove_rigid_motion

RAMP = ("final_temperature", "ramp_steps")
"""Settings of a ramp besides the temperature at which it begins."""

OTHER_SEED = "Another seed has no effect on a restart: the random numbers go on where they had stopped."


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
        replicas: how many these are; a restart with another number is refused.
        locked: whether the caller keeps other processes away already, see :mod:`mlip.simulate.lock`.
        clear: takes away results of an earlier run; called when a new one is sure to begin, before its first file.
    """

    trajectory: str | os.PathLike[str] | None = None
    thermo: str | os.PathLike[str] | None = None
    restart: bool = False
    checkpoint: str | os.PathLike[str] | None = None
    keep_previous: bool = False
    at: int | None = None
    selected: str | os.PathLike[str] | None = None
    replica: int | None = None
    replicas: int | None = None
    locked: bool = False
    clear: Callable[[], None] | None = None

    @property
    def lock(self) -> Path | None:
        """The file that keeps other processes away; None where nothing is written."""
        names = (self.trajectory, self.checkpoint, self.thermo, self.selected)
        path = next((Path(name) for name in names if name is not None), None)
        return None if self.locked or path is None else path.with_name(f".{path.name}.lock")


@dataclass
class Start:
    """The state a run begins with.

    Attributes:
        atoms: with velocities once it is complete.
        step: done so far.
        origin: step and time in fs from which times are counted.
        notes: what the user should know.
        recorded: whether this step is in the log and the trajectory.
        since: step after which rows belong to this run, with these settings; -1 if all do.
        checkpoint: where it comes from, if from one.
        ramp: step and temperature in K at which the ramp of the thermostat began, if there is one.
        seed: of the random numbers.
        potential: eV, that the structure had before; None if it is not known.
        timestep, ensemble: fs and name, before; None if there was no before.
    """

    atoms: Atoms
    step: int = 0
    origin: tuple[int, float] = (0, 0.0)
    notes: list[str] = field(default_factory=list)
    recorded: bool = False
    since: int = -1
    checkpoint: Checkpoint | None = None
    ramp: tuple[int, float] = (0, 0.0)
    seed: int = 0
    potential: float | None = None
    timestep: float | None = None
    ensemble: str | None = None

    @property
    def restarted(self) -> bool:
        """Whether something was computed before."""
        return self.recorded or self.checkpoint is not None


def begin(
    atoms: Atoms, files: MDFiles, ensemble: Ensemble, settings: Mapping[str, Any], traits: Mapping[str, Any], seed: int
) -> Start:
    """Return where a run begins. The files are not changed yet.

    Args:
        atoms: the structure; of a restart constraints and masses are taken from it, charge and spin if it states them.
        files: of the run.
        ensemble: to be sampled.
        settings: with ``timestep``; those that differ from the ones before are noted.
        traits: those that differ are refused.
        seed: of the random numbers.

    Raises:
        SimulationError: there is nothing to continue from, or it does not fit.
    """
    begun = 0, ensemble.temperature
    if not files.restart:
        return Start(atoms.copy(), ramp=begun, seed=seed)
    found = chosen_checkpoint(files)
    if found is None:
        start = _from_frame(atoms, files, ensemble, settings)
        start.ramp, start.seed = begun, seed
        return start
    _same_structure(atoms, found.numbers, found.pbc, files.checkpoint)
    refuse_others(files.checkpoint, found.traits, traits)
    start = Start(atoms.copy(), found.step, found.origin, list(found.notes), found.recorded, checkpoint=found)
    start.ramp, start.seed, start.potential = found.ramp, found.seed, found.potential
    start.since, start.ensemble = found.since, found.ensemble
    start.atoms.info.update(inherited(found.traits, traits))
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
            start.since = found.step if found.recorded else found.step - 1
            label = {"timestep": "time step in fs"}.get(name, name.replace("_", " "))
            start.notes.append(f"The {label} changed from {before} to {now} at step {start.step}.")
    _take_up_ramp(start, found, settings)
    if seed != found.seed and OTHER_SEED not in start.notes:
        start.notes.append(OTHER_SEED)
    before = start.timestep = found.settings.get("timestep", settings["timestep"])
    if before != settings["timestep"]:
        start.origin = found.step, found.origin[1] + (found.step - found.origin[0]) * before
    return start


def on_ramp(ramp: tuple[int, float], final: float, last: int, step: int) -> float:
    """Return the temperature in K at a step, on the straight line from where a ramp began to its end."""
    begun, temperature = ramp
    return temperature if last <= begun else temperature + (final - temperature) * (step - begun) / (last - begun)


def _take_up_ramp(start: Start, found: Checkpoint, settings: Mapping[str, Any]) -> None:
    """Let a ramp that was changed begin here, at the temperature that the thermostat has got to."""
    if all(found.settings.get(name) == settings[name] for name in ("temperature", *RAMP)):
        return
    final, last = (found.settings.get(name) for name in RAMP)
    now = settings["temperature"]
    if now == found.settings.get("temperature") and final is not None:
        now = on_ramp(found.ramp, final, last, found.step)
    start.ramp = found.step, now
    final, last = (settings[name] for name in RAMP)
    if final is not None and last > found.step:
        start.notes.append(f"The thermostat goes from {now:g} K at step {found.step} to {final:g} K at step {last}.")


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


def _from_frame(atoms: Atoms, files: MDFiles, ensemble: Ensemble, settings: Mapping[str, Any]) -> Start:
    """Take the state from the last frame of the trajectory."""
    if files.trajectory is None:
        raise SimulationError("A restart needs the checkpoint or the trajectory of the run to be continued.")
    frame = last_frame(files.trajectory)
    if "step" not in frame.info or not frame.has("momenta"):
        raise SimulationError(
            f"'{files.trajectory}' has no step number or no velocities in its last frame, so it was not written by "
            "an MD run. Start without a restart."
        )
    _same_structure(atoms, frame.numbers, frame.pbc, files.trajectory)
    # A frame knows neither the model nor how many replicas there are.
    refuse_others(files.trajectory, traits_of(frame), traits_of(atoms))
    step = int(frame.info["step"])
    start = Start(frame, step, (step, float(frame.info["time_fs"])), recorded=True, since=step)
    start.potential = getattr(frame.calc, "results", {}).get("energy")
    start.timestep, start.ensemble = frame.info.get("timestep_fs"), frame.info.get("ensemble")
    start.notes.append(f"Continued from step {start.step}.")
    if ensemble.inner:
        start.notes.append("The inner variables of the thermostat (and barostat) started afresh.")
    for name, before, now in (
        ("ensemble", frame.info.get("ensemble"), ensemble.name),
        ("time step in fs", frame.info.get("timestep_fs"), settings["timestep"]),
    ):
        if before != now:
            start.notes.append(f"The {name} changed from {before} to {now} at step {start.step}.")
    final, last = (settings[name] for name in RAMP)
    if final is not None and last > step:
        now = on_ramp((0, ensemble.temperature), final, last, step)
        start.notes.append(
            f"The thermostat goes on at {now:g} K, as on a ramp from {ensemble.temperature:g} K at step 0."
        )
    return start


def _same_structure(atoms: Atoms, numbers: np.ndarray, pbc: np.ndarray, path: object) -> None:
    if not np.array_equal(numbers, atoms.numbers):
        raise SimulationError(
            f"'{path}' holds {Atoms(numbers).get_chemical_formula()}, the structure is "
            f"{atoms.get_chemical_formula()} (or its atoms are in another order). Give the structure the run was "
            "started from, or start anew with --overwrite."
        )
    if not np.array_equal(pbc, atoms.pbc):
        raise SimulationError(
            f"'{path}' is of a structure with other periodic axes: give the one the run was started from, or start "
            "anew with --overwrite."
        )


def set_velocities(start: Start, ensemble: Ensemble, rng: np.random.Generator, keep: bool) -> int:
    """Draw or keep velocities; return the number of degrees of freedom that carry heat.

    Those that are kept lose net momentum and rotation, which are no heat, whatever the ensemble; those of a restart
    only where the ensemble was changed: Langevin dynamics leaves the whole moving, and others would keep that.

    Raises:
        SimulationError: there are no velocities to keep, or nothing can move.
    """
    atoms = start.atoms
    if start.checkpoint is not None and start.checkpoint.ensemble == ensemble.name:
        # Counted anew, rotations of a molecule that is almost linear might come out otherwise.
        return start.checkpoint.freedom
    if not (keep or start.restarted):
        draw_velocities(atoms, ensemble.temperature, rng)
    elif not atoms.has("momenta"):
        raise SimulationError("The structure has no velocities to keep. Let them be drawn.")
    elif not start.restarted or (ensemble.momentum_conserved and start.ensemble != ensemble.name):
        remove_rigid_motion(atoms)
    freedom = degrees_of_freedom(atoms, ensemble.momentum_conserved)
    if freedom <= 0:
        raise SimulationError(f"A structure of {len(atoms)} atom(s) has no internal motion that MD could follow.")
    return freedom
