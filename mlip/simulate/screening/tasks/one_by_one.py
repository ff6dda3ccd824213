"""Tasks that take one structure after the other, each of which makes a batch by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from mlip.simulate.screening.record import ScreenRecord
from mlip.simulate.screening.task import Item
from mlip.simulate.together import failure


@dataclass(frozen=True)
class Found:
    """What a task found.

    Attributes:
        values: its columns.
        structure: that resulted, with results.
        warnings: sentences.
    """

    values: Mapping[str, Any]
    structure: Atoms | None
    warnings: Sequence[str] = ()


def one_by_one(items: Iterable[Item], work: Callable[[Atoms], Found]) -> Iterator[ScreenRecord]:
    """Yield the record of each structure; what goes wrong with one stays with it."""
    for item in items:
        started = time.monotonic()
        try:
            found = work(item.atoms)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - one structure must not cost the results of all.
            yield item.failed(str(failure(error)) or type(error).__name__, time.monotonic() - started)
            continue
        yield item.done(found.values, found.structure, time.monotonic() - started, found.warnings)
