"""Fair timings: candidates take turns, so that what else the machine does hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds a call: medians and extremes over the rounds.

    Attributes:
        wall: median wall time; on a GPU the time between CUDA events.
        wall_low, wall_high: fastest and slowest round.
        cpu: median CPU time of this process (user and system, all threads).
        cpu_low, cpu_high: fastest and slowest round.
        rounds: wall time of every round, in the order of the rounds: rounds of one call of
            :func:`time_interleaved` can be compared pair by pair.
    """

    wall: float
    wall_low: float
    wall_high: float
    cpu: float
    cpu_low: float
    cpu_high: float
    rounds: tuple[float, ...]


def time_interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    round_seconds: float = 0.05,
    device: torch.device | str = "cpu",
) -> dict[str, Timing]:
    """Time calls in rounds, each candidate once a round.

    Every candidate is called twice before the first round (compilation, caches); a round repeats it for about
    ``round_seconds``.

    Args:
        candidates: functions without arguments, by name.
        rounds: how often each has its turn.
        round_seconds: length of a turn.
        device: a CUDA device is timed with its events.
    """
    clock = _cuda_turn if torch.device(device).type == "cuda" else _cpu_turn
    repeats = {}
    for name, call in candidates.items():
        call()
        once = clock(call, 1)[0]
        repeats[name] = max(1, min(1000, round(round_seconds / max(once, 1e-7))))
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            turns[name].append(clock(call, repeats[name]))
    return {name: _summary(pairs) for name, pairs in turns.items()}


def ratio(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """Return (median, lowest, highest) of the ratios of the rounds of two candidates of one run."""
    ratios = [a / b for a, b in zip(slow.rounds, fast.rounds)]
    return statistics.median(ratios), min(ratios), max(ratios)


def _cpu_turn(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats


def _cuda_turn(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    cpu = time.process_time()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / repeats, (time.process_time() - cpu) / repeats


def _summary(pairs: list[tuple[float, float]]) -> Timing:
    wall, cpu = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Timing(
        statistics.median(wall), min(wall), max(wall), statistics.median(cpu), min(cpu), max(cpu), tuple(wall)
    )
