"""Chunks on their way: whose worker died is tried again in parts, and what keeps killing workers is set aside."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mlip.core.errors import MlipError, SimulationError
from mlip.simulate.screening.chunks import Chunk
from mlip.simulate.screening.pool import Began, Ended, Finished, Pool
from mlip.simulate.screening.record import POISONED, ScreenRecord, decode_line
from mlip.simulate.screening.task import Item

POLL = 0.5
"""Seconds between two looks at the clock."""

DEATHS_AT_START = 10
"""Workers that die one after the other before they begin with a structure, for each worker that there is."""


@dataclass
class _Running:
    """A chunk that a worker has, or that waits for one."""

    left: dict[int, Item]
    begun: set[int] = field(default_factory=set)
    since: float | None = None


class Supervisor:
    """Gets every structure of some chunks done, or set aside.

    If a worker dies, structures that it had not begun go to another one, and those that it was at go there in two
    halves; when one is alone and workers have died of it ``tries`` times, it is set aside. A worker in which nothing
    has ended for ``timeout`` seconds is killed: so a structure that is alone may take that long.
    """

    def __init__(
        self, pool: Pool, tries: int, timeout: float | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Take charge of workers.

        Args:
            pool: of workers.
            tries: workers that may die of one structure.
            timeout: seconds; None: for ever.
            now: the clock.
        """
        self.deaths = 0
        self._pool, self._tries, self._timeout, self._now = pool, tries, timeout, now
        self._running: dict[int, _Running] = {}
        self._numbers = itertools.count()
        self._blamed: Counter[int] = Counter()
        self._late: set[int] = set()
        self._at_start = 0

    def run(self, chunks: Sequence[Sequence[Item]]) -> Iterator[ScreenRecord | None]:
        """Yield the record of every structure as it ends, and None now and then in between.

        Raises:
            MlipError: a worker cannot open the model.
            SimulationError: workers cannot work, or die before they begin.
        """
        for chunk in chunks:
            self._submit(chunk)
        while True:
            yield from self._end_overdue()
            if not self._running:
                return
            report = self._pool.report(POLL)
            if report is None:
                yield None
                continue
            running = self._running.get(report.chunk)
            if running is None:
                # Of a chunk that was given up: its structures are somewhere else.
                continue
            if isinstance(report, Began):
                yield from self._began(report, running)
            elif isinstance(report, Ended):
                yield from self._take(running, (report.line,))
            elif isinstance(report, Finished):
                del self._running[report.chunk]
                yield from self._take(running, report.lines)
                _refuse_forgotten(running)
            else:
                yield from self._broken(report.chunk, report.error)

    def _submit(self, items: Sequence[Item]) -> None:
        if items:
            chunk = Chunk(next(self._numbers), tuple(items))
            self._running[chunk.number] = _Running({item.number: item for item in items})
            self._pool.submit(chunk)

    def _take(self, running: _Running, lines: Sequence[bytes]) -> Iterator[ScreenRecord]:
        for line in lines:
            record = decode_line(line)
            if running.left.pop(record.number, None) is not None:
                running.since = self._now()
                yield record

    def _began(self, report: Began, running: _Running) -> Iterator[ScreenRecord]:
        self._at_start = 0
        if report.structure in running.begun:
            # The worker died, and a scheduler of its own mind has started the chunk on another one.
            yield from self._give_up(report.chunk)
            return
        running.begun.add(report.structure)
        running.since = self._now() if running.since is None else running.since

    def _end_overdue(self) -> Iterator[ScreenRecord]:
        if self._timeout is None:
            return
        for number, running in list(self._running.items()):
            if running.since is not None and self._now() - running.since > self._timeout:
                yield from self._give_up(number, late=True)

    def _give_up(self, number: int, late: bool = False) -> Iterator[ScreenRecord]:
        self._pool.kill(number)
        yield from self._broken(number, None, late)

    def _broken(self, number: int, error: BaseException | None, late: bool = False) -> Iterator[ScreenRecord]:
        """Deal with what is left of a chunk that has not ended."""
        if isinstance(error, MlipError):
            raise error
        running = self._running.pop(number)
        if error is not None and not running.begun:
            raise SimulationError(
                f"A worker cannot begin to work ({type(error).__name__}: {error}): has it the same version of mlip?"
            ) from error
        # Where none is known to have begun, the worker may have died before it could tell.
        begun = running.begun or {*running.left}
        suspects = [item for number, item in running.left.items() if number in begun]
        self._submit([item for number, item in running.left.items() if number not in begun])
        if error is None:
            self.deaths += 1
            if not running.begun:
                self._died_at_start()
        if len(suspects) > 1:
            half = (len(suspects) + 1) // 2
            self._submit(suspects[:half])
            self._submit(suspects[half:])
        elif suspects:
            yield from self._blame(suspects[0], error, late)

    def _blame(self, item: Item, error: BaseException | None, late: bool) -> Iterator[ScreenRecord]:
        """Try a structure that was alone again, or set it aside."""
        if error is not None:
            # An error of Python would come back.
            yield item.failed(f"{type(error).__name__}: {error}")
            return
        self._blamed[item.number] += 1
        if late:
            self._late.add(item.number)
        if self._blamed[item.number] >= self._tries:
            yield item.failed(self._why(item), status=POISONED)
        else:
            self._submit([item])

    def _died_at_start(self) -> None:
        self._at_start += 1
        limit = DEATHS_AT_START * max(1, self._pool.alive())
        if self._at_start > limit:
            raise SimulationError(
                f"{self._at_start} workers died one after the other before they began with a structure: too little "
                "memory for the model, or a broken installation? Run mlip relax on one structure there."
            )

    def _why(self, item: Item) -> str:
        times = f"{self._tries} times" if self._tries > 1 else "once"
        if item.number in self._late:
            return f"Set aside: it took longer than {self._timeout:g} s, or its worker died, {times}."
        return f"Set aside: its worker died {times}."


def _refuse_forgotten(running: _Running) -> None:
    """A task that gives no record of a structure has a defect, and would do the same again."""
    if running.left:
        names = ", ".join(item.name for item in itertools.islice(running.left.values(), 3))
        raise SimulationError(f"The task ended without a result of {len(running.left)} structures: {names}.")
