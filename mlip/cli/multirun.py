"""``mlip train -m``: train every combination of settings, each in a process of its own."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlip.cli.job_processes import JobProcess, run_jobs
from mlip.cli.sweep import Job, expand, quote
from mlip.core.errors import ConfigError, DataError, MlipError, TrainingError, TrainingInterrupted
from mlip.core.files import write_text_atomically
from mlip.evaluation.run_files import CONFIG, FAILURE, OUTPUT, RECORD
from mlip.evaluation.run_folder import read_run

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep and what is left to do for it.

    Attributes:
        job: name and overrides.
        folder: of the run.
        state: ``new``, ``interrupted`` (has a checkpoint to go on from) or ``finished``.
    """

    job: Job
    folder: Path
    state: str


def train_many(
    overrides: Sequence[str], config_dir: Path | None, parallel: int, print_config: bool, console: Console
) -> None:
    """Train all runs of a sweep; finished ones are left as they are, interrupted ones go on.

    Args:
        overrides: with several values for some settings, see :func:`mlip.cli.sweep.expand`.
        config_dir: a folder of the user's own groups.
        parallel: runs that train at the same time.
        print_config: only list the runs.
        console: where to report.

    Raises:
        ConfigError: nothing is trained: a setting is wrong, or a run of that name has other settings.
        TrainingInterrupted: stopped by Ctrl-C; the same command goes on.
        TrainingError: some runs failed, the others are finished.
    """
    base, plan = _plan(expand(overrides, config_dir), config_dir)
    if print_config:
        for run in plan:
            console.print(f"{run.folder} ({run.state}): {' '.join(run.job.overrides)}", highlight=False, soft_wrap=True)
        return
    states = Counter(run.state for run in plan)
    listing = ", ".join(f"{number} {state}" for state, number in states.items())
    console.print(f"{len(plan)} runs in {base}: {listing}", highlight=False, soft_wrap=True)
    waiting = [run for run in plan if run.state != "finished"]
    report = _Report(console, len(plan), len(plan) - len(waiting))
    with _locked(base):
        complete = run_jobs([_process(run, config_dir, report) for run in waiting], parallel, console)
    if not complete:
        left = len(waiting) - report.finished
        raise TrainingInterrupted(f"Stopped: {left} of {len(plan)} runs are not finished. Go on with the same command.")
    if report.failed:
        raise TrainingError(
            f"{len(report.failed)} of {len(plan)} runs failed: "
            + "; ".join(f"{name}: {reason}" for name, reason in report.failed.items())
            + " The same command tries them again."
        )
    console.print(f"Compare them with: mlip compare {base}", highlight=False, soft_wrap=True)


def _plan(jobs: Sequence[Job], config_dir: Path | None) -> tuple[Path, list[PlannedRun]]:
    """Compose every configuration before anything is trained, and look at what is there already."""
    from mlip.cli.compose import compose, require_complete
    from mlip.cli.training.checks import choose_losses
    from mlip.cli.training.finetune import check_start
    from mlip.cli.training.numbers import check_numbers

    plan: list[PlannedRun] = []
    bases: list[Path] = []
    for job in jobs:
        config = compose("train", job.overrides, config_dir)
        choose_losses(config, list(job.overrides))
        check_start(config, list(job.overrides))
        check_numbers(config)
        require_complete(config)
        base = Path(config.run_dir)
        if bases and base != bases[0]:
            raise ConfigError(
                f"The runs would lie in different folders, '{bases[0]}' and '{base}': give the sweep a name=…."
            )
        bases.append(base)
        folder = base / job.name
        plan.append(PlannedRun(job, folder, _state(folder, config)))
    if (bases[0] / CONFIG).exists():
        raise ConfigError(f"'{bases[0]}' holds a single run already: choose another name=… for the sweep.")
    return bases[0], plan


def _state(folder: Path, config: DictConfig) -> str:
    """Return what is left to do in a folder.

    Raises:
        ConfigError: it holds a run with other settings.
    """
    from mlip.cli.training.folder import load_config
    from mlip.training.checkpoints import LAST

    if not (folder / CONFIG).is_file():
        return "new"
    changed = _changes(load_config(folder), config)
    if changed:
        raise ConfigError(
            f"'{folder}' holds a run with other settings ({changed}): choose another name=… for the sweep, or delete "
            "that folder."
        )
    if (folder / RECORD).is_file():
        return "finished"
    return "interrupted" if (folder / LAST).is_file() else "new"


def _changes(stored: DictConfig, config: DictConfig) -> str:
    """Return the settings in which a stored configuration differs from a new one, "" for none."""
    from omegaconf import OmegaConf

    from mlip.cli.compose import to_plain
    from mlip.cli.training.finetune import adopt
    from mlip.evaluation.settings import flatten

    config = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    for name in config.statistics:
        if config.statistics[name] is None:
            # It was measured when the run started.
            config.statistics[name] = (stored.get("statistics") or {}).get(name)
    config.run_dir = stored.run_dir
    adopt(config, stored)
    before, after = flatten(OmegaConf.to_container(stored)), flatten(to_plain(config))
    # What one of them does not have is a setting of another version, unless it is set.
    found = [name for name in after | before if (before.get(name) or None) != (after.get(name) or None)]
    found.sort(key=lambda name: name.count("."))
    texts = [f"{name}: {before.get(name)}, now {after.get(name)}" for name in found[:3]]
    return "; ".join([*texts, *(["…"] if len(found) > 3 else [])])


def _process(run: PlannedRun, config_dir: Path | None, report: _Report) -> JobProcess:
    """Return the process that makes a run or goes on with it."""
    if run.state == "interrupted":
        arguments = ["--resume", str(run.folder)]
    else:
        arguments = [*run.job.overrides, f"run_dir={quote(str(run.folder))}"]
        arguments += ["--config-dir", str(config_dir)] if config_dir else []

    def prepare() -> None:
        (run.folder / FAILURE).unlink(missing_ok=True)
        if run.state == "new":
            # A run that was killed before its first checkpoint has nothing to go on from.
            (run.folder / CONFIG).unlink(missing_ok=True)

    def finish(status: int, stopped: bool) -> None:
        done = (run.folder / RECORD).is_file()
        report(run, None if done or stopped else _reason(run.folder / OUTPUT, status), done)

    return JobProcess(run.job.name, run.folder, ["train", *arguments], prepare, finish)


def _reason(output: Path, status: int) -> str:
    """Return in one sentence why a run failed."""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.is_file() else []
    lines = [line.strip() for line in lines if line.strip()]
    for line in reversed(lines):
        if line.startswith("Error: "):
            return line.removeprefix("Error: ")
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"Killed by signal {name}, for lack of memory perhaps; see '{output}'."
    return f"Ended with status {status}; see '{output}'."


class _Report:
    """One line for each run that ends, and a record in its folder if it failed."""

    def __init__(self, console: Console, total: int, finished_before: int) -> None:
        self.console, self.total, self.ended = console, total, finished_before
        self.finished = 0
        self.failed: dict[str, str] = {}

    def __call__(self, run: PlannedRun, failure: str | None, done: bool) -> None:
        """Take notice of the end of a run; neither failed nor done means that it was stopped."""
        if failure is None and not done:
            return
        self.ended += 1
        if failure is not None:
            self.failed[run.job.name] = failure
            record = {"overrides": list(run.job.overrides), "error": failure}
            write_text_atomically(run.folder / FAILURE, json.dumps(record, indent=1, ensure_ascii=False))
            text = f"failed: {failure}"
        else:
            self.finished += 1
            text = _summary(run.folder)
        self.console.print(
            f"[{self.ended}/{self.total}] {run.job.name}: {text}", markup=False, highlight=False, soft_wrap=True
        )


def _summary(folder: Path) -> str:
    """Return errors and cost of a finished run in one line."""
    try:
        run = read_run(folder)
    except DataError as error:
        return str(error)
    parts = [f"{title} {_short(value)} {unit}".rstrip() for title, value, unit in run.headlines()]
    step = run.step_cpu_ms if run.limited_by_cpu else run.step_ms
    if step is not None:
        parts.append(f"{step:.3g} ms a step")
    if run.seconds is not None:
        parts.append(f"{run.seconds / 60:.1f} min")
    return "validation MAE: " + ", ".join(parts)


def _short(value: float) -> str:
    """Return four digits, or the whole number above ten thousand: errors of matrices start at 10⁵ µEh."""
    return f"{value:,.0f}" if value >= 9999.5 else f"{value:.4g}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a sweep; the kernel lets go of it however this process ends.

    Raises:
        MlipError: another process holds it, or the folder cannot be written to.
    """
    import fcntl
    import os

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise MlipError(
            f"Cannot write into '{folder}': {error.strerror or error}. Choose another run_dir=…."
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise MlipError(f"Another process trains runs in '{folder}'. Wait for it, or choose another name=….") from error
    finally:
        os.close(handle)
