"""Learning curves from the table that a training run writes."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mlip.core.errors import DataError
from mlip.core.fields import TARGETS
from mlip.evaluation.metrics import error_unit, headline, quoted_error
from mlip.evaluation.plots import COLOURS, new_figure, save_png, short

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values."""


def read_curves(path: str | os.PathLike[str]) -> dict[str, Curve]:
    """Read every numerical column of a metrics table over its ``step`` column; blank cells are skipped.

    Raises:
        DataError: no such file, no ``step`` column, or no row with a number.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no table of metrics '{path}'; a training run writes it.")
    points: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if "step" not in (table.fieldnames or ()):
            raise DataError(f"'{path}' has no column 'step'; its columns are {table.fieldnames}.")
        for row in table:
            step = _number(row["step"])
            for name, text in row.items():
                value = _number(text) if isinstance(name, str) and name != "step" else None
                if step is not None and value is not None:
                    points.setdefault(name, []).append((step, value))
    if not points:
        raise DataError(f"'{path}' holds no numbers yet.")
    # A resumed run may have written some steps twice; the last value counts.
    return {name: tuple(np.array(sorted(dict(found).items())).T) for name, found in points.items()}


def learning_curve_plot(path: str | os.PathLike[str], table: str | os.PathLike[str], title: str = "") -> None:
    """Draw loss, validation errors and learning rate over the steps of a run.

    Args:
        path: PNG file, written whole or not at all.
        table: CSV with a ``step`` column, ``train/loss``, ``valid/<metric>`` and perhaps ``lr…`` columns.
        title: above the panels.

    Raises:
        DataError: as `read_curves`, or none of the columns is known.
    """
    curves = read_curves(table)
    errors = [panel for panel in _error_panels() if panel[0] in curves]
    rates = [name for name in curves if name.split("/")[-1].startswith(("lr", "learning_rate"))]
    losses = [name for name in ("train/loss", "valid/loss") if name in curves]
    number = bool(losses) + len(errors) + bool(rates)
    if not number:
        raise DataError(f"'{table}' has none of the known columns; it has {', '.join(curves)}.")
    columns = 2 if number > 1 else 1
    rows = math.ceil(number / columns)
    figure = new_figure(5.0 * columns, 3.1 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in panels[number:]:
        spare.remove()
    if losses:
        _loss(panels.pop(0), curves, losses)
    for name, label, unit in errors:
        _error(panels.pop(0), curves, name, label, unit)
    if rates:
        _rate(panels.pop(0), curves, rates)
    if title:
        figure.suptitle(title, fontsize=11)
    save_png(figure, path)


def _error_panels() -> list[tuple[str, str, str]]:
    """Return column, title and unit of the validation error of every label."""
    panels = []
    # Forces first: they are what a potential is mostly judged by.
    for field in sorted(TARGETS, key=lambda field: field != "forces"):
        word, key = quoted_error(field)
        title = f"{field.replace('_', ' ').capitalize()} {word}, validation"
        panels.append((f"valid/{key}", title, error_unit(headline(field))[0] or word))
    return panels


def _number(text: str | None) -> float | None:
    """Return a finite number, or None for blanks, text, NaN and infinities."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _finish(axes: Axes, title: str, label: str, values: np.ndarray) -> None:
    """Label the axes; logarithmic where the values span more than a factor of five and are positive."""
    axes.set_title(title, fontsize=10)
    axes.set(xlabel="step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if values.min() > 0 and values.max() > 5 * values.min():
        axes.set_yscale("log")
    axes.grid(True, which="both", linewidth=0.3, alpha=0.5)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _loss(axes: Axes, curves: dict[str, Curve], names: list[str]) -> None:
    for k, name in enumerate(names):
        steps, values = curves[name]
        colour = COLOURS[k]
        many = len(steps) > 200
        axes.plot(steps, values, color=colour, linewidth=0.6 if many else 1.2, alpha=0.35 if many else 1.0)
        if many:
            axes.plot(*smooth(steps, values), color=colour, linewidth=1.4)
        axes.plot([], [], color=colour, label=name.split("/")[0])
    _finish(axes, "Loss", "loss", np.concatenate([curves[name][1] for name in names]))
    if len(names) > 1:
        axes.legend(fontsize=8, frameon=False)


def _error(axes: Axes, curves: dict[str, Curve], name: str, title: str, unit: str) -> None:
    """One validation error, thin lines for its elements, the best value in the title."""
    steps, values = curves[name]
    shown = [values]
    for k, part in enumerate(sorted(key for key in curves if key.startswith(f"{name}/"))):
        axes.plot(*curves[part], color=COLOURS[(k + 1) % len(COLOURS)], linewidth=0.8, label=part.split("/")[-1])
        shown.append(curves[part][1])
    axes.plot(steps, values, color=COLOURS[0], linewidth=1.6, marker="o", markersize=2.5, label="all")
    _finish(axes, f"{title}: best {short(values.min())}, last {short(values[-1])}", unit, np.concatenate(shown))
    if len(shown) > 1:
        axes.legend(fontsize=8, frameon=False, ncols=1 + len(shown) // 5)


def _rate(axes: Axes, curves: dict[str, Curve], names: list[str]) -> None:
    for k, name in enumerate(names):
        axes.plot(*curves[name], color=COLOURS[k % len(COLOURS)], linewidth=1.2)
    _finish(axes, "Learning rate", "learning rate", np.concatenate([curves[name][1] for name in names]))


def smooth(steps: np.ndarray, values: np.ndarray, points: int = 100) -> Curve:
    """Return geometric means over equal runs of points; plain means where a value is not positive."""
    chunks = np.array_split(np.arange(len(steps)), min(points, len(steps)))
    positive = bool((values > 0).all())
    means = [np.exp(np.log(values[c]).mean()) if positive else values[c].mean() for c in chunks]
    return np.array([steps[c].mean() for c in chunks]), np.array(means)
