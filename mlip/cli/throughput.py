"""``mlip bench md`` and ``mlip bench train``: throughput of a model against size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.profile import KernelChoice, progress

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.benchmark.profile_steps import Step
    from mlip.benchmark.throughput import Throughput
    from mlip.data.graph import AtomGraph
    from mlip.models.base import AtomisticModel

TABLE, PLOT = "throughput.csv", "throughput.png"
ADVICE = "replace it with --overwrite, or choose another folder with --output."


def bench_md(
    model: Annotated[Path, typer.Argument(help="Model file, or the name of an imported model.")],
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads; its first frame.")],
    sizes: Annotated[
        str | None,
        typer.Option(help="Cells along each periodic axis: 3, 1-4 or 1,2,4.  [default: 1, 2, … up to 1000 atoms]"),
    ] = None,
    timestep: Annotated[float, typer.Option(help="fs.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="Of measurement for each size; three steps at least.", min=0.0)] = 5.0,
    skin: Annotated[float, typer.Option(help="Width in Å by which the neighbour list is reused.")] = 0.5,
    kernels: Annotated[KernelChoice, typer.Option(help="Generated kernels, or plain torch.")] = KernelChoice.auto,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the model's]")] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("bench_md"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in the folder.")] = False,
) -> None:
    """Measure molecular dynamics of a model on growing cells.

    Example: mlip bench md sevennet-0 silicon.cif --sizes 1-4

    NVE from 300 K on the CPU. Prints atoms times steps a second, ms a step, ns a day and the peak memory of the
    process, and writes them to throughput.csv and throughput.png.
    """
    from mlip.core.errors import ConfigError
    from mlip.models.names import existing_model
    from mlip.simulate.output import claim_folder
    from mlip.simulate.structures import read_structure

    existing_model(model)
    if not 0 < timestep < float("inf"):
        raise ConfigError(f"--timestep must be a number of fs above 0, got {timestep}.")
    atoms = read_structure(structure, 0)
    folder = claim_folder(output, TABLE, overwrite, ADVICE)

    from rich.console import Console

    from mlip.benchmark.profile_steps import md_step, repeated
    from mlip.benchmark.throughput import default_sizes, parse_sizes
    from mlip.models.model_file import load_model

    axes = int(atoms.pbc.sum())
    chosen = default_sizes(len(atoms), axes) if sizes is None else parse_sizes("--sizes", sizes)
    if not axes and chosen != [1]:
        raise ConfigError("The structure is not periodic: its only size is 1; leave --sizes out.")
    loaded = load_model(model, dtype=dtype)

    def step_of(size: int) -> Step:
        cell = repeated(atoms, tuple(size if periodic else 1 for periodic in atoms.pbc))
        return md_step(loaded, cell, kernels.value, timestep, skin)

    console = Console()
    rows = _measure(step_of, chosen, seconds, timestep, threads, console)
    title = f"{model.stem if model.suffix else model}, MD of {atoms.get_chemical_formula()}, kernels {kernels}"
    _finish(rows, folder, title, "cells", console)


def bench_train(
    overrides: Annotated[
        list[str], typer.Argument(help="As for mlip train: data.path=FILE, model=NAME, finetune.model=FILE, …")
    ],
    batch_sizes: Annotated[str, typer.Option(help="Structures in a batch: 3, 1-4 or 1,2,4.")] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(help="Of measurement for each size; three steps at least.", min=0.0)] = 5.0,
    kernels: Annotated[KernelChoice, typer.Option(help="Generated kernels, or plain torch.")] = KernelChoice.auto,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("bench_train"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in the folder.")] = False,
) -> None:
    """Measure training steps of a model on growing batches.

    Example: mlip bench train model=nequip data.path=my.xyz --batch-sizes 1,2,5

    A step is the loss on energy and forces, its gradients and Adam, on the CPU, on batches of the first training
    structures. Prints atoms times steps a second, ms a step and the peak memory of the process, and writes them to
    throughput.csv and throughput.png.
    """
    from rich.console import Console

    from mlip.benchmark.throughput import parse_sizes
    from mlip.simulate.output import claim_folder

    chosen = parse_sizes("--batch-sizes", batch_sizes)
    folder = claim_folder(output, TABLE, overwrite, ADVICE)
    console = Console()
    model, graphs = _model_and_graphs(overrides, max(chosen), console)

    from mlip.benchmark.profile_steps import training_step_of

    def step_of(size: int) -> Step:
        # A batch that is larger than the data has some structures twice.
        return training_step_of(model, [graphs[k % len(graphs)] for k in range(size)], kernels.value)

    rows = _measure(step_of, chosen, seconds, None, threads, console)
    title = f"{type(model).__name__} of {model.num_parameters:,} parameters, training step, kernels {kernels}"
    _finish(rows, folder, title, "batch", console)


def _model_and_graphs(
    overrides: Sequence[str], number: int, console: Console
) -> tuple[AtomisticModel, list[AtomGraph]]:
    """Return the model that a training would start with, and the graphs of its first structures."""
    from omegaconf import OmegaConf

    from mlip.cli.compose import compose
    from mlip.cli.progress import ProgressBar
    from mlip.cli.training.preparation import make_model
    from mlip.core.errors import ConfigError
    from mlip.data.loading import GraphDataset
    from mlip.data.parts import load_parts

    config = compose("train", overrides)
    with ProgressBar("reading the data", console) as report:
        parts = load_parts(OmegaConf.to_container(config.data, resolve=True), report)
    if not parts.train:
        raise ConfigError("There are no structures to train on: give data.path, and data.split with some.")
    model, _, _ = make_model(config, parts, console, False)
    samples = GraphDataset(
        parts.train, model.graph_builder, labels=[*model.needs], elements=model.elements, inputs=model.inputs
    )
    graphs = [samples[k] for k in range(min(number, len(samples)))]
    return model, graphs


def _measure(
    step_of: Callable[[int], Step],
    sizes: Sequence[int],
    seconds: float,
    timestep: float | None,
    threads: int,
    console: Console,
) -> list[Throughput]:
    """Measure every size, smallest first."""
    import torch

    from mlip.benchmark.throughput import measure_throughput

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows = []
    try:
        with progress(console) as report:
            for number, size in enumerate(sizes):

                def share(of_size: float, number: int = number, size: int = size) -> None:
                    report(f"size {size}", (number + of_size) / len(sizes))

                share(0.0)
                rows.append(measure_throughput(step_of(size), size, seconds, timestep, share))
    finally:
        torch.set_num_threads(before)
    return rows


def _finish(rows: Sequence[Throughput], folder: Path, title: str, size_name: str, console: Console) -> None:
    """Write table and plot, and print the table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mlip.benchmark.throughput import plot_throughput, write_throughput

    write_throughput(folder / TABLE, rows)
    plot_throughput(folder / PLOT, rows, title)
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE, padding=0)
    names = [size_name, "atoms", "edges", "atoms·steps/s", "ms", "ms (CPU)", "ns/day", "peak MB"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = (row.atom_steps_per_second, row.ms, row.cpu_ms, row.ns_per_day, row.peak_mb)
        table.add_row(str(row.size), str(row.atoms), str(row.edges), *map(_digits, numbers))
    console.print(table)
    console.print(f"Results are in {folder}", soft_wrap=True, highlight=False)


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
