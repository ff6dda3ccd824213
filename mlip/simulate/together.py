"""Many simulations at once: ordinary functions with an ASE calculator, their structures evaluated as one batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet
from torch_geometric.data import Batch

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import MlipError, SimulationError
from mlip.core.fields import FIELDS
from mlip.data.graph import AtomGraph

Result = TypeVar("Result")
Task = Callable[[MLIPCalculator], Result]
"""Does something with a calculator: relaxes a structure, runs MD, …"""

FAILURES = (MlipError, ValueError, RuntimeError, ArithmeticError, LookupError, OSError, NotImplementedError)
"""What is expected to go wrong in a task, with a message that can be shown."""

MAX_ATOMS = 1000
"""Atoms of a batch; more gain nothing on a CPU."""

MAX_EDGES = 50_000
"""Edges of a batch: they decide about memory."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a task.

    Attributes:
        number: place among the tasks, from 0.
        value: what it returned; None if it failed.
        error: what it raised; None if it did not.
    """

    number: int
    value: Result | None
    error: Exception | None


class _Member(Generic[Result]):
    """A task on its way: runs until it needs an evaluation, and goes on with the result."""

    def __init__(self, number: int, task: Task[Result], calculator: MLIPCalculator) -> None:
        self.number = number
        self.request: tuple[AtomGraph, Sequence[str]] | None = None
        self.outcome: Outcome[Result] | None = None
        self._hub = getcurrent()
        self._worker = greenlet(self._run)
        self._task, self._calculator = task, calculator.companion(self._ask)

    def _run(self) -> None:
        try:
            self.outcome = Outcome(self.number, self._task(self._calculator), None)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - one structure must not cost the results of all.
            self.outcome = Outcome(self.number, None, failure(error))

    def _ask(self, graph: AtomGraph, fields: Sequence[str]) -> dict[str, np.ndarray]:
        self.request = graph, fields
        return self._hub.switch()

    def advance(self, predicted: dict[str, np.ndarray] | Exception | None) -> None:
        """Go on until the next request or the end, with what the last request gave."""
        self.request = None
        if isinstance(predicted, Exception):
            self._worker.throw(predicted)
        else:
            self._worker.switch() if predicted is None else self._worker.switch(predicted)

    def stop(self) -> None:
        """Unwind the task where it waits."""
        if self.outcome is None:
            self._worker.throw(GreenletExit)


def failure(error: Exception) -> Exception:
    """Return what is told of an error of a task: itself, or, if nobody expected its kind, a sentence that names it."""
    if isinstance(error, FAILURES):
        return error
    detail = " ".join(str(error).split()).rstrip(".") or "it says no more"
    told = SimulationError(f"This structure led to an unexpected {type(error).__name__}: {detail}.")
    told.__cause__ = error
    return told


def run_together(
    tasks: Iterable[Task[Result]],
    calculator: MLIPCalculator,
    max_atoms: int = MAX_ATOMS,
    max_edges: int = MAX_EDGES,
) -> Iterator[Outcome[Result]]:
    """Run tasks side by side; whenever all wait for an evaluation, the model evaluates their graphs together.

    A task is written as if it were alone, with any of ASE's optimisers, integrators and filters: its calculator hands
    the graph over and the task sleeps until the result is there. One that is done makes room for the next one. All of
    it happens in one thread, in an order that depends on the tasks alone.

    Args:
        tasks: read one by one, when there is room.
        calculator: of the model; the tasks get companions of it.
        max_atoms, max_edges: a batch has no more, unless a single structure has.

    Yields:
        What became of each task, as they end. An error is that of its task alone, of whatever kind.

    Raises:
        MemoryError: there is no more memory, for anyone.
    """
    waiting, active = enumerate(tasks), []
    try:
        while True:
            yield from _admit(waiting, active, calculator, max_atoms, max_edges)
            if not active:
                return
            for group in _groups(active, max_atoms, max_edges):
                results = _evaluate([member.request for member in group], calculator)
                for member, predicted in zip(group, results):
                    member.advance(predicted)
            yield from (member.outcome for member in active if member.outcome is not None)
            active[:] = [member for member in active if member.outcome is None]
    finally:
        for member in active:
            member.stop()


def _admit(
    waiting: Iterator[tuple[int, Task[Result]]],
    active: list[_Member[Result]],
    calculator: MLIPCalculator,
    max_atoms: int,
    max_edges: int,
) -> Generator[Outcome[Result]]:
    """Start tasks while there is room: for one of the mean size of those that run."""
    while True:
        graphs = [member.request[0] for member in active]
        atoms, edges = sum(g.num_nodes for g in graphs), sum(g.num_edges for g in graphs)
        share = 1 + 1 / len(graphs) if graphs else 0
        if atoms * share > max_atoms or edges * share > max_edges:
            return
        found = next(waiting, None)
        if found is None:
            return
        member = _Member(*found, calculator)
        member.advance(None)
        if member.outcome is not None:
            yield member.outcome
        else:
            active.append(member)


def _groups(active: Sequence[_Member[Result]], max_atoms: int, max_edges: int) -> list[list[_Member[Result]]]:
    """Divide members into batches within the limits: one may need more room than was left, and cells shrink."""
    groups: list[list[_Member[Result]]] = []
    atoms = edges = 0
    for member in active:
        graph = member.request[0]
        atoms, edges = atoms + graph.num_nodes, edges + graph.num_edges
        if not groups or atoms > max_atoms or edges > max_edges:
            groups.append([])
            atoms, edges = graph.num_nodes, graph.num_edges
        groups[-1].append(member)
    return groups


def _evaluate(
    requests: Sequence[tuple[AtomGraph, Sequence[str]]], calculator: MLIPCalculator
) -> list[dict[str, np.ndarray] | Exception]:
    """Evaluate graphs together; if that fails one by one, so that the fault stays with its structure."""
    graphs = [graph for graph, _ in requests]
    fields = list(dict.fromkeys(field for _, wanted in requests for field in wanted))
    try:
        if len(graphs) == 1:
            return [calculator.predict(graphs[0], fields)]
        return _divided(calculator.predict(Batch.from_data_list(graphs), fields), graphs)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - see `_Member`.
        return [error] if len(graphs) == 1 else [_evaluate([request], calculator)[0] for request in requests]


def _divided(predicted: dict[str, np.ndarray], graphs: Sequence[AtomGraph]) -> list[dict[str, np.ndarray]]:
    """Divide the predictions of a batch among its graphs."""
    ends = np.cumsum([graph.num_nodes for graph in graphs])[:-1]
    parts: list[dict[str, np.ndarray]] = [{} for _ in graphs]
    for name, values in predicted.items():
        each = np.split(values, ends) if FIELDS[name].level == "atom" else values[:, None]
        for part, value in zip(parts, each):
            part[name] = value
    return parts
