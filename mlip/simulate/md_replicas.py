"""The same MD run several times with other random numbers, evaluated as one batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate.ensembles import Ensemble
from mlip.simulate.lock import only_writer
from mlip.simulate.md import run_md
from mlip.simulate.md_checkpoint import Checkpoint, read_checkpoint
from mlip.simulate.md_folder import CHECKPOINT, THERMO, TRAJECTORY, checkpoints_in, clear_results, clear_runs, has_run
from mlip.simulate.md_loop import Progress
from mlip.simulate.md_start import MDFiles
from mlip.simulate.md_summary import MDSummary
from mlip.simulate.selection import SELECTED
from mlip.simulate.together import Outcome, run_together


@dataclass(frozen=True)
class Replica:
    """One of several runs.

    Attributes:
        seed: of its velocities and noise.
        folder: for its files.
    """

    seed: int
    folder: Path

    def files(self, restart: bool, at: int | None = None, number: int | None = None, **more: Any) -> MDFiles:
        """Return the names of its files; ``number`` is its own among the replicas, ``more`` the rest of `MDFiles`."""
        return MDFiles(
            trajectory=self.folder / TRAJECTORY,
            thermo=self.folder / THERMO,
            restart=restart,
            checkpoint=self.folder / CHECKPOINT,
            keep_previous=True,
            at=at,
            selected=self.folder / SELECTED,
            replica=number,
            **more,
        )


def replicas_in(folder: str | os.PathLike[str], number: int, seed: int) -> list[Replica]:
    """Return replicas with seeds ``seed``, ``seed + 1``, … in subfolders ``replica_0``, ``replica_1``, …"""
    width = len(str(number - 1))
    return [Replica(seed + k, Path(folder) / f"replica_{k:0{width}d}") for k in range(number)]


def run_replicas(
    atoms: Atoms,
    calculator: MLIPCalculator,
    ensemble: Ensemble,
    steps: int,
    replicas: Sequence[Replica],
    *,
    restart: bool = False,
    callback: Callable[[int, Progress], None] | None = None,
    leftovers: Sequence[Path] = (),
    **options: Any,
) -> list[Outcome[MDSummary]]:
    """Run replicas side by side, with one evaluation of the model for all of them in every step.

    Every replica has the files of an ordinary run. A restart takes all of them up at the same step, the last one that
    every one of them has a checkpoint of, so that the batches are the ones they would have been: sums in a batch of
    another size are rounded otherwise. For the same reason their number stays. Without a restart all that earlier
    replicas have left is taken away before the first new file, so that a restart never finds some of the old ones
    beside some of the new ones.

    Args:
        atoms: where all start from.
        calculator: of the model.
        ensemble: to be sampled.
        steps: to end at.
        replicas: at least one.
        restart: continue all of them.
        callback: called with the number of a replica after each of its steps.
        leftovers: further folders with an earlier run, which is taken away likewise.
        options: of `run_md`.

    Returns:
        One outcome for each replica, in their order; those that are done already are summarised.

    Raises:
        ConfigError: no replica, or two share a folder.
        SimulationError: there is nothing to continue, something else, or another process writes there.
    """
    if not replicas or len({replica.folder for replica in replicas}) < len(replicas):
        raise ConfigError("Replicas need a folder each, and there must be at least one.")
    number_of_all, old = len(replicas), [] if restart else [*(replica.folder for replica in replicas), *leftovers]

    def clear(replica: Replica) -> None:
        # The first one that is sure to begin, for all.
        clear_runs(old)
        old.clear()
        clear_results(replica.folder)

    def task(number: int, step: int | None) -> Callable[[MLIPCalculator], MDSummary]:
        def run(one: MLIPCalculator) -> MDSummary:
            replica = replicas[number]
            return run_md(
                atoms,
                one,
                ensemble,
                steps,
                seed=replica.seed,
                files=replica.files(
                    step is not None,
                    step,
                    number,
                    replicas=number_of_all,
                    locked=number == 0,
                    clear=lambda: clear(replica),
                ),
                callback=None if callback is None else lambda state: callback(number, state),
                alone=False,
                **options,
            )

        return run

    # That of the first one is held for all of them, also of those that have not begun or have ended.
    with only_writer(replicas[0].files(restart).lock):
        at = _common_step(replicas, steps) if restart else [None] * len(replicas)
        outcomes = run_together([task(*one) for one in enumerate(at)], calculator)
        return sorted(outcomes, key=lambda outcome: outcome.number)


def other_number(folder: Path, before: int, now: int) -> SimulationError:
    """Return what says that replicas are as many as they were."""
    return SimulationError(
        f"'{folder}' has {before} replicas, not {now}: their number cannot change, since they are evaluated together. "
        "Run further ones in another folder with another --seed, or start anew with --overwrite."
    )


def _common_step(replicas: Sequence[Replica], steps: int) -> list[int | None]:
    """Return the step that each replica continues from; None where there is nothing yet.

    Raises:
        SimulationError: there is nothing at all, a trajectory without a checkpoint, or another number of replicas.
    """
    found = [_checkpoints(replica) for replica in replicas]
    for replica, checkpoints in zip(replicas, found):
        if has_run(replica.folder) and not checkpoints:
            raise SimulationError(
                f"'{replica.folder}' has a trajectory and no checkpoint, so it cannot be continued at the same step as "
                "the other replicas. Start anew with --overwrite."
            )
        for checkpoint in checkpoints:
            before = checkpoint.traits.get("replicas")
            if before is not None and before != len(replicas):
                raise other_number(replica.folder.parent, before, len(replicas))
    known = [[checkpoint.step for checkpoint in checkpoints] for checkpoints in found]
    if not any(known):
        raise SimulationError(
            f"There are no replicas in '{replicas[0].folder.parent}' to continue. Start without a restart."
        )
    running = [max(found) for found in known if found and max(found) < steps]
    common = min(running, default=0)
    # One that was a checkpoint ahead of the others goes back to theirs, even if it had ended already.
    return [None if not found else common if running and common in found else max(found) for found in known]


def _checkpoints(replica: Replica) -> list[Checkpoint]:
    return [read_checkpoint(path) for path in checkpoints_in(replica.folder) if path.is_file()]


@dataclass(frozen=True)
class ReplicaAverages:
    """What several runs agree on; standard errors are those of the mean over replicas.

    Attributes:
        number: of replicas that ended.
        temperature: K, mean and standard error.
        potential: eV, likewise, of the means over the logs.
        drift: meV/atom/ps, likewise; None where nothing is conserved.
    """

    number: int
    temperature: tuple[float, float]
    potential: tuple[float, float]
    drift: tuple[float, float] | None

    @classmethod
    def of(cls, summaries: Sequence[MDSummary]) -> ReplicaAverages:
        """Average summaries.

        Raises:
            SimulationError: there are none.
        """
        if not summaries:
            raise SimulationError("No replica ended, so there is nothing to average.")
        drifts = [summary.drift for summary in summaries if summary.drift is not None]
        return cls(
            number=len(summaries),
            temperature=_mean([summary.temperature_mean for summary in summaries]),
            potential=_mean([float(np.mean([row.potential for row in summary.rows])) for summary in summaries]),
            drift=_mean(drifts) if len(drifts) == len(summaries) else None,
        )


def _mean(values: Sequence[float]) -> tuple[float, float]:
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return float(np.mean(values)), error
