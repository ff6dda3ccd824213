"""Molecular dynamics: one function for all ensembles, with a trajectory, a log, exact restarts and guards."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import NVE, Ensemble, require_positive
from mlip.simulate.guards import Limits
from mlip.simulate.lock import only_writer
from mlip.simulate.md_checkpoint import Checkpoint, previous_checkpoint, write_checkpoint
from mlip.simulate.md_folder import remove_files
from mlip.simulate.md_loop import MDLoop, Progress
from mlip.simulate.md_start import MDFiles, Start, begin, set_velocities, take_back
from mlip.simulate.md_summary import MDSummary, summarise
from mlip.simulate.md_timestep import timestep_problem
from mlip.simulate.md_traits import inherited, precision_of, refuse_other_energy, traits_of
from mlip.simulate.select_frames import take_up_selection
from mlip.simulate.selection import SelectOptions, begin_selection
from mlip.simulate.thermo import ThermoLog
from mlip.simulate.trajectory import FrameWriter

__all__ = ["MDFiles", "Progress", "run_md"]


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
    checkpoint_interval: int = 1000,
    final_temperature: float | None = None,
    keep_velocities: bool = False,
    limits: Limits | None = None,
    callback: Callable[[Progress], None] | None = None,
    alone: bool = True,
    select: SelectOptions | None = None,
    notify: Callable[[str], None] | None = None,
    model: str | None = None,
) -> MDSummary:
    """Run molecular dynamics from step 0 (or the checkpoint, on a restart) up to step ``steps``.

    The atoms passed in are not changed. Velocities are drawn at the ensemble's temperature, without net
    momentum and, for molecules, without rotation. A restart from a checkpoint takes up everything, thermostat and
    random numbers included, and cuts off what was written after it: the run goes on, and its files look, as if
    it had not been stopped, bit by bit on the same machine. Without a checkpoint a restart takes positions,
    momenta and cell from the last frame; thermostats then start afresh, and noise is drawn from a new stream. A
    restart at the last step only summarises: a run may have been killed before its results were written.

    A restart of another structure, with other masses, constraints, charge or spin, or with another model is refused.
    Ensemble, temperature, time step and precision may change, which is noted. Net momentum and rotation are taken out
    when an ensemble that conserves them follows another one. A ramp that is changed begins at the restart. While a run
    goes on, another process that would write the same files is refused.

    Args:
        atoms: the structure; of a restart the one that the run was begun with.
        calculator: gives energies and forces, and for NPT the stress.
        ensemble: what to sample, such as ``LangevinNVT(temperature=300)``.
        steps: the step to end at, counted from the start of the first run.
        timestep: fs.
        seed: of velocities and noise; the same seed gives the same run on the same machine.
        files: where to write to.
        log_interval: steps between rows of the log.
        frame_interval: steps between frames. The last step is always logged and written. Contacts are checked
            whenever something is written.
        checkpoint_interval: steps between checkpoints; there is one at the start and at the end, too.
        final_temperature: K, of the thermostat at the last step, with a straight line from step 0 (or from where
            the ramp was changed); None keeps it.
        keep_velocities: start from the velocities in ``atoms``, less net momentum and rotation, whatever the ensemble.
        limits: where to stop; by default 10 000 K or ten times the temperature, whichever is more.
        callback: called after every step.
        alone: whether Ctrl-C becomes a `SimulationError`; False among other runs, which it must stop, too.
        select: which of the logged structures to write for labelling; the calculator must be a committee's.
        notify: gets what the user should know before the first step, such as a time step that is too long.
        model: what tells the model from others, such as :func:`mlip.simulate.journal.hash_of_models`; without it only
            the energy of the structure to go on from does.

    Returns:
        The summary; its ``atoms`` are the final structure with the calculator attached.

    Raises:
        SimulationError: the run cannot start, another process writes its files, or it has left the range in which
            its numbers mean something; the frames so far and the last good one are kept.
        StructureError: the calculator refuses the structure.
    """
    require_positive(
        timestep=timestep,
        steps=steps,
        log_interval=log_interval,
        frame_interval=frame_interval,
        checkpoint_interval=checkpoint_interval,
    )
    _check_ramp(ensemble, final_temperature)
    files = files or MDFiles()
    settings = {"ensemble": ensemble.name, "timestep": timestep, **asdict(ensemble)}
    settings |= {"final_temperature": final_temperature, "ramp_steps": steps if final_temperature else None}
    settings["precision"] = precision_of(calculator)
    traits = traits_of(atoms, calculator, model, files.replicas)
    with only_writer(files.lock):
        start = begin(atoms, files, ensemble, settings, traits, seed)
        traits |= inherited(start.atoms.info, traits)
        _refuse_done(start, steps, files)
        ensemble.check(start.atoms)
        # Without a checkpoint, a restart must not replay the noise of the run before it.
        rng = np.random.default_rng([seed, start.step])
        freedom = set_velocities(start, ensemble, rng, keep_velocities)
        selection = begin_selection(select, calculator, files.selected, files.replica)
        start.atoms.calc = calculator
        start.atoms.get_forces()  # A structure that the calculator refuses must leave no files.
        if start.restarted:
            refuse_other_energy(files.checkpoint or files.trajectory, start.potential, start.atoms)
        _note(start, ensemble, timestep, steps, notify)
        loop = MDLoop(
            dynamics=ensemble.integrator(start.atoms, timestep, freedom, rng),
            ensemble=ensemble,
            first_step=start.step,
            last_step=steps,
            origin=start.origin,
            timestep=timestep,
            freedom=freedom,
            limits=limits or Limits(max_temperature=max(10_000.0, 10 * _highest(start, ensemble, final_temperature))),
            log_interval=log_interval,
            frame_interval=frame_interval,
            checkpoint_interval=checkpoint_interval,
            callback=callback,
            final_temperature=final_temperature,
            ramp=start.ramp,
            alone=alone,
            selection=selection,
        )
        _take_up(loop, start, rng)
        loop.check_start()
        began = time.perf_counter()
        rows = _run(loop, start, files, settings, traits, rng)
        seconds = time.perf_counter() - began
    return summarise(start.atoms, rows, ensemble, (start.step, steps), timestep, seconds, start.notes)


def _refuse_done(start: Start, steps: int, files: MDFiles) -> None:
    """Refuse a run of no step, unless its results can be written from what there is."""
    whole = start.since < start.step and start.checkpoint is not None and files.thermo is not None
    if steps < start.step or (steps == start.step and not whole):
        raise SimulationError(
            f"The trajectory is already at step {start.step} and the run was asked to end at step {steps}: "
            "ask for more steps to continue it."
        )


def _note(start: Start, ensemble: Ensemble, timestep: float, steps: int, notify: Callable[[str], None] | None) -> None:
    """Collect what the user should know, and say it."""
    problems = [ensemble.timestep_problem(timestep)]
    if start.timestep != timestep:
        problems.append(timestep_problem(start.atoms, timestep))
    start.notes += [problem for problem in problems if problem is not None and problem not in start.notes]
    if steps == start.step:
        start.notes.append("All steps had been done before: only the results were written.")
    for note in start.notes if notify is not None else ():
        notify(note)


def _highest(start: Start, ensemble: Ensemble, final_temperature: float | None) -> float:
    return max(ensemble.temperature, final_temperature or 0, start.ramp[1])


def _take_up(loop: MDLoop, start: Start, rng: np.random.Generator) -> None:
    """Give a new integrator and generator the state of the checkpoint."""
    found = start.checkpoint
    if found is None:
        if loop.selection is not None and start.restarted:
            take_up_selection(loop.selection, start.step)
        return
    if loop.selection is not None:
        loop.selection.restore(found.selection, start.atoms)
    rng.bit_generator.state = dict(found.rng)
    if loop.final_temperature is not None:
        loop.ensemble.set_temperature(loop.dynamics, loop.target(start.step))
    if found.ensemble == loop.ensemble.name:
        loop.ensemble.set_state(loop.dynamics, found.state)


def _run(
    loop: MDLoop,
    start: Start,
    files: MDFiles,
    settings: dict[str, Any],
    traits: dict[str, Any],
    rng: np.random.Generator,
) -> list[Any]:
    """Open the files, run, and return the rows of the log."""
    earlier = {} if start.checkpoint is None else start.checkpoint.selection
    kept_notes = tuple(note for note in start.notes if not note.startswith("Continued from"))

    def save(step: int, recorded: bool = True) -> None:
        if files.checkpoint is None:
            return
        moved = loop.dynamics.atoms
        checkpoint = Checkpoint(
            step=step,
            origin=loop.origin,
            recorded=recorded,
            ensemble=loop.ensemble.name,
            settings=settings,
            rng=rng.bit_generator.state,
            trajectory=None if frames is None else frames.mark(),
            freedom=loop.freedom,
            since=start.since,
            ramp=loop.ramp,
            seed=start.seed,
            traits=traits,
            potential=float(moved.get_potential_energy(apply_constraint=False)),
            notes=kept_notes,
            numbers=moved.numbers,
            pbc=moved.pbc,
            positions=moved.positions,
            momenta=moved.get_momenta(),
            cell=moved.cell.array,
            state=loop.ensemble.state(loop.dynamics),
            # A part of a run that selects nothing must not cost what was selected before.
            selection=earlier if loop.selection is None else loop.selection.state(),
        )
        if loop.selection is not None:
            loop.selection.write()
        write_checkpoint(files.checkpoint, checkpoint, keep=files.keep_previous and recorded)

    frames: FrameWriter | None = None
    if start.restarted:
        take_back(start, files)
    else:
        if files.clear is not None:
            files.clear()
        # It replaces that of an earlier run at a stroke: killed before, a restart finds trajectory and checkpoint of
        # that run as they were; killed after, it finds this one at its start, and begins it anew whatever is left.
        if files.checkpoint is not None:
            remove_files([previous_checkpoint(files.checkpoint)])
        save(start.step, recorded=False)
    if not start.recorded:
        remove_files([files.trajectory, files.thermo, files.selected])
    with ExitStack() as stack:
        log = stack.enter_context(ThermoLog(files.thermo, start.step if start.recorded else None, start.since))
        if files.trajectory is not None:
            frames = stack.enter_context(FrameWriter(files.trajectory, append=start.recorded))
        if start.recorded and start.since == start.step:
            save(start.step)  # That the settings have changed is known from now on, whenever the run is killed.
        loop.save = save
        if loop.selection is not None:
            # However the run ends: what came before an explosion is worth labelling.
            stack.callback(loop.selection.write)
        loop.run(log, frames, record_first=not start.recorded)
        return log.rows


def _check_ramp(ensemble: Ensemble, final_temperature: float | None) -> None:
    if final_temperature is not None:
        require_positive(final_temperature=final_temperature)
        if isinstance(ensemble, NVE):
            raise SimulationError("NVE has no thermostat that could change the temperature. Use NVT or NPT for a ramp.")
