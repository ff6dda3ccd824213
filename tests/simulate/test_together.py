"""Many functions with one calculator: each gets its own results, whatever happens to the others."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import StructureError
from mlip.models.base import graph_index
from mlip.simulate.together import Outcome, run_together
from tests.simulate.pair_model import PairModel


class Counting(PairModel):
    """Notes how many atoms are evaluated at once."""

    sizes: list[int] = []  # noqa: RUF012 - a calculator copies its model; the copies share this list

    def forward(self, graph):
        self.sizes.append(len(graph.positions))
        return super().forward(graph)


@pytest.fixture
def calculator() -> MLIPCalculator:
    Counting.sizes = []
    return MLIPCalculator(Counting())


def chain(length: int, distance: float = 2.4) -> Atoms:
    return Atoms("Cu" * length, [[0, 0, distance * k] for k in range(length)])


def energies(atoms: Atoms, evaluations: int):
    """A task that evaluates a structure some times, moving it."""

    def run(calculator: MLIPCalculator) -> list[float]:
        moved = atoms.copy()
        moved.calc = calculator
        found = []
        for _ in range(evaluations):
            found.append(moved.get_potential_energy())
            moved.positions *= 1.01
        return found

    return run


def test_everyone_gets_its_own_results(calculator: MLIPCalculator) -> None:
    structures = [(chain(2 + k, 2.2 + 0.05 * k), 1 + k % 4) for k in range(9)]
    outcomes = list(run_together([energies(*one) for one in structures], calculator))
    assert sorted(outcome.number for outcome in outcomes) == list(range(9))
    for outcome in outcomes:
        alone = energies(*structures[outcome.number])(MLIPCalculator(PairModel()))
        assert outcome.error is None
        np.testing.assert_allclose(outcome.value, alone, atol=1e-12)


def test_short_ones_end_first_and_others_in_order(calculator: MLIPCalculator) -> None:
    tasks = [energies(chain(3), count) for count in (3, 1, 2, 1, 3)]
    assert [outcome.number for outcome in run_together(tasks, calculator)] == [1, 3, 2, 0, 4]


def test_those_that_end_make_room(calculator: MLIPCalculator) -> None:
    tasks = [energies(chain(4), count) for count in (1, 5, 1, 5, 1, 1)]
    outcomes = list(run_together(tasks, calculator, max_atoms=8))
    assert len(outcomes) == 6
    # Two at a time, as long as there are two.
    assert Counting.sizes == [8] * 7
    assert max(Counting.sizes) <= 8


def test_tasks_are_read_when_there_is_room(calculator: MLIPCalculator) -> None:
    read = []

    def tasks() -> Iterator:
        for number in range(100):
            read.append(number)
            yield energies(chain(4), 2)

    outcomes = run_together(tasks(), calculator, max_atoms=12)
    next(outcomes)
    assert len(read) == 3
    outcomes.close()
    assert len(read) == 3


def test_closing_unwinds_what_is_under_way(calculator: MLIPCalculator) -> None:
    unwound = []

    def task(number: int):
        def run(companion: MLIPCalculator) -> None:
            try:
                energies(chain(3), 1 if number == 1 else 50)(companion)
            finally:
                unwound.append(number)

        return run

    outcomes = run_together(map(task, range(3)), calculator)
    assert next(outcomes) == Outcome(1, None, None)
    outcomes.close()
    assert sorted(unwound) == [0, 1, 2]


def test_a_huge_structure_is_evaluated_alone(calculator: MLIPCalculator) -> None:
    tasks = [energies(chain(length), 2) for length in (4, 4, 60, 4)]
    assert all(outcome.error is None for outcome in run_together(tasks, calculator, max_atoms=14))
    assert set(Counting.sizes) <= {4, 8, 12, 60}
    assert 60 in Counting.sizes


def test_edges_count_as_well(calculator: MLIPCalculator) -> None:
    dense = bulk("Cu", "fcc", a=3.4)
    assert all(o.error is None for o in run_together([energies(dense, 2)] * 6, calculator, max_edges=40))
    assert max(Counting.sizes) <= 2


class TestErrorsStayWithTheirTask:
    def test_unknown_elements_and_errors_of_the_task(self, calculator: MLIPCalculator) -> None:
        def wrong(companion: MLIPCalculator) -> None:
            raise ValueError("no")

        tasks = [energies(chain(2), 2), energies(Atoms("O"), 1), wrong, energies(chain(3), 2)]
        outcomes = {outcome.number: outcome for outcome in run_together(tasks, calculator)}
        assert isinstance(outcomes[1].error, StructureError)
        assert "contains O" in str(outcomes[1].error)
        assert str(outcomes[2].error) == "no"
        assert outcomes[0].error is outcomes[3].error is None
        assert len(outcomes[3].value) == 2

    def test_the_model_fails_on_a_batch(self) -> None:
        class Fragile(PairModel):
            def forward(self, graph):
                if (graph.atomic_numbers == 1).any():
                    raise RuntimeError("out of memory")
                return super().forward(graph)

        tasks = [energies(chain(2), 3), energies(Atoms("H2", [[0, 0, 0], [0, 0, 1]]), 3), energies(chain(3), 3)]
        outcomes = {outcome.number: outcome for outcome in run_together(tasks, MLIPCalculator(Fragile()))}
        assert str(outcomes[1].error) == "out of memory"
        np.testing.assert_allclose(outcomes[2].value, energies(chain(3), 3)(MLIPCalculator(PairModel())), atol=1e-12)

    def test_nan_of_one_structure(self) -> None:
        class Broken(PairModel):
            def forward(self, graph):
                found = super().forward(graph)
                bad = torch.zeros_like(found["energy"]).index_add(
                    0, graph_index(graph), (graph.atomic_numbers == 1).double()
                )
                return found | {"energy": torch.where(bad > 0, torch.nan, found["energy"])}

        tasks = [energies(chain(2), 2), energies(Atoms("H2", [[0, 0, 0], [0, 0, 1]]), 2)]
        outcomes = {outcome.number: outcome for outcome in run_together(tasks, MLIPCalculator(Broken()))}
        assert outcomes[0].error is None
        assert "energy of nan" in str(outcomes[1].error)

    def test_what_nobody_expected(self, calculator: MLIPCalculator) -> None:
        def defect(companion: MLIPCalculator) -> None:
            raise TypeError("a defect")

        outcomes = {one.number: one for one in run_together([energies(chain(2), 2), defect], calculator)}
        assert len(outcomes[0].value) == 2
        assert str(outcomes[1].error) == "This structure led to an unexpected TypeError: a defect."
        assert isinstance(outcomes[1].error.__cause__, TypeError)

    def test_what_nobody_expected_of_the_model(self) -> None:
        class Odd(PairModel):
            def forward(self, graph):
                if (graph.atomic_numbers == 1).any():
                    raise AttributeError("no such thing")
                return super().forward(graph)

        tasks = [energies(chain(2), 3), energies(Atoms("H2", [[0, 0, 0], [0, 0, 1]]), 3)]
        outcomes = {one.number: one for one in run_together(tasks, MLIPCalculator(Odd()))}
        assert len(outcomes[0].value) == 3
        assert "unexpected AttributeError: no such thing" in str(outcomes[1].error)

    @pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
    def test_what_concerns_all_stops_all(self, calculator: MLIPCalculator, kind: type[BaseException]) -> None:
        def stop(companion: MLIPCalculator) -> None:
            energies(chain(2), 1)(companion)
            raise kind

        with pytest.raises(kind):
            list(run_together([energies(chain(2), 2), stop], calculator))


def test_nothing_to_do(calculator: MLIPCalculator) -> None:
    assert list(run_together([], calculator)) == []
