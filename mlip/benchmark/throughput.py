"""Throughput against size: molecular dynamics of growing cells, training steps of growing batches."""

from __future__ import annotations

import csv
import gc
import io
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median

from matplotlib.ticker import NullFormatter, StrMethodFormatter

from mlip.benchmark.profile_steps import Step
from mlip.core.errors import ConfigError
from mlip.core.files import write_text_atomically
from mlip.core.peak_memory import forget_peak_memory, peak_memory
from mlip.evaluation.plots import COLOURS, new_figure, save_png

WARMUP, LEAST_STEPS = 2, 3
LARGEST_SIZE = 10_000


@dataclass(frozen=True)
class Throughput:
    """What was measured at one size.

    Attributes:
        size: cells along each periodic axis, or structures of a batch.
        atoms, edges: of a step.
        steps: that were timed.
        ms: median wall time of a step; ``ms_low`` and ``ms_high`` of the fastest and the slowest.
        cpu_ms: median CPU time of a step, of all threads.
        atom_steps_per_second: atoms times steps a second of wall time.
        ns_per_day: of molecular dynamics, else None.
        peak_mb: most memory that the process held, 10⁶ bytes; where the system does not begin anew for every size, the
            most until then; None where it does not tell.
    """

    size: int
    atoms: int
    edges: int
    steps: int
    ms: float
    ms_low: float
    ms_high: float
    cpu_ms: float
    atom_steps_per_second: float
    ns_per_day: float | None
    peak_mb: float | None


def measure_throughput(
    step: Step, size: int, seconds: float, timestep: float | None = None, report: Callable[[float], None] | None = None
) -> Throughput:
    """Repeat a step for a time.

    Args:
        step: what to repeat.
        size: for the result.
        seconds: of wall time, after the first steps.
        timestep: fs of molecular dynamics.
        report: is told the share that is done.
    """
    # What the size before has left would count.
    gc.collect()
    forget_peak_memory()
    for _ in range(WARMUP):
        step.run()
    times: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(times) < LEAST_STEPS or time.perf_counter() - begin < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        step.run()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        if report is not None:
            report(min(1.0, (time.perf_counter() - begin) / max(seconds, 1e-9)))
    peak = peak_memory()
    walls = [wall for wall, _ in times]
    middle = median(walls)
    return Throughput(
        size=size,
        atoms=step.num_atoms,
        edges=step.num_edges,
        steps=len(times),
        ms=1e3 * middle,
        ms_low=1e3 * min(walls),
        ms_high=1e3 * max(walls),
        cpu_ms=1e3 * median(cpu for _, cpu in times),
        atom_steps_per_second=step.num_atoms / middle,
        ns_per_day=None if timestep is None else 86_400 * 1e-6 * timestep / middle,
        peak_mb=None if peak is None else 1e-6 * peak,
    )


def parse_sizes(option: str, text: str) -> list[int]:
    """Read sizes such as ``3``, ``1-4`` or ``1,2,4``, rising.

    Raises:
        ConfigError: anything else.
    """
    sizes: set[int] = set()
    for part in text.replace(",", " ").split():
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last <= LARGEST_SIZE:
            raise ConfigError(f"{option} takes sizes such as 3, 1-4 or 1,2,4, got '{text}'.")
        sizes.update(range(first, last + 1))
    if not sizes:
        raise ConfigError(f"{option} takes sizes such as 3, 1-4 or 1,2,4, got '{text}'.")
    return sorted(sizes)


def default_sizes(num_atoms: int, num_axes: int, largest: int = 1000) -> list[int]:
    """Return 1, 2, … as long as a cell of ``num_atoms`` repeated along ``num_axes`` has at most ``largest`` atoms."""
    sizes = [1]
    while num_axes and num_atoms * (sizes[-1] + 1) ** num_axes <= largest:
        sizes.append(sizes[-1] + 1)
    return sizes


def write_throughput(path: str | os.PathLike[str], rows: Iterable[Throughput]) -> None:
    """Write the rows as CSV.

    Raises:
        MlipError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Throughput)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
    write_text_atomically(path, text.getvalue())


def plot_throughput(path: str | os.PathLike[str], rows: Sequence[Throughput], title: str) -> None:
    """Draw atoms times steps a second, milliseconds a step and peak memory against the number of atoms.

    Raises:
        MlipError: the file cannot be written.
    """
    atoms = [row.atoms for row in rows]
    panels = [
        ("atoms x steps / second", [row.atom_steps_per_second for row in rows]),
        ("ms / step", [row.ms for row in rows]),
    ]
    if all(row.peak_mb is not None for row in rows):
        panels.append(("peak memory / MB", [row.peak_mb for row in rows]))
    figure = new_figure(3.6 * len(panels), 3.6)
    for axes, colour, (label, values) in zip(figure.subplots(1, len(panels)), COLOURS, panels):
        axes.plot(atoms, values, "o-", color=colour, markersize=4, linewidth=1.2)
        axes.set(xlabel="atoms", ylabel=label, xscale="log", yscale="log")
        axes.set_xticks(atoms)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if label.startswith("peak"):
            # Most of it is there without a step.
            axes.set(yscale="linear", ylim=(0, None))
        axes.grid(alpha=0.3, which="both")
    figure.suptitle(title, fontsize=10)
    save_png(figure, path)
