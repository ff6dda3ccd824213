"""Worker processes that take one task after the other; results come in the order of the tasks.

A plain pipe to each: a worker whose parent is gone reads the end of its pipe and stops, and a worker that was killed
is noticed at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

from mlip.core.errors import MlipError
from mlip.data.datasets.base import Dataset
from mlip.data.store.work import Outcome, Settings, Task, perform

AHEAD = 4
"""Tasks a worker that may be finished before an earlier one is: they wait in memory."""


def perform_all(dataset: Dataset, settings: Settings, tasks: Iterable[Task], workers: int) -> Iterator[Outcome]:
    """Yield the outcomes of tasks, in order.

    Args:
        dataset: the source; every worker gets a copy.
        settings: of the preparation.
        tasks: drawn as they are needed.
        workers: processes; with one, or a single task, the work is done in this process.

    Raises:
        MlipError: a worker was killed.
    """
    tasks = iter(tasks)
    head = list(islice(tasks, 2)) if workers > 1 else []
    tasks = chain(head, tasks)
    if len(head) < 2:
        # Starting processes takes seconds.
        yield from (perform(dataset, settings, task) for task in tasks)
        return
    pool = _Pool(dataset, settings, workers)
    try:
        yield from pool.run(tasks)
    finally:
        pool.stop()


class _Pool:
    def __init__(self, dataset: Dataset, settings: Settings, workers: int) -> None:
        context = get_context("spawn")
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        with _quiet_start():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, dataset, settings), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._pipes.append(ours)

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """Yield the outcomes in the order of the tasks."""
        idle = list(self._pipes)
        order: list[int] = []
        done: dict[int, Outcome] = {}
        while True:
            while idle and len(order) < AHEAD * len(self._pipes):
                task = next(tasks, None)
                if task is None:
                    break
                order.append(task.number)
                self._send(idle.pop(), task)
            if not order:
                return
            while order and order[0] not in done:
                for pipe in self._ready():
                    outcome = self._receive(pipe)
                    done[outcome.task.number] = outcome
                    idle.append(pipe)
                if idle and len(order) < AHEAD * len(self._pipes):
                    break
            while order and order[0] in done:
                yield done.pop(order.pop(0))

    def stop(self) -> None:
        """End the workers; what they have not finished is not there."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    def _ready(self) -> list[Connection]:
        return [pipe for pipe in connection.wait(self._pipes) if isinstance(pipe, Connection)]

    def _send(self, pipe: Connection, task: Task) -> None:
        try:
            pipe.send(task)
        except OSError as error:
            raise _killed() from error

    def _receive(self, pipe: Connection) -> Outcome:
        try:
            found: Outcome = pipe.recv()
        except (EOFError, OSError) as error:
            raise _killed() from error
        return found


def _killed() -> MlipError:
    return MlipError(
        "A worker process ended unexpectedly. If no lines above say why, the machine may have run out of memory: use "
        "fewer workers (workers=1). The same command goes on where this one stopped."
    )


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Start processes that ignore Ctrl-C (the parent ends them) and use one thread each."""
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


def _parent_lives() -> bool:
    """Whether somebody waits for this worker; a parent that was killed may have a successor with other settings."""
    parent = parent_process()
    return parent is not None and parent.is_alive()


def _serve(pipe: Connection, dataset: Dataset, settings: Settings) -> None:
    """Work until the parent closes the pipe."""
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        # A defect ends this process with its traceback; the parent sees that it is gone.
        found = perform(dataset, settings, task, _parent_lives)
        try:
            pipe.send(found)
        except OSError:
            return
