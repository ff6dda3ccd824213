"""Pictures of a data set: distributions, and what stands out of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlip.core.files import write_atomically
from mlip.core.units import GPA
from mlip.data.checks.table import FrameTable

POINTS = 20_000
"""Points of a scatter plot; a random choice of more."""

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#4D4D4D"


def plot_check(path: str | os.PathLike[str], table: FrameTable, title: str = "") -> None:
    """Draw energy residuals, largest forces, and stress against volume, one point a structure.

    Args:
        path: PNG file, written whole or not at all.
        table: of the structures.
        title: above the panels.
    """
    _draw(path, [_residuals, _largest_forces, _pressure_volume], table, title)


def plot_overview(path: str | os.PathLike[str], table: FrameTable, title: str = "") -> None:
    """Draw energies, forces, stress, sizes and elements of a data set.

    Args:
        path, table, title: as `plot_check`.
    """
    panels = [_energies, _forces, _pressure_volume, _sizes, _volumes, _elements]
    _draw(path, panels, table, title)


def _draw(
    path: str | os.PathLike[str], panels: list[Callable[[Axes, FrameTable], None]], table: FrameTable, title: str
) -> None:
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels):
        axes.tick_params(labelsize=8)
        panel(axes, table)
    if title:
        figure.suptitle(title, fontsize=11)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))


def _histogram(axes: Axes, values: np.ndarray, label: str, title: str, log: bool = False) -> None:
    values = values[np.isfinite(values)]
    axes.set_title(title, fontsize=9)
    if not len(values):
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes, color=GREY)
        return
    if log and (values > 0).any():
        values = values[values > 0]
        low, high = np.log10(values.min()), np.log10(values.max())
        axes.hist(values, bins=np.logspace(low - 0.02, high + 0.02, 50), color=BLUE)
        axes.set_xscale("log")
    else:
        # A range of nothing but rounding would be drawn as a comb of its last digits.
        low, high = values.min(), values.max()
        margin = max(0.02 * (high - low), 1e-6 * max(1.0, abs(high)))
        axes.hist(values, bins=np.linspace(low - margin, high + margin, 50), color=BLUE)
    axes.set_yscale("log")
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("structures", fontsize=9)


def _residuals(axes: Axes, table: FrameTable) -> None:
    deviation = table.energies.deviation if len(table) else np.zeros(0)
    _points(axes, np.arange(len(table)), deviation)
    axes.set_title("energy against a fit to the composition", fontsize=9)
    axes.set_xlabel("structure", fontsize=9)
    axes.set_ylabel("eV/atom", fontsize=9)


def _largest_forces(axes: Axes, table: FrameTable) -> None:
    force = table["force_max"]
    _points(axes, np.arange(len(table)), force)
    axes.set_title("largest force", fontsize=9)
    axes.set_xlabel("structure", fontsize=9)
    axes.set_ylabel("eV/Å", fontsize=9)


def _pressure_volume(axes: Axes, table: FrameTable) -> None:
    volume, pressure = table["volume"] / np.maximum(table["atoms"], 1), -table["tension"] / GPA
    _points(axes, volume, pressure)
    axes.axhline(0.0, color=GREY, linewidth=0.6)
    axes.set_title("pressure against volume", fontsize=9)
    axes.set_xlabel("Å³/atom", fontsize=9)
    axes.set_ylabel("−tr(stress)/3 in GPa", fontsize=9)


def _points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(there):
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes, color=GREY)
        return
    middle = np.median(y[there])
    # Where most values are equal their median deviation is zero and marks nothing.
    width = max(1.4826 * float(np.median(np.abs(y[there] - middle))), 0.1 * float(np.std(y[there])), 1e-12)
    outside = np.abs(y[there] - middle) > 20 * width
    bulk = there[~outside]
    if len(bulk) > POINTS:
        bulk = np.random.default_rng(0).choice(bulk, POINTS, replace=False)
    axes.plot(x[bulk], y[bulk], ".", color=BLUE, markersize=2.5)
    axes.plot(x[there[outside]], y[there[outside]], "x", color=ORANGE, markersize=4)


def _energies(axes: Axes, table: FrameTable) -> None:
    if len(table.elements) > 1 and len(table.compositions) > 1:
        _histogram(axes, table.energies.residual, "eV/atom", "energy less a fit to the composition")
    else:
        _histogram(axes, table["energy"] / table["atoms"], "eV/atom", "energy")


def _forces(axes: Axes, table: FrameTable) -> None:
    _histogram(axes, table["force_rms"], "eV/Å", "root mean square force of a structure", log=True)


def _sizes(axes: Axes, table: FrameTable) -> None:
    _histogram(axes, table["atoms"].astype(np.float64), "atoms", "size")


def _volumes(axes: Axes, table: FrameTable) -> None:
    _histogram(axes, table["volume"] / np.maximum(table["atoms"], 1), "Å³/atom", "volume")


def _elements(axes: Axes, table: FrameTable) -> None:
    counts = sorted(table.elements.items())
    names = [chemical_symbols[number] for number, _ in counts]
    axes.bar(range(len(names)), [count for _, count in counts], color=BLUE)
    axes.set_xticks(
        range(len(names)), names, fontsize=8 if len(names) < 20 else 4, rotation=0 if len(names) < 20 else 90
    )
    axes.set_yscale("log")
    axes.set_title("structures with an element", fontsize=9)
    axes.set_ylabel("structures", fontsize=9)
