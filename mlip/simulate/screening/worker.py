"""What a worker does with a chunk, and what it tells of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mlip.simulate.screening.model import ModelSource, opened
from mlip.simulate.screening.record import encode
from mlip.simulate.screening.task import Item, ScreeningTask

Tell = Callable[[int | bytes], None]
"""Is told the number of a structure whose work begins, and the line of a record when it ends."""


def work_on(
    items: Sequence[Item], task: ScreeningTask, source: ModelSource, batch_atoms: int, tell: Tell
) -> list[bytes]:
    """Run a task on structures and return the lines of their records.

    Args:
        items: structures.
        task: to run.
        source: of the model, which is opened once a process.
        batch_atoms: to evaluate at once.
        tell: called from this thread.

    Raises:
        MlipError: the model cannot be opened; what is wrong with a structure is in its record.
    """
    calculator = opened(source)

    def read() -> Iterator[Item]:
        for item in items:
            tell(item.number)
            yield item

    lines = []
    for record in task.run(read(), calculator, batch_atoms):
        lines.append(encode(record))
        tell(lines[-1])
    return lines
