"""Where the time of a step goes: measured part by part, and compared with what the machine could do."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields

import torch

from mlip.benchmark.profile_count import Work, count_step
from mlip.benchmark.profile_limit import CompulsoryBytes, needed_flops
from mlip.benchmark.profile_scopes import FORWARD, ORDER, Scopes, Where
from mlip.benchmark.profile_steps import Step
from mlip.benchmark.profile_trace import Stack, Trace, trace_step
from mlip.benchmark.roofline import Roofline, measure_roofline
from mlip.core.files import write_text_atomically

WARMUP = 3
"""Steps before the first that counts: kernels are built, caches filled."""

Report = Callable[[str, float], None]
"""Is told what comes next, and the share of the work that is done."""


@dataclass(frozen=True)
class Row:
    """A part of a step, in one pass.

    Attributes:
        part, direction: see :data:`mlip.benchmark.profile_scopes.PARTS`.
        ms: CPU time a step.
        share: of the whole step.
        gflop: 10⁹ floating-point operations; None where none were seen (neighbour lists).
        mb: 10⁶ bytes that operators read and wrote.
        gflops_per_second: speed.
        of_roofline: shortest time that the machine needs for these operators, over the time they took. Above one where
            operands were still in the caches.
    """

    part: str
    direction: str
    ms: float
    share: float
    gflop: float | None
    mb: float | None
    gflops_per_second: float | None
    of_roofline: float | None


@dataclass(frozen=True)
class Profile:
    """All that was measured.

    Attributes:
        rows: in the order of a step.
        stacks: CPU ms a step of every stack of labels.
        roofline: of this machine in the dtype of the model.
        step_ms, wall_ms: CPU and wall time of a step without any instrument, means.
        profiled_ms: CPU time of a step under the profiler: the sum of the rows.
        gflop, mb: of all operators of a step.
        needed_gflop, compulsory_mb: the least that fused layers need, see :mod:`mlip.benchmark.profile_limit`.
        num_atoms, num_edges, steps, threads: what was measured.
        builds: how often the neighbour list was built in the steps of the rows.
        unknown: operators whose operations are not known.
    """

    rows: tuple[Row, ...]
    stacks: Mapping[Stack, float]
    roofline: Roofline
    step_ms: float
    wall_ms: float
    profiled_ms: float
    gflop: float
    mb: float
    needed_gflop: float
    compulsory_mb: float
    num_atoms: int
    num_edges: int
    steps: int
    threads: int
    builds: int
    unknown: tuple[str, ...]

    @property
    def limit_ms(self) -> float:
        """Shortest time of a step with fused layers on this machine: of operations or of compulsory bytes."""
        return 1e3 * self.roofline.seconds(1e9 * self.needed_gflop, 1e6 * self.compulsory_mb)

    @property
    def distance(self) -> float:
        """How many times longer than `limit_ms` a step takes."""
        return self.step_ms / self.limit_ms

    @property
    def overhead(self) -> float:
        """By how much the instruments lengthen a step: 0.1 is a tenth."""
        return self.profiled_ms / self.step_ms - 1


def profile_step(step: Step, steps: int, report: Report = lambda text, share: None) -> Profile:
    """Measure a step: without instruments, under the profiler, without instruments again, and under a counter.

    Wall times of the profiler are turned into CPU time by the ratio of both over the profiled steps, so that other work
    on the machine does not count. Forward work belongs to the part whose module runs, backward work to the part that
    made the node of autograd.

    Args:
        step: what to measure.
        steps: how many for each measurement.
        report: is told the progress.
    """
    report("roofline", 0.0)
    roofline = measure_roofline(step.model.dtype)
    for number in range(WARMUP):
        report("first steps", 0.1 + 0.1 * number / WARMUP)
        step.run()
    trace, cpu, builds, plain = Trace(), 0.0, 0, []
    # The first run of torch's profiler pays for its own start.
    with _installed(step) as scopes:
        trace_step(step.run, scopes, Trace())
    for number in range(steps):
        report("steps with and without the profiler", 0.2 + 0.6 * number / steps)
        # The evaluation of a trace has filled the caches with other things.
        step.run()
        plain += [_timed(step.run), _timed(step.run)]
        with _installed(step) as scopes:
            before = step.neighbours()
            cpu += _traced(step, scopes, trace)
            builds += step.neighbours() - before
    report("counting", 0.8)
    with _installed(step) as scopes, CompulsoryBytes(step.model) as compulsory:
        counter = count_step(step.run, scopes, roofline)
    scale = cpu / trace.seconds / trace.steps
    return Profile(
        rows=_rows(trace, counter.work, scale),
        stacks={stack: 1e3 * scale * seconds for stack, seconds in trace.stacks.items()},
        roofline=roofline,
        step_ms=1e3 * sum(one for _, one in plain) / len(plain),
        wall_ms=1e3 * sum(one for one, _ in plain) / len(plain),
        profiled_ms=1e3 * cpu / trace.steps,
        gflop=1e-9 * counter.flops,
        mb=1e-6 * counter.bytes,
        needed_gflop=1e-9 * needed_flops(counter.work, step),
        compulsory_mb=1e-6 * step.passes * compulsory.moved,
        num_atoms=step.num_atoms,
        num_edges=step.num_edges,
        steps=steps,
        threads=torch.get_num_threads(),
        builds=builds,
        unknown=tuple(sorted(counter.unknown)),
    )


def write_rows(path: str | os.PathLike[str], profile: Profile) -> None:
    """Write the rows as CSV, the whole step last.

    Raises:
        MlipError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in (*profile.rows, total_row(profile)):
        writer.writerow(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in asdict(row).items()}
        )
    write_text_atomically(path, text.getvalue())


def total_row(profile: Profile) -> Row:
    """Return the whole step under the profiler: the sum of all rows."""
    least = sum(row.ms * row.of_roofline for row in profile.rows if row.of_roofline is not None)
    return Row(
        "total", "", profile.profiled_ms, 1.0, profile.gflop, profile.mb,
        1e3 * profile.gflop / profile.profiled_ms, least / profile.profiled_ms,
    )  # fmt: skip


def _rows(trace: Trace, work: Mapping[Where, Work], scale: float) -> tuple[Row, ...]:
    places = {part: number for number, part in enumerate(ORDER)}
    total, rows = trace.seconds, []
    for where in sorted({*trace.parts, *work}, key=lambda one: (one[1] != FORWARD, one[1], places[one[0]])):
        seconds = trace.parts.get(where, 0.0)
        if not seconds:
            continue
        done = work.get(where)
        ms = 1e3 * scale * seconds
        rows.append(
            Row(
                part=where[0],
                direction=where[1],
                ms=ms,
                share=seconds / total,
                gflop=None if done is None else 1e-9 * done.flops,
                mb=None if done is None else 1e-6 * done.moved,
                gflops_per_second=None if done is None else 1e-6 * done.flops / ms,
                of_roofline=None if done is None else 1e3 * done.seconds / ms,
            )
        )
    return tuple(rows)


@contextmanager
def _installed(step: Step) -> Iterator[Scopes]:
    """Have scopes around the parts of a step."""
    scopes = Scopes()
    scopes.install(step.model)
    step.wrap(scopes)
    try:
        yield scopes
    finally:
        scopes.remove()
        step.unwrap()


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def _traced(step: Step, scopes: Scopes, trace: Trace) -> float:
    """Trace a step; return the CPU seconds of the step itself, without those of the evaluation of the trace."""
    spent = 0.0

    def run() -> None:
        nonlocal spent
        spent = _timed(step.run)[1]

    trace_step(run, scopes, trace)
    return spent
