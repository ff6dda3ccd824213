"""Structures, a model and tasks for screenings; workers that die on purpose."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ase import Atoms
from ase.build import bulk

from mlip.calculators.ase import MLIPCalculator
from mlip.simulate.inputs import InputStructure
from mlip.simulate.screening.chunks import Chunk
from mlip.simulate.screening.pool import Began, Broken, Ended, Finished, Report
from mlip.simulate.screening.record import ScreenRecord, encode
from mlip.simulate.screening.task import Item
from mlip.simulate.screening.tasks.relax import RelaxTask
from mlip.simulate.screening.worker import work_on
from tests.simulate.pair_model import PairModel


def crystals(count: int) -> list[Atoms]:
    found = []
    for seed in range(count):
        atoms = bulk("Cu", "fcc", a=3.2 + 0.6 * seed / count, cubic=bool(seed % 2))
        atoms.rattle(0.05, seed=seed)
        found.append(atoms)
    return found


def inputs(count: int) -> list[InputStructure]:
    return [InputStructure(f"s{number}", atoms) for number, atoms in enumerate(crystals(count))]


def items(count: int) -> list[Item]:
    return [Item(number, f"s{number}", atoms) for number, atoms in enumerate(crystals(count))]


@dataclass(frozen=True)
class PairSource:
    """The pair model, for workers in other processes."""

    def open(self) -> MLIPCalculator:
        return MLIPCalculator(PairModel())


@dataclass(frozen=True)
class DeadlyTask(RelaxTask):
    """Relaxes, but some structures kill their worker, every time or (with a file) once in all; others hang or raise."""

    deadly: tuple[int, ...] = ()
    once: str = ""
    hanging: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    pause: float = 0.0

    def run(self, items: Iterable[Item], calculator: MLIPCalculator, batch_atoms: int) -> Iterator[ScreenRecord]:
        def read() -> Iterator[Item]:
            for item in items:
                time.sleep(self.pause)
                if item.number in self.deadly and (not self.once or _first(Path(self.once))):
                    os.kill(os.getpid(), signal.SIGKILL)
                if item.number in self.hanging:
                    time.sleep(3600)
                if item.number in self.wrong:
                    raise TypeError("a defect")
                yield item

        yield from super().run(read(), calculator, batch_atoms)


def _first(mark: Path) -> bool:
    """Return whether no other process has been here."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass
class FakePool:
    """One worker at a time, in this process: begins with all of a chunk, then ends one after the other.

    Attributes:
        deadly: numbers of structures at whose end the worker dies.
        hanging: at which it hangs; the clock goes on by a second at every report.
        wrong: at which it raises an error of Python.
        silent: whether a worker that dies tells nothing before.
        again: whether the scheduler starts a chunk anew by itself after a death.
        error: of every chunk, before it begins.
    """

    deadly: set[int] = field(default_factory=set)
    hanging: set[int] = field(default_factory=set)
    wrong: set[int] = field(default_factory=set)
    silent: bool = False
    again: bool = False
    error: Exception | None = None
    clock: float = 0.0
    sizes: list[int] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting: deque[Chunk] = deque()
        self._work: Iterator[Report | None] = iter(())

    def submit(self, chunk: Chunk) -> None:
        self._waiting.append(chunk)

    def report(self, seconds: float) -> Report | None:
        self.clock += 1
        for found in self._work:
            return found
        if self._waiting:
            chunk = self._waiting.popleft()
            self.sizes.append(len(chunk.items))
            self._work = self._run(chunk)
            return self.report(seconds)
        raise RuntimeError("nothing to do")

    def _run(self, chunk: Chunk) -> Iterator[Report | None]:
        if self.error is not None:
            yield Broken(chunk.number, self.error)
            return
        dies = self.deadly & {item.number for item in chunk.items}
        if not (dies and self.silent):
            yield from (Began(chunk.number, item.number) for item in chunk.items)
        lines = []
        for item in chunk.items:
            if item.number in self.deadly and self.again:
                yield Began(chunk.number, chunk.items[0].number)
            if item.number in self.deadly:
                yield Broken(chunk.number)
                return
            if item.number in self.wrong:
                yield Broken(chunk.number, TypeError("a defect"))
                return
            while item.number in self.hanging:
                yield None
            lines.append(encode(item.done({}, None, 1.0)))
            if item.number % 2:
                yield Ended(chunk.number, lines[-1])
        yield Finished(chunk.number, tuple(lines))

    def kill(self, chunk: int) -> None:
        self.killed.append(chunk)
        self._work = iter(())

    def alive(self) -> int:
        return 1


class InlinePool:
    """The only worker is this process."""

    def __init__(self, client: object, task: RelaxTask, source: PairSource, batch_atoms: int, patience: object) -> None:
        self._task, self._source, self._batch_atoms = task, source, batch_atoms
        self._reports: deque[Report] = deque()

    def submit(self, chunk: Chunk) -> None:
        number = chunk.number

        def tell(told: int | bytes) -> None:
            self._reports.append(Ended(number, told) if isinstance(told, bytes) else Began(number, told))

        lines = work_on(chunk.items, self._task, self._source, self._batch_atoms, tell)
        self._reports.append(Finished(number, tuple(lines)))

    def report(self, seconds: float) -> Report | None:
        return self._reports.popleft() if self._reports else None

    def kill(self, chunk: int) -> None:
        raise RuntimeError("this process")

    def alive(self) -> int:
        return 1
