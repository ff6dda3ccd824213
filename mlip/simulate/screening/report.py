"""The files of a screening: the store, a table, counts and a plot, made from the records at any time."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from mlip.core.files import write_atomically, write_text_atomically
from mlip.simulate.output import write_summary
from mlip.simulate.relax_output import plot_histogram
from mlip.simulate.screening.record import DONE, JOURNAL, STATUSES, Column, ScreenRecord, columns_of
from mlip.simulate.screening.store import STORE, write_store
from mlip.simulate.screening.task import ScreeningTask

TABLE, SUMMARY, PLOT = "results.csv", "summary.json", "summary.png"
FILES = (JOURNAL.file, STORE, TABLE, SUMMARY, PLOT)

SLOWEST = 10
"""In the summary."""


def write_results(
    folder: Path, records: Sequence[ScreenRecord], task: ScreeningTask, about: Mapping[str, Any], run: Mapping[str, Any]
) -> None:
    """Write ``results.h5``, ``results.csv``, ``summary.json`` and ``summary.png``, each whole or not at all.

    Args:
        folder: where to.
        records: in the order of the input.
        task: that was run.
        about: what the results belong to: into the store and the summary.
        run: how it went: into the summary.

    Raises:
        MlipError: the folder cannot be written to, or the disk is full.
    """
    columns = type(task).columns
    write_store(folder / STORE, records, columns, about)
    write_text_atomically(folder / TABLE, as_csv(records, columns))
    write_summary(folder / SUMMARY, {**about, **run, **summary(records, columns)})
    plot_summary(folder / PLOT, records, task)


def remove_results(folder: Path) -> None:
    """Remove what an earlier run left, but for the journal, so that no file of it is taken for one of the next run."""
    for name in FILES[1:]:
        (folder / name).unlink(missing_ok=True)


def as_csv(records: Sequence[ScreenRecord], columns: Mapping[str, Column]) -> str:
    """Return the table as CSV, units in the heads of the columns; all digits of a number, arrays left out."""
    shown = {name: column for name, column in columns_of(columns).items() if column.kind != "numbers"}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_head(name, column) for name, column in shown.items()])
    for record in records:
        cells = [record.cell(name) for name in shown]
        writer.writerow(["" if cell is None else _printable(cell) for cell in cells])
    return text.getvalue()


def _head(name: str, column: Column) -> str:
    return f"{name}_{column.unit.replace('/', '_per_')}" if column.unit else name


def _printable(cell: Any) -> Any:
    return cell.encode(errors="replace").decode() if isinstance(cell, str) else cell


def summary(records: Sequence[ScreenRecord], columns: Mapping[str, Column]) -> dict[str, Any]:
    """Return counts, medians of the columns, the slowest structures and all that is not done; ready for JSON."""
    status = Counter(record.status for record in records)
    done = [record for record in records if record.status == DONE]
    slowest = sorted(done, key=lambda record: -(record.seconds or 0))[:SLOWEST]
    medians: dict[str, float] = {}
    truths: dict[str, int] = {}
    for name, column in columns.items():
        values = [record.cell(name) for record in done if record.cell(name) is not None]
        if column.kind in ("number", "integer"):
            finite = [value for value in values if math.isfinite(value)]
            medians |= {_head(name, column): median(finite)} if finite else {}
        elif column.kind == "truth":
            truths[name] = sum(values)
    return {
        "structures": len(records),
        **{name: status[name] for name in STATUSES},
        "with_warnings": sum(bool(record.warnings) for record in records),
        "true": truths,
        "median": medians,
        "slowest": [{"name": _printable(one.name), "atoms": one.atoms, "seconds": one.seconds} for one in slowest],
        "not_done": [
            {"name": _printable(one.name), "status": one.status, "error": _printable(one.error)}
            for one in records
            if one.status != DONE
        ],
    }


def plot_summary(path: Path, records: Sequence[ScreenRecord], task: ScreeningTask) -> None:
    """Write a PNG with counts, the time of structures and histograms of the task's highlights.

    Raises:
        MlipError: the file cannot be written.
    """
    columns, names = type(task).columns, type(task).highlights
    done = [record for record in records if record.status == DONE]
    figure = Figure(figsize=(3.4 * (2 + len(names)), 3.4), layout="constrained")
    counted, timed, *others = figure.subplots(1, 2 + len(names))
    status = Counter(record.status for record in records)
    bars = counted.bar(STATUSES, [status[name] for name in STATUSES], color=["C2", "C3", "C4", "0.6"])
    counted.bar_label(bars)
    counted.margins(y=0.12)
    counted.set_ylabel("structures")
    counted.tick_params(axis="x", labelrotation=20)
    plot_histogram(timed, [record.seconds for record in done if record.seconds is not None], "seconds", "C0")
    for axes, name in zip(others, names):
        unit = f" / {columns[name].unit}" if columns[name].unit else ""
        values = [float(record.cell(name)) for record in done if record.cell(name) is not None]
        plot_histogram(axes, values, name.replace("_", " ") + unit, "C1")
    figure.suptitle(f"{type(task).name}: {len(records)} structures, {status[DONE]} done", fontsize=11)
    write_atomically(path, lambda part: figure.savefig(str(part), format="png", dpi=110))
