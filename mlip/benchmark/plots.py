"""Pictures of the benchmarks: time against degree, time for what is represented, expressivity."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from mlip.benchmark.expressivity import Expressiveness
from mlip.benchmark.plan import BASELINE
from mlip.benchmark.results import Measurement
from mlip.evaluation.plots import COLOURS, new_figure, save_png

MARKERS = "os^Dv<>PX*hd"


def plot_times(path: Path, rows: Sequence[Measurement], title: str) -> None:
    """Draw time against degree, one panel a pass, with the fitted exponent of every candidate in the legend.

    Args:
        path: PNG file.
        rows: of one setting.
        title: above the panels.
    """
    _panels(path, rows, title, lambda row: row.wall_ms, "time a call / ms")


def plot_times_per_path(path: Path, rows: Sequence[Measurement], title: str) -> None:
    """Draw time divided by the number of paths that the candidate reaches."""
    _panels(path, rows, title, lambda row: row.us_per_path, "time per reachable path / µs")


def plot_times_per_dimension(path: Path, rows: Sequence[Measurement], title: str) -> None:
    """Draw time divided by the dimension of the set of maps that the candidate reaches."""
    _panels(path, rows, title, lambda row: row.us_per_dimension, "time per dimension of the reachable set / µs")


def fitted_exponent(lmax: Sequence[int], values: Sequence[float]) -> float | None:
    """Return the slope of log(value) over log(L); degrees below 2 are left out where three others remain.

    At L = 1 the time is that of calling the operations, whatever they do.
    """
    points = [(l, value) for l, value in zip(lmax, values) if l >= 2]
    points = points if len(points) >= 3 else [(l, value) for l, value in zip(lmax, values) if l >= 1]
    if len(points) < 2:
        return None
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def _panels(
    path: Path, rows: Sequence[Measurement], title: str, value: Callable[[Measurement], float | None], label: str
) -> None:
    shown = [row for row in rows if value(row) is not None]
    if not shown:
        return
    steps = list(dict.fromkeys(row.step for row in shown))
    names = list(dict.fromkeys(row.backend for row in shown))
    figure = new_figure(4.8 * len(steps), 5.4)
    for axes, step in zip(figure.subplots(1, len(steps), squeeze=False)[0], steps):
        for k, name in enumerate(names):
            curve = sorted((row.lmax, value(row)) for row in shown if (row.backend, row.step) == (name, step))
            if curve:
                _draw_curve(axes, k, name, curve)
        _finish(axes, step, label)
    figure.suptitle(title, fontsize=10)
    save_png(figure, path)


def _draw_curve(axes: Axes, number: int, name: str, curve: Sequence[tuple[int, float]]) -> None:
    lmax, values = zip(*curve)
    exponent = fitted_exponent(lmax, values)
    label = name if exponent is None else f"{name}  $L^{{{exponent:.1f}}}$"
    style = {"color": COLOURS[number % len(COLOURS)], "linestyle": "-" if number < len(COLOURS) else ":"}
    if name == BASELINE:
        style = {"color": "black", "linestyle": "--"}
    axes.plot(lmax, values, marker=MARKERS[number % len(MARKERS)], markersize=4, linewidth=1.2, label=label, **style)


def _finish(axes: Axes, title: str, label: str) -> None:
    axes.set(xlabel="L", ylabel=label, yscale="log")
    # 1, 2, 5 written out: most panels span less than two powers of ten.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8, direction="in", which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


def plot_expressivity(path: Path, rows: Iterable[Expressiveness]) -> None:
    """Draw the dimension of the reachable set, and the operations for each of its dimensions, against degree.

    Args:
        path: PNG file.
        rows: one setting, several degrees; refusals are left out. Backends with the same curve share a line.
    """
    reached = [row for row in rows if row.reach is not None]
    figure = new_figure(9.6, 5.4)
    left, right = figure.subplots(1, 2)
    dimensions: dict[tuple[tuple[int, float], ...], list[Expressiveness]] = {}
    for k, name in enumerate(dict.fromkeys(row.backend for row in reached)):
        of_backend = sorted((row for row in reached if row.backend == name), key=lambda row: row.lmax)
        curve = tuple((row.lmax, row.reach.dimension) for row in of_backend)
        dimensions.setdefault(curve, []).append(of_backend[0])
        costs = [(row.lmax, row.flops / row.reach.dimension) for row in of_backend if row.flops]
        if costs:
            _draw_curve(right, k, name, costs)
    for k, (curve, backends) in enumerate(dimensions.items()):
        # What follows the first word are details that depend on the degree.
        operators = ", ".join(dict.fromkeys(row.operator.split()[0] for row in backends))
        _draw_curve(left, k, f"{operators} ({len(backends)})", curve)
    _finish(left, "What one channel can represent", "dimension of the reachable set")
    _finish(right, "What it costs", "FLOPs a row and channel / dimension")
    save_png(figure, path)
