"""The workers of a dask cluster as a pool."""

from __future__ import annotations

import os
import queue
import signal
import time
import uuid
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mlip.core.errors import SimulationError
from mlip.simulate.screening.chunks import Chunk
from mlip.simulate.screening.model import ModelSource
from mlip.simulate.screening.pool import Began, Broken, Ended, Finished, Report
from mlip.simulate.screening.task import ScreeningTask
from mlip.simulate.screening.worker import work_on

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK = 1.0
"""Seconds between two looks at who is alive."""

OUT = 0.02
"""Seconds in which a message leaves a worker: nobody could be blamed if it died before that."""


class DaskPool:
    """Workers of a dask cluster, which run one chunk at a time each."""

    def __init__(
        self,
        client: Client,
        task: ScreeningTask,
        source: ModelSource,
        batch_atoms: int,
        patience: float | None = None,
    ) -> None:
        """Begin to listen to the workers of a client.

        Args:
            client: of the scheduler; it stays open.
            task: to run, picklable.
            source: of the model, picklable.
            batch_atoms: to evaluate at once.
            patience: seconds without any worker after which there is no hope; None: others see to it.
        """
        self._client, self._task, self._source, self._batch_atoms = client, task, source, batch_atoms
        self._patience, self._last_alive = patience, time.monotonic()
        # Others may use the same scheduler.
        self._name = f"mlip-screen-{uuid.uuid4().hex}"
        self._waiting: deque[Chunk] = deque()
        self._futures: dict[int, Future] = {}
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        client.subscribe_topic(self._name, self._told)
        self._look()

    def submit(self, chunk: Chunk) -> None:
        """Hand a chunk to the next worker that is free; those that were handed in first go first.

        They wait here, not with a worker that may die of another chunk.
        """
        self._waiting.append(chunk)
        self._fill()

    def report(self, seconds: float) -> Report | None:
        """Return what comes next, or None after so many seconds.

        Raises:
            SimulationError: there has been no worker for too long.
        """
        if time.monotonic() - self._looked > LOOK:
            self._look()
        self._fill()
        try:
            found = self._reports.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(found, Finished | Broken):
            self._futures.pop(found.chunk, None)
            if isinstance(found, Broken):
                self._look()
            self._fill()
        return found

    def _fill(self) -> None:
        """Give every worker a chunk; one waits for the first worker."""
        while self._waiting and len(self._futures) < max(1, self._alive):
            chunk = self._waiting.popleft()
            future = self._client.submit(
                _on_worker, chunk, self._task, self._source, self._batch_atoms, self._name,
                key=f"{self._name}-{chunk.number}", pure=False,
            )  # fmt: skip
            self._futures[chunk.number] = future
            future.add_done_callback(partial(self._ended, chunk.number))

    def kill(self, chunk: int) -> None:
        """Withdraw a chunk and kill the worker that has it."""
        future = self._futures.pop(chunk, None)
        if future is None:
            return
        workers = [address for address, keys in self._client.processing().items() if future.key in keys]
        self._client.cancel([future], force=True)
        _end_workers(self._client, workers)

    def alive(self) -> int:
        """Return how many workers there are now."""
        return self._alive

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._alive = len(self._client.scheduler_info(n_workers=-1)["workers"])
        if self._patience is None or self._alive > 0:
            self._last_alive = self._looked
        elif self._looked - self._last_alive > self._patience:
            raise SimulationError(
                f"All workers are gone, and for {self._patience:g} s none came back: too little memory? Go on with "
                "--restart and fewer --workers."
            )

    def _told(self, event: tuple[float, Any]) -> None:
        chunk, told = event[1]
        self._reports.put(Ended(chunk, told) if isinstance(told, bytes) else Began(chunk, told))

    def _ended(self, chunk: int, future: Future) -> None:
        from distributed import KilledWorker

        if future.status == "finished":
            # In a thread of its own, where results may be waited for.
            self._reports.put(Finished(chunk, tuple(future.result())))
        elif future.status == "error":
            error = future.exception()
            self._reports.put(Broken(chunk, None if isinstance(error, KilledWorker) else error))
        elif chunk in self._futures:
            # Cancelled by somebody else, or the scheduler is lost.
            lost = SimulationError("The scheduler is lost, or has dropped the work. Go on with --restart.")
            self._reports.put(Broken(chunk, lost))


def _on_worker(chunk: Chunk, task: ScreeningTask, source: ModelSource, batch_atoms: int, topic: str) -> list[bytes]:
    """Work on a chunk in a worker's process."""
    import torch
    from distributed import get_worker

    worker = get_worker()
    torch.set_num_threads(1)
    first = True

    def tell(told: int | bytes) -> None:
        nonlocal first
        worker.log_event(topic, (chunk.number, told))
        if first:
            time.sleep(OUT)
            first = False

    return work_on(chunk.items, task, source, batch_atoms, tell)


def _end_workers(client: Client, addresses: Sequence[str]) -> None:
    """Kill workers at once: by their nannies, which also can where a worker does not listen any more."""
    known = client.scheduler_info(n_workers=-1)["workers"]
    for address in addresses:
        if address in known:
            nanny = known[address].get("nanny") is not None
            # The answer of one that kills itself is an error.
            client.run(_kill_child if nanny else _kill_self, workers=[address], nanny=nanny, on_error="ignore")


def _kill_child(dask_worker: Any) -> None:
    """Kill the worker of a nanny, which starts another one."""
    os.kill(dask_worker.process.pid, signal.SIGKILL)


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
