"""Many relaxations as one batch: those that are done leave, and the next ones enter."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from ase import Atoms

from mlip.calculators.ase import MLIPCalculator
from mlip.simulate.carried import without_labels
from mlip.simulate.relax import relax_with
from mlip.simulate.relax_result import RelaxationResult, RelaxOptions
from mlip.simulate.together import MAX_ATOMS, MAX_EDGES, Task, run_together
from mlip.simulate.trajectory import snapshot


@dataclass(frozen=True)
class Relaxed:
    """What became of one of many structures.

    Attributes:
        number: its place among them, from 0.
        result: None if it failed. Its atoms have their energy, forces and stress with them, and no calculator.
        error: why it failed, one sentence; "" if it did not.
        seconds: from its start to its end, side by side with others.
    """

    number: int
    result: RelaxationResult | None
    error: str
    seconds: float


def relax_many(
    structures: Iterable[Atoms],
    calculator: MLIPCalculator,
    options: RelaxOptions | None = None,
    *,
    max_atoms: int = MAX_ATOMS,
    max_edges: int = MAX_EDGES,
) -> Iterator[Relaxed]:
    """Relax structures side by side, each with an optimizer of its own; one that fails does not stop the others.

    Every structure takes the steps that it would take alone (:func:`mlip.simulate.relax.relax`); energies differ by
    the rounding of the batch.

    Args:
        structures: read one by one, when there is room; they are not changed.
        calculator: of the model.
        options: how to relax; None for the defaults.
        max_atoms, max_edges: of the structures that are evaluated together, unless a single one has more.

    Yields:
        One item a structure, in the order in which they end.

    Raises:
        ConfigError, SimulationError: from `RelaxOptions`, before anything begins.
    """
    options = options or RelaxOptions()
    times: dict[int, float] = {}

    def task(number: int, atoms: Atoms) -> Task[RelaxationResult]:
        def run(companion: MLIPCalculator) -> RelaxationResult:
            times[number] = time.monotonic()
            result = relax_with(atoms, companion, options)
            # The companion belongs to the task, and would hold the model.
            return replace(result, atoms=snapshot(result.atoms, without_labels(result.atoms.info)))

        return run

    tasks = (task(number, atoms) for number, atoms in enumerate(structures))
    with closing(run_together(tasks, calculator, max_atoms, max_edges)) as outcomes:
        for outcome in outcomes:
            seconds = time.monotonic() - times.pop(outcome.number)
            error = "" if outcome.error is None else str(outcome.error) or type(outcome.error).__name__
            yield Relaxed(outcome.number, outcome.value, error, seconds)
