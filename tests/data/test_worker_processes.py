"""Worker processes: order, one process for little work, and a worker that is killed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mlip.data.worker_processes import WorkerLost, apply_all, parent_lives


def square(number: int) -> int:
    return number * number


def slow_then_quick(seconds: float) -> tuple[float, str | None]:
    """Sleep, and return what the environment says of threads."""
    time.sleep(seconds)
    return seconds, os.environ.get("OMP_NUM_THREADS")


def killed_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_one_worker_or_one_task_needs_no_process():
    """A function that no process could be given."""
    assert list(apply_all(lambda x: x + 1, range(4), 1)) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert list(apply_all(lambda x: x + 1, [7], 8)) == [(0, 8)]
    assert list(apply_all(square, [], 8)) == []
    assert parent_lives()


@pytest.mark.slow
def test_results_in_order_and_as_they_are_finished(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert list(apply_all(square, range(30), 2)) == [(number, number**2) for number in range(30)]
    waits = [2.0, 0.0, 0.1]
    ordered = list(apply_all(slow_then_quick, waits, 2))
    assert ordered == [(number, (seconds, "1")) for number, seconds in enumerate(waits)]
    assert sorted(apply_all(slow_then_quick, waits, 2, ordered=False)) == ordered
    first = next(apply_all(slow_then_quick, waits, 2, ordered=False))
    assert first[0] != 0
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [True, False])
def test_a_killed_worker_is_noticed_and_its_task_is_named(ordered):
    with pytest.raises(WorkerLost, match="worker process ended unexpectedly") as caught:
        list(apply_all(killed_at_three, range(9), 2, ordered))
    assert caught.value.number == 3
