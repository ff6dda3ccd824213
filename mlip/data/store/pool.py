"""The shards of a store, made in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from mlip.data.datasets.base import Dataset
from mlip.data.store.work import Outcome, Settings, Task, perform
from mlip.data.worker_processes import apply_all, parent_lives


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
    work = partial(_perform, dataset, settings)
    return (outcome for _, outcome in apply_all(work, tasks, workers))


def _perform(dataset: Dataset, settings: Settings, task: Task) -> Outcome:
    return perform(dataset, settings, task, parent_lives)
