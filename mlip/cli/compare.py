"""``mlip compare``: several training runs in one table and a few pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mlip.evaluation.compare import Column, Comparison, Value


class Clock(StrEnum):
    """Which time is compared."""

    wall = "wall"
    cpu = "cpu"


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs such as that of a sweep.")],
    sort: Annotated[
        str | None,
        typer.Option(
            help="Column to sort by, of the table or of the CSV file: time, forces_mae, seed.  [default: forces]"
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the table and the plots; replaced if there.")] = Path(
        "compare"
    ),
    data: Annotated[
        list[str] | None,
        typer.Option(help="Evaluate every model on these data first; as in mlip evaluate, may be repeated."),
    ] = None,
    average: Annotated[
        str | None, typer.Option(help="Setting to average over, e.g. seed: means and standard deviations.")
    ] = None,
    clock: Annotated[
        Clock | None,
        typer.Option(help="Time of the wall or of the training thread in the plots.  [default: that of max_minutes]"),
    ] = None,
) -> None:
    """Compare training runs: settings, cost and errors.

    \b
    mlip train -m experiment=ethanol name=radial model/radial=bessel,bspline seed=0,1
    mlip compare runs/radial --average seed
    mlip compare runs/a runs/b --sort step_ms --data test.xyz

    Prints one table, and writes compare.csv, curves.png (errors over time and over steps) and pareto.png
    (error over the time of a step) into the output folder.
    """
    from rich.console import Console

    from mlip.evaluation.compare import average as average_runs
    from mlip.evaluation.compare import compare as compare_runs
    from mlip.evaluation.compare import find_runs, write_csv
    from mlip.evaluation.compare_plots import plot_curves, plot_pareto

    console = Console()
    folders = find_runs(runs)
    for folder in folders if data else []:
        _evaluate(folder, data or [])
    comparison = compare_runs(folders, sort, None if clock is None else clock is Clock.cpu)
    table = comparison if average is None else average_runs(comparison, average)
    written = [output / "compare.csv"]
    write_csv(written[0], comparison)
    if average is not None:
        written.append(output / "averages.csv")
        write_csv(written[-1], table)
    if any(run.curves for run in comparison.runs):
        written.append(output / "curves.png")
        plot_curves(written[-1], comparison)
    if plot_pareto(output / "pareto.png", comparison):
        written.append(output / "pareto.png")
    _show(table, console)
    for run, row in zip(comparison.runs, comparison.rows, strict=True):
        if run.note:
            console.print(f"{row['run']} failed: {run.note}", markup=False, highlight=False, soft_wrap=True)
    for sentence in comparison.warnings():
        console.print(f"[yellow]Warning:[/yellow] {sentence}", highlight=False, soft_wrap=True)
    console.print(f"Written: {', '.join(map(str, written))}", highlight=False, soft_wrap=True)


def _evaluate(folder: Path, data: Sequence[str]) -> None:
    """Evaluate the model of a run into a folder inside the run; a run without a model is left out."""
    from mlip.cli.data.source import find_source
    from mlip.cli.evaluate import Subset, default_folder, evaluate
    from mlip.evaluation.run_files import MODEL

    if (folder / MODEL).is_file():
        name = default_folder(find_source(list(data)).config, Subset.all)
        evaluate(folder / MODEL, list(data), output=folder / name, overwrite=True)


def _show(comparison: Comparison, console: Console) -> None:
    """Print the columns that have a title; on a narrow terminal the less important ones are left to the file."""
    columns = [column for column in comparison.columns if column.title]
    if not console.is_terminal:
        # Lines of a file are not limited by the width of a screen.
        console.width = max(console.width, _width(_table(comparison, columns), console))
    left_out = []
    for key in (*_LEAST, "run") if comparison.settings else _LEAST:
        if _width(_table(comparison, columns), console) <= console.width:
            break
        left_out += [column.title for column in columns if column.key == key]
        columns = [column for column in columns if column.key != key]
    console.print(_table(comparison, columns))
    if left_out:
        console.print(f"Not shown here, for lack of width: {', '.join(left_out)}.", highlight=False, soft_wrap=True)


_LEAST = ("steps", "best_score", "cpu_seconds", "seconds", "peak_memory_MB")
"""Columns that a narrow terminal does not show, in this order; the name of a run only if its settings tell it."""


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _table(comparison: Comparison, columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        title = column.title.replace("/", "\n") + (f"\n{column.unit}" if column.unit else "")
        named = column.key in ("run", "state", *comparison.settings)
        table.add_column(Text(title), justify="left" if named else "right", overflow="fold")
    for row in comparison.rows:
        table.add_row(*[Text(_text(column, row)) for column in columns])
    return table


def _text(column: Column, row: Mapping[str, Value]) -> str:
    value, spread = row[column.key], row.get(f"{column.key}_std")
    if value is None or isinstance(value, str):
        return value or ""
    size = 60.0 if column.key in ("seconds", "cpu_seconds") else 1.0
    text = _number(float(value) / size, 4)
    return text if not spread else f"{text} ± {_number(float(spread) / size, 2)}"


def _number(value: float, digits: int) -> str:
    """Return so many significant digits, all of those before the point, and no exponent for large numbers."""
    return f"{value:.{digits}g}" if abs(value) < 10 ** min(digits, 3) else f"{value:,.0f}"
