"""Molecular dynamics: one function for all ensembles, with a trajectory, a log, restarts and guards."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import Ensemble, require_positive
from mlip.simulate.guards import Limits
from mlip.simulate.md_loop import MDLoop, Progress
from mlip.simulate.md_summary import MDSummary, summarise
from mlip.simulate.thermo import ThermoLog
from mlip.simulate.trajectory import FrameWriter, last_frame
from mlip.simulate.velocities import degrees_of_freedom, draw_velocities, remove_rigid_motion

LONGEST_HYDROGEN_STEP = 1.0
"""fs. An X–H vibration has a period of about 10 fs."""


@dataclass(frozen=True)
class MDFiles:
    """Where a run writes to; None keeps nothing.

    Attributes:
        trajectory: ASE ``.traj`` with positions, momenta, energies and forces in double precision.
        thermo: CSV.
        restart: continue after the last frame of the trajectory instead of starting anew.
    """

    trajectory: str | os.PathLike[str] | None = None
    thermo: str | os.PathLike[str] | None = None
    restart: bool = False


@dataclass
class _Start:
    """The state a run begins with."""

    atoms: Atoms
    step: int = 0
    time: float = 0.0
    notes: list[str] = field(default_factory=list)


def run_md(
    atoms: Atoms,
    calculator: Calculator,
    ensemble: Ensemble,
    steps: int,
    *,
    timestep: float = 0.5,
    seed: int = 0,
    files: MDFiles | None = None,
    log_interval: int = 10,
    frame_interval: int = 10,
    keep_velocities: bool = False,
    limits: Limits | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> MDSummary:
    """Run molecular dynamics from step 0 (or the last frame, on a restart) up to step ``steps``.

    The atoms passed in are not changed. Velocities are drawn at the ensemble's temperature, without net
    momentum and, for molecules, without rotation. A restart takes positions, momenta and cell from the last
    frame in full precision, so that NVE goes on as if it had not been stopped; thermostats and barostats
    with inner variables start theirs afresh, and noise is drawn from a new stream.

    Args:
        atoms: the structure; on a restart only compared with the trajectory.
        calculator: gives energies and forces, and for NPT the stress.
        ensemble: what to sample, such as ``LangevinNVT(temperature=300)``.
        steps: the step to end at, counted from the start of the first run.
        timestep: fs.
        seed: of velocities and noise; the same seed gives the same run on the same machine.
        files: where to write to.
        log_interval: steps between rows of the log and checks of contacts.
        frame_interval: steps between frames. The last step is always logged and written.
        keep_velocities: start from the velocities in ``atoms`` (less net momentum and rotation).
        limits: where to stop; by default 10 000 K or ten times the temperature, whichever is more.
        callback: called after every step.

    Returns:
        The summary; its ``atoms`` are the final structure with the calculator attached.

    Raises:
        SimulationError: the run cannot start, or it has left the range in which its numbers mean something;
            the frames so far are kept.
        StructureError: the calculator refuses the structure.
    """
    require_positive(timestep=timestep, steps=steps, log_interval=log_interval, frame_interval=frame_interval)
    files = files or MDFiles()
    start = _restart(atoms, files, ensemble, timestep) if files.restart else _Start(atoms.copy())
    if steps <= start.step:
        raise SimulationError(
            f"The trajectory is already at step {start.step} and the run was asked to end at step {steps}: "
            "ask for "
            "more steps to continue it."
        )
    ensemble.check(start.atoms)
    # A restart must not replay the noise of the run before it.
    rng = np.random.default_rng([seed, start.step])
    freedom = _set_velocities(start, ensemble, rng, keep_velocities or files.restart)
    _note_timestep(start, timestep)
    start.atoms.calc = calculator
    start.atoms.get_forces()  # A structure that the calculator refuses must leave no files.
    loop = MDLoop(
        dynamics=ensemble.integrator(start.atoms, timestep, freedom, rng),
        ensemble=ensemble,
        first_step=start.step,
        last_step=steps,
        first_time=start.time,
        timestep=timestep,
        freedom=freedom,
        limits=limits or Limits(max_temperature=max(10_000.0, 10 * ensemble.temperature)),
        log_interval=log_interval,
        frame_interval=frame_interval,
        callback=callback,
    )
    begin = time.perf_counter()
    with ExitStack() as stack:
        log = stack.enter_context(ThermoLog(files.thermo, start.step if files.restart else None))
        frames = None
        if files.trajectory is not None:
            frames = stack.enter_context(FrameWriter(files.trajectory, append=files.restart))
        loop.run(log, frames, record_first=not files.restart)
    seconds = time.perf_counter() - begin
    return summarise(start.atoms, log.rows, ensemble, (start.step, steps), timestep, seconds, start.notes)


def _restart(atoms: Atoms, files: MDFiles, ensemble: Ensemble, timestep: float) -> _Start:
    """Take the state from the last frame of the trajectory."""
    if files.trajectory is None:
        raise SimulationError("A restart needs the trajectory of the run to be continued.")
    frame = last_frame(files.trajectory)
    if "step" not in frame.info or not frame.has("momenta"):
        raise SimulationError(
            f"'{files.trajectory}' has no step number or no velocities in its last frame, so it was not "
            "written by an "
            "MD run. Start without a restart."
        )
    if not np.array_equal(frame.numbers, atoms.numbers):
        raise SimulationError(
            f"The trajectory '{files.trajectory}' holds {frame.get_chemical_formula()}, the structure is "
            f"{atoms.get_chemical_formula()} (or its atoms are in another order). Give the structure the "
            "run was "
            "started from."
        )
    start = _Start(frame, int(frame.info["step"]), float(frame.info["time_fs"]))
    start.notes.append(f"Continued from step {start.step}.")
    if ensemble.has_memory:
        start.notes.append("The inner variables of the thermostat (and barostat) started afresh.")
    for name, before, now in (
        ("ensemble", frame.info.get("ensemble"), ensemble.name),
        ("time step in fs", frame.info.get("timestep_fs"), timestep),
    ):
        if before != now:
            start.notes.append(f"The {name} changed from {before} to {now} at step {start.step}.")
    return start


def _set_velocities(start: _Start, ensemble: Ensemble, rng: np.random.Generator, keep: bool) -> int:
    """Draw or keep velocities; return the number of degrees of freedom that carry heat."""
    atoms, restarted = start.atoms, start.step > 0
    if not keep:
        draw_velocities(atoms, ensemble.temperature, rng)
    elif not atoms.has("momenta"):
        raise SimulationError("The structure has no velocities to keep. Let them be drawn.")
    elif not restarted and ensemble.momentum_conserved:
        remove_rigid_motion(atoms)
    freedom = degrees_of_freedom(atoms, ensemble.momentum_conserved)
    if freedom <= 0:
        raise SimulationError(f"A structure of {len(atoms)} atom(s) has no internal motion that MD could follow.")
    return freedom


def _note_timestep(start: _Start, timestep: float) -> None:
    if 1 in start.atoms.numbers and timestep > LONGEST_HYDROGEN_STEP and start.atoms.get_masses().min() < 1.5:
        start.notes.append(
            f"A time step of {timestep} fs is long for structures with hydrogen; 0.5 fs is usual, look at the drift."
        )
