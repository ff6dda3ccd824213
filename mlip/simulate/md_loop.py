"""The loop of an MD run: step, check, log, write, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ase import Atoms
from ase.md.md import MolecularDynamics

from mlip.core.errors import SimulationError, SimulationInterrupted, StructureError
from mlip.simulate.ensembles import Ensemble
from mlip.simulate.guards import Limits
from mlip.simulate.md_start import on_ramp
from mlip.simulate.selection import Selection
from mlip.simulate.thermo import ThermoLog, ThermoRow
from mlip.simulate.trajectory import FrameWriter, snapshot
from mlip.simulate.uncertainty import spreads
from mlip.simulate.velocities import temperature_of


@dataclass(frozen=True)
class Progress:
    """Where a run is, for a progress bar.

    Attributes:
        step: done so far, earlier runs included.
        total: the step the run ends at.
        temperature: K.
        potential: eV.
    """

    step: int
    total: int
    temperature: float
    potential: float


@dataclass
class MDLoop:
    """One stretch of dynamics from ``first_step`` to ``last_step``.

    Attributes:
        dynamics: ASE's integrator, with the atoms.
        ensemble: knows what is conserved.
        first_step, last_step: counted from the start of the first run.
        origin: a step and its time in fs, from which times are counted.
        timestep: fs.
        freedom: degrees of freedom that carry heat.
        limits: where to stop.
        log_interval, frame_interval: in steps.
        callback: called after every step.
        final_temperature: K, reached at the last step on a straight line; None keeps that of the ensemble.
        ramp: step and temperature in K at which that line begins.
        save: writes a checkpoint of a step.
        checkpoint_interval: in steps.
        alone: whether Ctrl-C is turned into a sentence here; among others it must reach them all.
        selection: looks at what is logged, None selects nothing.
    """

    dynamics: MolecularDynamics
    ensemble: Ensemble
    first_step: int
    last_step: int
    origin: tuple[int, float]
    timestep: float
    freedom: int
    limits: Limits
    log_interval: int
    frame_interval: int
    callback: Callable[[Progress], None] | None
    final_temperature: float | None = None
    ramp: tuple[int, float] = (0, 0.0)
    save: Callable[[int], None] | None = None
    checkpoint_interval: int = 1000
    alone: bool = True
    selection: Selection | None = None
    _good: tuple[Atoms, dict[str, Any]] | None = field(default=None, init=False)

    def check_start(self) -> None:
        """Refuse a state that is beyond the limits already, before there are files.

        Raises:
            SimulationError: says which limit.
        """
        try:
            self._check(self.first_step)
        except _LimitPassed as error:
            raise _stopped(self.first_step, error, None) from error

    def run(self, log: ThermoLog, frames: FrameWriter | None, record_first: bool) -> None:
        """Run to the last step.

        Args:
            log: gets the rows.
            frames: gets the structures; None writes none.
            record_first: whether the state at the first step is logged and written too.

        Raises:
            SimulationError: a limit was passed; says what is kept.
            SimulationInterrupted: likewise, the user pressed Ctrl-C.
        """
        step = self.first_step
        try:
            self._check(step)
            if record_first:
                self._record(step, log, frames)
                self._save(step, log)
            for step in range(self.first_step + 1, self.last_step + 1):
                if self.final_temperature is not None:
                    self.ensemble.set_temperature(self.dynamics, self.target(step))
                self.dynamics.run(1)
                self._check(step)
                self._record(step, log, frames)
                if self._due(step, self.checkpoint_interval):
                    self._save(step, log)
        except (_LimitPassed, StructureError) as error:
            self._keep_last_good(frames)
            raise _stopped(step, error, frames) from error
        except KeyboardInterrupt as error:
            if not self.alone:
                raise
            again = "Go on with --restart, from the last checkpoint." if self.save is not None else ""
            raise SimulationInterrupted(
                f"MD was stopped by the user at step {step}. {_kept(frames)} {again}".rstrip()
            ) from error

    def target(self, step: int) -> float:
        """Return the temperature of the thermostat in K at a step."""
        if self.final_temperature is None:
            return self.ensemble.temperature
        return on_ramp(self.ramp, self.final_temperature, self.last_step, step)

    def _save(self, step: int, log: ThermoLog) -> None:
        if self.save is not None:
            log.sync()
            self.save(step)

    def _keep_last_good(self, frames: FrameWriter | None) -> None:
        """Write the last state that passed all checks, unless it is in the trajectory already."""
        if frames is not None and self._good is not None:
            frames.write(self._good[0], **self._good[1])

    def _check(self, step: int) -> None:
        atoms = self.dynamics.atoms
        problem = self.limits.problem(atoms, temperature_of(atoms, self.freedom))
        looked = self._due(step, self.log_interval) or self._due(step, self.frame_interval)
        if problem is None and looked:
            problem = self.limits.contact_problem(atoms)
        if problem is not None:
            raise _LimitPassed(problem)
        if looked:
            self._good = snapshot(atoms), self._labels(step)

    def _record(self, step: int, log: ThermoLog, frames: FrameWriter | None) -> None:
        atoms, labels = self.dynamics.atoms, self._labels(step)
        if self._due(step, self.log_interval):
            ramped = self.final_temperature is not None
            conserved = None if ramped else self.ensemble.conserved_energy(self.dynamics)
            time = labels["time_fs"]
            log.append(ThermoRow.measure(atoms, step, time, self.freedom, conserved, self.ensemble.needs_stress))
        # Not at the last step unless it is its turn: a run in two pieces selects what it does in one.
        if self.selection is not None and step % self.log_interval == 0:
            self.selection.look(atoms, step, labels["time_fs"])
        if frames is not None and self._due(step, self.frame_interval):
            spreads(atoms)  # So that they are among the results that a frame is written with.
            frames.write(atoms, **labels)
            self._good = None
        if self.callback is not None:
            temperature = temperature_of(atoms, self.freedom)
            self.callback(Progress(step, self.last_step, temperature, float(atoms.get_potential_energy())))

    def _labels(self, step: int) -> dict[str, Any]:
        begin, at = self.origin
        time = at + (step - begin) * self.timestep
        return {"step": step, "time_fs": time, "timestep_fs": self.timestep, "ensemble": self.ensemble.name}

    def _due(self, step: int, interval: int) -> bool:
        return step % interval == 0 or step == self.last_step


class _LimitPassed(Exception):
    """The state of the simulation means nothing any more."""


def _stopped(step: int, reason: Exception, frames: FrameWriter | None) -> SimulationError:
    return SimulationError(
        f"MD stopped at step {step}: {str(reason).rstrip('.')}. {_kept(frames)} Try a shorter time step, a relaxed "
        "starting structure, or a model trained on such structures."
    )


def _kept(frames: FrameWriter | None) -> str:
    if frames is None:
        return "No trajectory was written."
    number = frames.num_frames
    return f"{number} {'frame is' if number == 1 else 'frames are'} kept in '{frames.path}'."
