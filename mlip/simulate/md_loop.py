"""The loop of an MD run: step, check, log, write, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ase.md.md import MolecularDynamics

from mlip.core.errors import SimulationError, StructureError
from mlip.simulate.ensembles import Ensemble
from mlip.simulate.guards import Limits
from mlip.simulate.thermo import ThermoLog, ThermoRow
from mlip.simulate.trajectory import FrameWriter
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
        first_time: fs at the first step.
        timestep: fs.
        freedom: degrees of freedom that carry heat.
        limits: where to stop.
        log_interval, frame_interval: in steps.
        callback: called after every step.
    """

    dynamics: MolecularDynamics
    ensemble: Ensemble
    first_step: int
    last_step: int
    first_time: float
    timestep: float
    freedom: int
    limits: Limits
    log_interval: int
    frame_interval: int
    callback: Callable[[Progress], None] | None

    def run(self, log: ThermoLog, frames: FrameWriter | None, record_first: bool) -> None:
        """Run to the last step.

        Args:
            log: gets the rows.
            frames: gets the structures; None writes none.
            record_first: whether the state at the first step is logged and written too.

        Raises:
            SimulationError: a limit was passed, or the user pressed Ctrl-C; says what is kept.
        """
        step = self.first_step
        try:
            self._check(step)
            if record_first:
                self._record(step, log, frames)
            for step in range(self.first_step + 1, self.last_step + 1):
                self.dynamics.run(1)
                self._check(step)
                self._record(step, log, frames)
        except (_LimitPassed, StructureError) as error:
            reason = str(error).rstrip(".")
            raise SimulationError(
                f"MD stopped at step {step}: {reason}. {_kept(frames)} Try a shorter time step, a relaxed "
                "starting "
                "structure, or a model trained on such structures."
            ) from error
        except KeyboardInterrupt as error:
            raise SimulationError(
                f"MD was stopped by the user at step {step}. {_kept(frames)} Continue with a restart."
            ) from error

    def _check(self, step: int) -> None:
        atoms = self.dynamics.atoms
        problem = self.limits.problem(atoms, temperature_of(atoms, self.freedom))
        if problem is None and self._due(step, self.log_interval):
            problem = self.limits.contact_problem(atoms)
        if problem is not None:
            raise _LimitPassed(problem)

    def _record(self, step: int, log: ThermoLog, frames: FrameWriter | None) -> None:
        atoms, time = self.dynamics.atoms, self.first_time + (step - self.first_step) * self.timestep
        if self._due(step, self.log_interval):
            conserved = self.ensemble.conserved_energy(self.dynamics)
            log.append(ThermoRow.measure(atoms, step, time, self.freedom, conserved, self.ensemble.needs_stress))
        if frames is not None and self._due(step, self.frame_interval):
            spreads(atoms)  # So that they are among the results that a frame is written with.
            frames.write(atoms, step=step, time_fs=time, timestep_fs=self.timestep, ensemble=self.ensemble.name)
        if self.callback is not None:
            temperature = temperature_of(atoms, self.freedom)
            self.callback(Progress(step, self.last_step, temperature, float(atoms.get_potential_energy())))

    def _due(self, step: int, interval: int) -> bool:
        return step % interval == 0 or step == self.last_step


class _LimitPassed(Exception):
    """The state of the simulation means nothing any more."""


def _kept(frames: FrameWriter | None) -> str:
    return (
        "No trajectory was written." if frames is None else f"{frames.num_frames} frames are kept in '{frames.path}'."
    )
