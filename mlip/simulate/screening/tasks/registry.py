"""The tasks by name. A new one is a file here and an entry in this table."""

from __future__ import annotations

from mlip.core.errors import ConfigError, did_you_mean
from mlip.simulate.screening.task import ScreeningTask
from mlip.simulate.screening.tasks.eos import EosTask
from mlip.simulate.screening.tasks.phonons import PhononTask
from mlip.simulate.screening.tasks.relax import RelaxTask

TASKS: dict[str, type[ScreeningTask]] = {task.name: task for task in (RelaxTask, EosTask, PhononTask)}


def find_task(name: str) -> type[ScreeningTask]:
    """Return a task by its name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        raise ConfigError(f"There is no task '{name}'.{did_you_mean(name, TASKS)} There are {', '.join(TASKS)}.")
    return TASKS[name]
