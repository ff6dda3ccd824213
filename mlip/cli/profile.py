"""``mlip profile``: where the time of a step goes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.kernels import KernelChoice

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.benchmark.profile import Profile, Report, Row

TABLE, FLAMES = "profile.csv", "flame_graph.html"


class Task(StrEnum):
    """What a step is."""

    md = "md"
    train = "train"


def profile(
    model: Annotated[Path, typer.Argument(help="Model file, or the name of an imported model.")],
    structure: Annotated[
        Path, typer.Argument(help="Any file that ASE reads: CIF, POSCAR, xyz, traj, …; its first frame")
    ],
    repeat: Annotated[str, typer.Option(help="Cells along each axis: 3, 3x3x3 or 2,2,1.")] = "1",
    task: Annotated[Task, typer.Option(help="md: a step of dynamics; train: a step on energy and forces.")] = Task.md,
    steps: Annotated[int, typer.Option(help="Steps of each measurement.", min=1)] = 10,
    batch_size: Annotated[
        int | None, typer.Option(help="Copies of the structure in a step of train.  [default: 1]", min=1)
    ] = None,
    kernels: Annotated[KernelChoice, typer.Option(help="Generated kernels, or plain torch.")] = KernelChoice.auto,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the model's]")] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    skin: Annotated[
        float | None, typer.Option(help="Width in Å by which the neighbour list of md is reused.  [default: 0.5]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: profile_STRUCTURE]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in the folder.")] = False,
) -> None:
    """Show where the time of a step goes.

    Example: mlip profile sevennet-0 silicon.cif --repeat 3

    And how far each part is from what this machine can do. A step of dynamics (energy, forces, 1 fs from 300 K) or of
    training is run on the CPU, without and with a profiler. The table has for each part of the model, forward and
    backward, its CPU time, operations, bytes, speed, and the share of the roofline: the shortest time that its
    operators need at the speed of matrix products and memory that is measured first, over the time they took. Writes
    profile.csv and flame_graph.html, to be opened in a browser.
    """
    from mlip.core.errors import ConfigError
    from mlip.models.names import existing_model
    from mlip.simulate.output import claim_folder
    from mlip.simulate.structures import read_structure

    useless, given = ("--batch-size", batch_size) if task is Task.md else ("--skin", skin)
    if given is not None:
        raise ConfigError(f"{useless} has no effect with --task {task}: leave it out.")
    existing_model(model)
    times = parse_repeat(repeat)
    atoms = read_structure(structure, 0)
    folder = claim_folder(
        output or Path(f"profile_{structure.stem}"), TABLE, overwrite, "replace it with --overwrite, or give --output."
    )

    # The library under torch's profiler reports each start and stop otherwise; it reads this when torch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from rich.console import Console

    from mlip.benchmark.flame_graph import write_flame_graph
    from mlip.benchmark.profile import profile_step, write_rows
    from mlip.benchmark.profile_steps import make_step, repeated
    from mlip.models.model_file import load_model

    atoms = repeated(atoms, times)
    console, before = Console(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with progress(console) as report:
            report("loading", 0.0)
            loaded = load_model(model, dtype=dtype)
            step = make_step(loaded, atoms, task.value, kernels.value, batch_size or 1, 0.5 if skin is None else skin)
            found = profile_step(step, steps, report)
    finally:
        torch.set_num_threads(before)
    title = f"{model.stem if model.suffix else model}, {atoms.get_chemical_formula()}, {step.name}, kernels {kernels}"
    write_rows(folder / TABLE, found)
    write_flame_graph(folder / FLAMES, found.stacks, f"{title}: {found.step_ms:.4g} ms a step")
    _show(found, title, console)
    console.print(f"Results are in {folder}; open {folder / FLAMES} in a browser.", soft_wrap=True, highlight=False)


def parse_repeat(text: str) -> tuple[int, int, int]:
    """Read ``3``, ``3x3x3``, ``3×3×3`` or ``2,2,1``.

    Raises:
        StructureError: anything else.
    """
    from mlip.core.errors import StructureError

    numbers = re.split(r"\s*[x×,\s]\s*", text.strip().lower())
    if len(numbers) not in (1, 3) or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise StructureError(f"--repeat must be one number of cells or three, such as 3 or 2x2x1, got '{text}'.")
    return tuple(int(number) for number in numbers * (3 // len(numbers)))


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """Show a bar on a terminal; yields what is told the next thing and the share that is done."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)

        def report(text: str, share: float) -> None:
            bar.update(task, description=text, completed=share)
            bar.refresh()

        yield report


def _show(found: Profile, title: str, console: Console) -> None:
    """Print the table, and the whole step below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mlip.benchmark.profile import total_row

    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE, padding=0)
    table.add_column("part", overflow="fold")
    for name in ("ms (CPU)", "share", "GFLOP", "MB", "GFLOP/s", "of roofline"):
        table.add_column(name, justify="right", no_wrap=True)
    direction = ""
    for row in found.rows:
        if row.direction != direction:
            direction = row.direction
            table.add_row(Text(direction, style="bold"))
        table.add_row(f"  {row.part}", *_cells(row))
    table.add_section()
    table.add_row("total", *_cells(total_row(found)))
    console.print(table)
    lines = [
        f"{found.num_atoms} atoms, {found.num_edges} edges, {found.threads} threads, means of {found.steps} steps.",
        f"This machine: {found.roofline.flops / 1e9:.4g} GFLOP/s in matrix products, "
        f"{found.roofline.bandwidth / 1e9:.3g} GB/s in copies (CPU time).",
        f"A step takes {found.step_ms:.4g} ms of CPU time ({found.wall_ms:.4g} ms of wall time) by itself, "
        f"{found.profiled_ms:.4g} ms under the profiler ({100 * found.overhead:+.1f} %): the sum of the table.",
        f"Fused layers need {found.needed_gflop:.3g} GFLOP and {found.compulsory_mb:.3g} MB, "
        f"{found.limit_ms:.3g} ms here: a step takes {found.distance:.3g} times that.",
    ]
    if found.unknown:
        lines.append(f"Operations not known of: {', '.join(found.unknown)}.")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _cells(row: Row) -> list[str]:
    share = "–" if row.of_roofline is None else f"{100 * row.of_roofline:.0f} %"
    numbers = (row.gflop, row.mb, row.gflops_per_second)
    return [f"{row.ms:.2f}", f"{100 * row.share:.1f} %", *map(_digits, numbers), share]


def _digits(value: float | None) -> str:
    if value is None:
        return "–"
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
