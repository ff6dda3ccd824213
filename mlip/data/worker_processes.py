"""Worker processes that apply one function to one task after the other.

A plain pipe to each: a worker whose parent is gone reads the end of its pipe and stops, and a worker that was killed
is noticed at once. Workers ignore Ctrl-C, since their parent ends them, and use one thread each.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from mlip.core.errors import MlipError

AHEAD = 4
"""Tasks a worker that may be finished before an earlier one is, where results come in order: they wait in memory."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerLost(MlipError):
    """A worker process was killed, for instance because the memory was full.

    Attributes:
        number: of the task that it was about, None if it had none.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__(
            "A worker process ended unexpectedly. If no lines above say why, the machine may have run out of memory: "
            "use fewer at a time. The same command goes on where this one stopped."
        )
        self.number = number


def apply_all(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, ordered: bool = True
) -> Iterator[tuple[int, Result]]:
    """Yield the number of each task, counted from 0, and what the function returned for it.

    Args:
        function: picklable; every worker gets a copy. An exception in a worker is a defect: it ends the worker.
        tasks: picklable, drawn as they are needed.
        workers: processes; with one, or a single task, the work is done in this process.
        ordered: whether results come in the order of the tasks, or as they are finished.

    Raises:
        WorkerLost: a worker was killed.
    """
    tasks = iter(tasks)
    head = list(islice(tasks, 2)) if workers > 1 else []
    tasks = chain(head, tasks)
    if len(head) < 2:
        # Starting processes takes seconds.
        yield from ((number, function(task)) for number, task in enumerate(tasks))
        return
    pool = WorkerPool(function, workers)
    try:
        yield from pool.in_order(tasks) if ordered else pool.as_finished(tasks)
    finally:
        pool.stop()


class WorkerPool(Generic[Task, Result]):
    """Processes that run until they are stopped; see `apply_all`."""

    def __init__(self, function: Callable[[Task], Result], workers: int) -> None:
        context = get_context("spawn")
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._at_work: dict[Connection, int] = {}
        with _quiet_start():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, function), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._pipes.append(ours)

    def as_finished(
        self, tasks: Iterator[Task], may_send: Callable[[int], bool] | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Yield the results as they come.

        Args:
            tasks: to be done.
            may_send: whether the task of this number may be started now; always if it is not given.
        """
        idle = list(self._pipes)
        finished: list[tuple[int, Result]] = []
        number = 0
        while True:
            while idle and (may_send is None or may_send(number)):
                task = next(tasks, None)
                if task is None:
                    break
                self._send(idle.pop(), number, task)
                number += 1
            if finished:
                # Only now: no worker waits for what is done with the results. Taking them may have made room.
                yield from finished
                finished = []
                continue
            if not self._at_work:
                return
            ready = [pipe for pipe in connection.wait(self._pipes) if isinstance(pipe, Connection)]
            finished = [self._receive(pipe) for pipe in ready]
            idle += ready

    def in_order(self, tasks: Iterator[Task]) -> Iterator[tuple[int, Result]]:
        """Yield the results in the order of the tasks; a bounded number of them waits for earlier ones."""
        done: dict[int, Result] = {}
        first = 0
        ahead = AHEAD * len(self._pipes)

        def has_room(wanted: int) -> bool:
            return wanted - first < ahead

        for number, result in self.as_finished(tasks, has_room):
            done[number] = result
            while first in done:
                found = done.pop(first)
                first += 1
                yield first - 1, found

    def stop(self) -> None:
        """End the workers; what they have not finished is not there."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    def _send(self, pipe: Connection, number: int, task: Task) -> None:
        try:
            pipe.send(task)
        except OSError as error:
            raise WorkerLost(number) from error
        self._at_work[pipe] = number

    def _receive(self, pipe: Connection) -> tuple[int, Result]:
        try:
            found: Result = pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerLost(self._at_work.get(pipe)) from error
        return self._at_work.pop(pipe), found


def parent_lives() -> bool:
    """Whether somebody waits for this worker; a parent that was killed may have a successor with other settings."""
    parent = parent_process()
    return parent is None or parent.is_alive()


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


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Work until the parent closes the pipe."""
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        # A defect ends this process with its traceback; the parent sees that it is gone.
        found = function(task)
        try:
            pipe.send(found)
        except OSError:
            return
