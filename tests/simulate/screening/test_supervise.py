"""Whatever workers do, every structure ends up done, failed or set aside, once."""

import pytest

from mlip.core.errors import ModelFileError, SimulationError
from mlip.simulate.screening.chunks import divide
from mlip.simulate.screening.record import ScreenRecord
from mlip.simulate.screening.supervise import Supervisor
from tests.simulate.screening.helpers import FakePool, items


def supervise(pool: FakePool, count: int = 16, tries: int = 3, timeout: float | None = None) -> dict[int, ScreenRecord]:
    found: dict[int, ScreenRecord] = {}
    supervisor = Supervisor(pool, tries, timeout, lambda: pool.clock)
    for record in supervisor.run(divide(items(count), 1, 1000)):
        if record is not None:
            assert record.number not in found
            found[record.number] = record
    assert sorted(found) == list(range(count))
    return found


def status(found: dict[int, ScreenRecord], wanted: str) -> set[int]:
    return {number for number, record in found.items() if record.status == wanted}


def test_all_done() -> None:
    pool = FakePool()
    assert status(supervise(pool), "done") == set(range(16))
    assert sum(pool.sizes) == 16


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("tries", [1, 3])
def test_those_that_kill_are_set_aside(tries: int, silent: bool) -> None:
    pool = FakePool(deadly={3, 4, 11}, silent=silent)
    found = supervise(pool, tries=tries)
    assert status(found, "poisoned") == {3, 4, 11}
    assert len(status(found, "done")) == 13
    # Alone, as often as allowed.
    assert found[3].error == f"Set aside: its worker died {'3 times' if tries == 3 else 'once'}."
    assert pool.sizes.count(1) >= 3 * tries


def test_a_scheduler_that_tries_again_by_itself_counts_too() -> None:
    pool = FakePool(deadly={5}, again=True)
    assert status(supervise(pool), "poisoned") == {5}
    assert pool.killed


def test_those_that_hang_are_set_aside_and_slow_ones_are_not() -> None:
    pool = FakePool(hanging={2, 9})
    found = supervise(pool, timeout=20.0)
    assert status(found, "poisoned") == {2, 9}
    assert found[2].error == "Set aside: it took longer than 20 s, or its worker died, 3 times."
    assert len(pool.killed) >= 6


def test_a_defect_at_one_structure_is_a_failure_of_it() -> None:
    found = supervise(FakePool(wrong={7}))
    assert status(found, "failed") == {7}
    assert found[7].error == "TypeError: a defect"
    assert len(status(found, "done")) == 15


def test_what_concerns_all_stops_the_run() -> None:
    with pytest.raises(ModelFileError, match="no model"):
        supervise(FakePool(error=ModelFileError("no model")))
    with pytest.raises(SimulationError, match=r"cannot begin to work \(ImportError: torch\): has it the same"):
        supervise(FakePool(error=ImportError("torch")))
    with pytest.raises(SimulationError, match="before they began"):
        supervise(FakePool(deadly=set(range(16)), silent=True))


def test_chunks() -> None:
    some = items(40)
    chunks = divide(some, 3, 20)
    assert sorted(item.number for chunk in chunks for item in chunk) == list(range(40))
    sizes = [len(item.atoms) for chunk in chunks for item in chunk]
    assert sizes == sorted(sizes, reverse=True)
    assert len(chunks) >= 12
    assert all(sum(len(item.atoms) for item in chunk) <= 80 + 4 for chunk in divide(some * 20, 1, 20))
    assert [len(chunk) for chunk in divide(some[:2], 8, 1000)] == [1, 1]
