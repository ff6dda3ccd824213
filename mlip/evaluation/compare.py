"""One table of several training runs: what differs between them, what they cost, how good they are."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.files import write_text_atomically
from mlip.evaluation.run_folder import TrainingRun, headline_errors, is_run, read_run
from mlip.evaluation.settings import differences

Value = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: in the CSV file, and to sort by.
        title: on the screen; "" for what only the CSV file has.
        unit: on the screen.
    """

    key: str
    title: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        runs: in the order of the rows.
        columns: in the order of the CSV file.
        rows: values by key; None is unknown.
        settings: keys of the columns with settings, all that differ.
        cpu: whether times are those of the training thread instead of the wall's.
    """

    runs: tuple[TrainingRun, ...]
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Value], ...]
    settings: tuple[str, ...]
    cpu: bool = False

    def labels(self, without: Sequence[str] = ()) -> list[str]:
        """Return for each run its settings that differ, without some; its name where there are none."""
        labels = []
        for row in self.rows:
            parts = [f"{_last_name(key)} {row[key]}" for key in self.settings if key not in without and row[key] != ""]
            labels.append(", ".join(parts) or str(row["run"]))
        return labels

    def warnings(self) -> list[str]:
        """Return sentences about what cannot be compared."""
        found = []
        for part, verb in (("valid", "validated"), ("train", "trained")):
            if len({run.data[part] for run in self.runs if part in run.data}) > 1:
                meaning = "their errors are not comparable" if part == "valid" else "the data differ as well"
                found.append(f"The runs were {verb} on different structures: {meaning}.")
        for name in dict.fromkeys(name for run in self.runs for name in run.tests):
            tests = [run.tests[name] for run in self.runs if name in run.tests]
            if len({test.data for test in tests}) > 1:
                found.append(f"'{name}' holds errors on different structures: they are not comparable.")
            if any(test.outdated for test in tests):
                found.append(f"'{name}' is older than the model of some run: evaluate again.")
        return found


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Return run folders: those given, and those in given folders of runs; each once.

    Raises:
        DataError: a path is neither, or there is none at all.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise DataError(
                f"There is no folder '{path}'." if not path.exists() else f"'{path}' is no folder of a run."
            )
        inside = [path] if is_run(path) else sorted(child for child in path.iterdir() if is_run(child))
        if not inside:
            raise DataError(f"'{path}' is neither the folder of a training run nor one with such folders in it.")
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise DataError("There are no runs to compare: give folders that mlip train has made.")
    return list(found.values())


def compare(folders: Sequence[Path], sort: str | None = None, cpu: bool | None = None) -> Comparison:
    """Read runs and put them into a table.

    Args:
        folders: of runs.
        sort: column to sort by: its key, its title, or the beginning of its key; blanks come last. None: the error of
            the forces, or the first other error.
        cpu: compare the training thread's own time; None: if a run was limited by that.

    Raises:
        DataError: a file of a run is damaged.
        ConfigError: no such column to sort by.
    """
    runs = [read_run(folder) for folder in folders]
    settings = differences([run.settings for run in runs])
    keys = tuple(settings[0]) if settings else ()
    rows = [
        {"run": name, "state": run.state, **values, **_measured(run)}
        for name, run, values in zip(_names(folders), runs, settings, strict=True)
    ]
    cpu = any(run.limited_by_cpu for run in runs) if cpu is None else cpu
    columns = _columns(rows, keys, (name for run in runs for name in run.tests), cpu)
    rows = [{column.key: row.get(column.key) for column in columns} for row in rows]
    errors = [column.key for column in columns if column.title and ("_mae" in column.key or "_rmse" in column.key)]
    key = _sort_key(sort, columns) if sort else next(iter(errors), None)
    order = sorted(range(len(runs)), key=lambda k: _rank(rows[k][key])) if key else range(len(runs))
    return Comparison(tuple(runs[k] for k in order), columns, tuple(rows[k] for k in order), keys, cpu)


def average(comparison: Comparison, over: str) -> Comparison:
    """Return one row for all runs that differ in one setting only, e.g. the seed: means and standard deviations.

    Columns ``KEY_std`` have the standard deviations (of a sample, n − 1), ``runs`` the numbers of runs; only runs that
    have a value count for it, and runs that have failed or are not finished for none.

    Args:
        comparison: of single runs.
        over: the setting, or the end of its key.

    Raises:
        ConfigError: the runs do not differ in that setting.
    """
    key = next((key for key in comparison.settings if over in (key, _last_name(key))), None)
    if key is None:
        known = ", ".join(comparison.settings) or "nothing"
        raise ConfigError(f"The runs do not differ in '{over}', there is nothing to average; they differ in {known}.")
    settings = tuple(name for name in comparison.settings if name != key)
    groups: dict[tuple[Value, ...], list[dict[str, Value]]] = {}
    for row in comparison.rows:
        if row["state"] == "finished":
            groups.setdefault(tuple(row[name] for name in settings), []).append(row)
    columns = [Column("runs", "runs")]
    for column in comparison.columns:
        if column.key in settings or any(isinstance(row[column.key], int | float) for row in comparison.rows):
            columns.append(column)
            columns += [] if column.key in settings else [Column(f"{column.key}_std")]
    rows = tuple(
        {"runs": len(rows), **dict(zip(settings, values, strict=True)), **_moments(rows, columns)}
        for values, rows in groups.items()
    )
    return Comparison(comparison.runs, tuple(columns), rows, settings, comparison.cpu)


def _moments(rows: Sequence[dict[str, Value]], columns: Sequence[Column]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for column in columns:
        values = [float(row[column.key]) for row in rows if isinstance(row.get(column.key), int | float)]
        if f"{column.key}_std" in (other.key for other in columns):
            found[column.key] = fmean(values) if values else None
            found[f"{column.key}_std"] = stdev(values) if len(values) > 1 else None
    return found


def write_csv(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Write the table, whole or not at all; blank cells are unknown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.key for column in comparison.columns])
    for row in comparison.rows:
        writer.writerow(["" if row[column.key] is None else row[column.key] for column in comparison.columns])
    write_text_atomically(path, buffer.getvalue())


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other one beats in one number without losing in the other.

    Lower is better; in the order of the first number.

    >>> pareto([(1.0, 9.0), (2.0, 5.0), (3.0, 6.0), (4.0, 1.0)])
    [0, 1, 3]
    """
    front: list[int] = []
    for k in sorted(range(len(points)), key=lambda k: points[k]):
        if not front or points[k][1] < points[front[-1]][1]:
            front.append(k)
    return front


def _measured(run: TrainingRun) -> dict[str, Value]:
    found: dict[str, Value] = {
        "num_parameters": run.num_parameters,
        "step_ms": run.step_ms,
        "step_cpu_ms": run.step_cpu_ms,
        "peak_memory_MB": run.peak_memory_MB,
        "steps": run.steps,
        "seconds": run.seconds,
        "cpu_seconds": run.cpu_seconds,
        "best_score": run.score,
    }
    found |= {key: value for key, value in run.errors.items() if key not in ("score", "loss")}
    for name, test in run.tests.items():
        found |= {f"{name}/{key}": value for key, value in test.errors.items()}
    return found | {"note": run.note or None}


def _columns(
    rows: Sequence[dict[str, Value]], settings: Sequence[str], evaluations: Iterable[str], cpu: bool
) -> tuple[Column, ...]:
    """Return the columns that some row has: settings, cost, errors, evaluations."""
    names = [_last_name(key) for key in settings]
    state = "" if all(row["state"] == "finished" for row in rows) else "state"
    shown = {"run": ("run", ""), "state": (state, "")}
    shown |= {key: (name if names.count(name) == 1 else key, "") for key, name in zip(settings, names, strict=True)}
    shown |= {"num_parameters": ("parameters", ""), "step_cpu_ms" if cpu else "step_ms": ("step", "ms")}
    shown |= {"peak_memory_MB": ("memory", "MB"), "cpu_seconds" if cpu else "seconds": ("time", "min")}
    shown |= {"steps": ("steps", ""), "best_score": ("score", "")}
    known = dict.fromkeys(key for row in rows for key, value in row.items() if value is not None)
    for place in ("", *(f"{name}/" for name in dict.fromkeys(evaluations))):
        for title, key, unit in headline_errors():
            shown[f"{place}{key}"] = (f"{place.removeprefix('evaluate_')}{title} MAE", unit)
    # Errors are sorted like the labels, forces first; what has no title keeps its place behind them.
    order = {key: k for k, key in enumerate(shown)}
    return tuple(Column(key, *shown.get(key, ("", ""))) for key in sorted(known, key=lambda key: order.get(key, 9999)))


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    paths = [folder.resolve() for folder in folders]
    longest = max((len(path.parts) for path in paths), default=1)
    for length in range(1, longest + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _last_name(key: str) -> str:
    return key.rpartition(".")[2]


def _sort_key(wanted: str, columns: Sequence[Column]) -> str:
    keys = [column.key for column in columns]
    if wanted in keys:
        return wanted
    titles = {column.title: column.key for column in reversed(columns) if column.title}
    # What one reads on the screen, capitals or not.
    fitting = [key for title, key in titles.items() if title.lower() == wanted.lower()]
    fitting = fitting or [key for key in keys if _last_name(key) == wanted]
    fitting = fitting or [key for key in keys if key.startswith(wanted) and "/" not in key[len(wanted) :]]
    if not fitting:
        names = list(dict.fromkeys([*(column.title for column in columns if column.title), *keys]))
        hint = did_you_mean(wanted, names) or f" Known: {', '.join(names)}."
        raise ConfigError(f"There is no column '{wanted}' to sort by.{hint}")
    return fitting[0]


def _rank(value: Value) -> tuple[int, Any]:
    """Return what to sort by: numbers, also in texts, then texts, then blanks."""
    if value is None or value == "":
        return 2, 0
    try:
        return 0, float(value)
    except ValueError:
        return 1, value
