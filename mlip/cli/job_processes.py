"""Commands of ``mlip`` in processes of their own, some at a time, that can be stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlip.core.errors import MlipError
from mlip.evaluation.run_files import OUTPUT
from mlip.evaluation.run_folder import progress

if TYPE_CHECKING:
    from rich.console import Console

POLL = 0.2
"""Seconds between two looks at the processes."""


@dataclass(frozen=True)
class JobProcess:
    """A command to run.

    Attributes:
        name: for the user.
        folder: gets what the command prints.
        arguments: of ``mlip``.
        prepare: called before it starts.
        finish: called with the exit status when it has ended, and with whether it was asked to.
    """

    name: str
    folder: Path
    arguments: Sequence[str]
    prepare: Callable[[], None]
    finish: Callable[[int, bool], None]


def run_jobs(jobs: Sequence[JobProcess], parallel: int, console: Console, command: Sequence[str] | None = None) -> bool:
    """Run all jobs, the next one when another has ended, whatever its status.

    Ctrl-C is passed on to the processes, which finish their step and keep their state; a second one stops them at
    once, and a third kills them. A request to end and a terminal that is closed count like Ctrl-C.

    Args:
        jobs: in the order in which they start.
        parallel: number of processes at the same time.
        console: gets a bar on terminals.
        command: that takes the arguments; ``mlip`` itself if None.

    Returns:
        Whether all have run: False after Ctrl-C, when all processes have ended.

    Raises:
        MlipError: the output of a process cannot be written.
    """
    waiting = list(reversed(jobs))
    active: list[tuple[JobProcess, subprocess.Popen[bytes]]] = []
    passed_on = 0
    with _stop_requests() as requests, _Bars(console, len(jobs)) as bars:
        try:
            while active or (waiting and not requests):
                while waiting and len(active) < parallel and not requests:
                    job = waiting.pop()
                    active.append((job, _start(job, parallel, command or _command())))
                time.sleep(POLL)
                if len(requests) > passed_on:
                    passed_on = len(requests)
                    _signal(active, signal.SIGINT if passed_on < 3 else signal.SIGKILL)
                for job, process in [pair for pair in active if pair[1].poll() is not None]:
                    active.remove((job, process))
                    job.finish(process.returncode, passed_on > 0)
                bars.show([job for job, _ in active], len(jobs) - len(waiting) - len(active))
        except BaseException:
            # Runs that nobody looks after must not go on.
            _signal(active, signal.SIGINT)
            for _, process in active:
                process.wait()
            raise
    return not waiting and not passed_on


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect signals instead of dying of them; a list of their numbers."""
    requests: list[int] = []
    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, lambda received, frame: requests.append(received))
    except ValueError:
        # Only the main thread may set handlers.
        before.clear()
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(active: Sequence[tuple[JobProcess, subprocess.Popen[bytes]]], number: int) -> None:
    for _, process in active:
        if process.poll() is None:
            os.killpg(process.pid, number)


def _command() -> list[str]:
    # A folder that happens to hold a random.py must not get in the way, unless mlip itself comes from it.
    safe = [] if sys.path[:1] and sys.path[0] in ("", os.getcwd()) else ["-P"]
    return [sys.executable, *safe, "-m", "mlip.cli"]


def _start(job: JobProcess, parallel: int, command: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if parallel > 1:
        from mlip.data.store.prepare import num_processors

        environment.setdefault("OMP_NUM_THREADS", str(max(1, num_processors() // parallel)))
    try:
        job.prepare()
        job.folder.mkdir(parents=True, exist_ok=True)
        output: IO[bytes] = (job.folder / OUTPUT).open("ab")
    except OSError as error:
        raise MlipError(f"Cannot write into '{job.folder}': {error.strerror or error}.") from error
    with output:
        # In a group of its own: Ctrl-C comes from here, once, and reaches the processes that it starts itself.
        return subprocess.Popen(
            [*command, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


class _Bars:
    """On terminals: how many runs have ended, and how far the active ones are."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.quiet,
        )
        self._total = self._progress.add_task("runs", total=total, text="")
        self._tasks: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, active: Sequence[JobProcess], ended: int) -> None:
        """Draw the state; the tables of the runs are looked at once a second at most."""
        if self._progress.disable:
            return
        self._progress.update(self._total, completed=ended, text=f"{ended}")
        for name in self._tasks.keys() - {job.name for job in active}:
            self._progress.remove_task(self._tasks.pop(name)[0])
        for job in active:
            task, seen = self._tasks.get(job.name, (None, 0.0))
            if task is None:
                task = self._progress.add_task(job.name, total=1.0, text="starting")
            if time.monotonic() - seen > 1.0:
                share, text = progress(job.folder)
                self._progress.update(task, completed=share, text=text)
                seen = time.monotonic()
            self._tasks[job.name] = (task, seen)
