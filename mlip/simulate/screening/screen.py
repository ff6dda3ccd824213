"""A screening from structures to records: what is done is in the journal, the rest goes to the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlip.core.errors import ConfigError
from mlip.simulate.inputs import InputStructure
from mlip.simulate.journal import Journal
from mlip.simulate.screening.chunks import divide
from mlip.simulate.screening.dask_pool import DaskPool
from mlip.simulate.screening.executors import Executor
from mlip.simulate.screening.model import ModelSource
from mlip.simulate.screening.record import UNREADABLE, ScreenRecord
from mlip.simulate.screening.supervise import Supervisor
from mlip.simulate.screening.task import Item, ScreeningTask
from mlip.simulate.together import MAX_ATOMS

TRIES = 3
"""Workers that may die of one structure."""


@dataclass(frozen=True)
class Progress:
    """How far a screening is.

    Attributes:
        done: structures that ended in this run.
        total: that were left when it began.
        workers: alive now.
        deaths: of workers in this run.
    """

    done: int
    total: int
    workers: int
    deaths: int


def screen(
    structures: Sequence[InputStructure],
    task: ScreeningTask,
    source: ModelSource,
    executor: Executor,
    journal: Journal[ScreenRecord],
    *,
    batch_atoms: int = MAX_ATOMS,
    tries: int = TRIES,
    timeout: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Run a task on every structure that is not in the journal, and add it there as it ends.

    Results do not depend on the number of workers, nor on which of them die: structures in a batch take the steps
    that each would take alone, to the rounding of the batch.

    Args:
        structures: the whole input; those that cannot be read are left out.
        task: to run.
        source: of the model.
        executor: of the workers.
        journal: open; records in it are not done again.
        batch_atoms: that a worker evaluates at once.
        tries: workers that may die of a structure before it is set aside.
        timeout: seconds that a structure may take when it is alone; a batch may take that long from one that ends to
            the next. None: for ever.
        progress: called twice a second and as structures end.

    Raises:
        ConfigError: dask is not installed, or numbers that make no sense.
        SimulationError: no workers can be had, or the disk is full.
        MlipError: a worker cannot open the model.
    """
    require_limits(batch_atoms, tries, timeout)
    task.check()
    items = [
        Item(number, one.name, one.atoms)
        for number, one in enumerate(structures)
        if one.atoms is not None and number not in journal.done
    ]
    found = Progress(0, len(items), 0, 0)
    if not items:
        return found
    with executor.clients() as client:
        pool = DaskPool(client, task, source, batch_atoms, executor.patience)
        chunks = divide(items, executor.expected or max(1, pool.alive()), batch_atoms)
        supervisor = Supervisor(pool, tries, timeout)
        for record in supervisor.run(chunks):
            if record is not None:
                journal.add(record)
            found = Progress(found.done + (record is not None), len(items), pool.alive(), supervisor.deaths)
            if progress is not None:
                progress(found)
    return found


def require_limits(batch_atoms: int, tries: int, timeout: float | None) -> None:
    """Refuse numbers with which nothing can be done, see `screen`.

    Raises:
        ConfigError: which.
    """
    for name, value in (("atoms of a batch", batch_atoms), ("tries", tries), ("timeout", timeout)):
        if value is not None and not value > 0:
            raise ConfigError(f"The {name} of a screening must be above 0, got {value}.")


def all_records(structures: Sequence[InputStructure], journal: Journal[ScreenRecord]) -> list[ScreenRecord]:
    """Return the records of what is done, and of what cannot be read, in the order of the input."""
    unread: dict[int, Any] = {
        number: ScreenRecord(number, one.name, UNREADABLE, error=one.error)
        for number, one in enumerate(structures)
        if one.atoms is None
    }
    found = unread | journal.done
    return [found[number] for number in sorted(found)]
