"""Pictures of several training runs: errors against steps and against time, and error against the cost of a step."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mlip.core.errors import DataError
from mlip.evaluation.compare import Comparison, pareto
from mlip.evaluation.plots import COLOURS, new_figure, save_png, short
from mlip.evaluation.run_folder import TrainingRun, headline_errors

LINES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"
REPEATED = "seed"
"""Runs that differ in this only are drawn alike."""


def plot_curves(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Draw the validation errors of all runs over the time and over the steps.

    Args:
        path: PNG file, written whole or not at all.
        comparison: from :func:`mlip.evaluation.compare.compare`.

    Raises:
        DataError: no run has an error to draw.
    """
    clock = "cpu_seconds" if comparison.cpu else "seconds"
    panels = [panel for panel in headline_errors() if _has(comparison.runs, f"valid/{panel[1]}")]
    if not panels:
        raise DataError("No run has validated yet: there is nothing to draw.")
    styles = _styles(comparison)
    figure = new_figure(10.0, 3.4 * len(panels) + 0.22 * len(set(styles)))
    grid = figure.subplots(len(panels), 2, squeeze=False, sharex="col", sharey="row")
    longest = max((run.curves[clock][1][-1] for run in comparison.runs if clock in run.curves), default=0.0)
    unit, size = ("s", 1.0) if longest < 180 else ("min", 60.0) if longest < 10_800 else ("h", 3600.0)
    for row, (title, key, error_unit) in zip(grid, panels, strict=True):
        for run, (colour, line, marker, _) in zip(comparison.runs, styles, strict=True):
            _curve(row, run, f"valid/{key}", clock, size, {"color": colour, "linestyle": line, "marker": marker})
        for axes in row:
            axes.set_title(f"{title.capitalize()} MAE, validation", fontsize=10)
            _finish(axes)
        row[0].set_ylabel(error_unit or "MAE")
    grid[-1, 0].set_xlabel(f"{'processor ' if comparison.cpu else ''}time / {unit}")
    grid[-1, 1].set_xlabel("step")
    grid[-1, 1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(figure, grid[0, 0], styles)
    save_png(figure, path)


def plot_pareto(path: str | os.PathLike[str], comparison: Comparison) -> bool:
    """Draw the errors over the time of a training step, with a line through the runs that no other one beats.

    Args:
        path: PNG file, written whole or not at all.
        comparison: from :func:`mlip.evaluation.compare.compare`.

    Returns:
        Whether there was anything to draw: runs of earlier versions do not know what a step costs.
    """
    key = "step_cpu_ms" if comparison.cpu else "step_ms"
    panels = [
        (title, error, unit)
        for title, error, unit in headline_errors()
        if any(row.get(key) is not None and row.get(error) is not None for row in comparison.rows)
    ]
    if not panels:
        return False
    styles = _styles(comparison)
    figure = new_figure(5.2 * len(panels), 4.4 + 0.22 * len(set(styles)))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, error, unit) in zip(grid, panels, strict=True):
        points = []
        for row, (colour, _, marker, _) in zip(comparison.rows, styles, strict=True):
            if row.get(key) is not None and row.get(error) is not None:
                points.append((float(row[key]), float(row[error])))
                axes.plot(*points[-1], color=colour, marker=marker, markersize=7, linestyle="")
        front = np.array([points[k] for k in pareto(points)])
        axes.plot(*front.T, color="black", linewidth=0.8, linestyle="--", zorder=0)
        axes.set_title(f"{title.capitalize()} MAE, validation", fontsize=10)
        axes.set(xlabel=f"{'processor ' if comparison.cpu else ''}time of a training step / ms", ylabel=unit or "MAE")
        _finish(axes, np.array(points))
    _legend(figure, grid[0], styles, lines=False)
    save_png(figure, path)
    return True


def _styles(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return colour, line, marker and label of each run; runs that differ in the seed only look alike."""
    labels = comparison.labels(without=[key for key in comparison.settings if key.split(".")[-1] == REPEATED])
    distinct = list(dict.fromkeys(labels))
    styles = {}
    for k, label in enumerate(distinct):
        again = k // len(COLOURS)
        styles[label] = (COLOURS[k % len(COLOURS)], LINES[again % len(LINES)], MARKERS[again % len(MARKERS)], label)
    return [styles[label] for label in labels]


def _has(runs: Sequence[TrainingRun], name: str) -> bool:
    return any(name in run.curves for run in runs)


def _curve(row: Sequence[Axes], run: TrainingRun, name: str, clock: str, size: float, style: dict[str, str]) -> None:
    """Draw one run over the time and over the steps."""
    if name not in run.curves:
        return
    steps, values = run.curves[name]
    options = style | {"linewidth": 1.3, "markersize": 2.5 if len(steps) < 100 else 0.0}
    row[1].plot(steps, values, **options)
    if clock in run.curves:
        at, times = run.curves[clock]
        both = np.isin(steps, at)
        row[0].plot(times[np.searchsorted(at, steps[both])] / size, values[both], **options)


def _finish(axes: Axes, points: np.ndarray | None = None) -> None:
    """Make axes logarithmic whose values span a factor of three, and draw a grid."""
    if points is not None and points[:, 0].min() > 0 and points[:, 0].max() > 3 * points[:, 0].min():
        axes.set_xscale("log")
    elif points is not None:
        # A few per cent must not look like a lot.
        axes.set_xlim(0.0, 1.08 * points[:, 0].max() or None)
    values = [line.get_ydata() for line in axes.get_lines()]
    values = np.concatenate([np.asarray(value, dtype=float) for value in values]) if values else np.ones(1)
    if values.size and values.min() > 0 and values.max() > 3 * values.min():
        axes.set_yscale("log")
    elif points is not None:
        axes.set_ylim(0.0, 1.08 * points[:, 1].max() or None)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
            axis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="both", linewidth=0.3, alpha=0.5)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes, styles: Sequence[tuple[str, str, str, str]], lines: bool = True) -> None:
    """Put one entry for each kind of run below the panels."""
    entries = [
        axes.plot([], [], color=colour, linestyle=line if lines else "", marker=marker, markersize=5, label=label)[0]
        for colour, line, marker, label in dict.fromkeys(styles)
    ]
    longest = max(len(entry.get_label()) for entry in entries)
    columns = max(1, min(len(entries), int(figure.get_figwidth() * 13 / (longest + 8))))
    figure.legend(handles=entries, loc="outside lower center", fontsize=8, frameon=False, ncols=columns)
