"""Parity plots: predictions against labels, with the errors below."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlip.core.errors import DataError
from mlip.core.files import write_atomically
from mlip.core.units import MEV
from mlip.data.graph import AtomGraph
from mlip.evaluation.parity_points import Panel, ParityPoints
from mlip.evaluation.predict import Prediction

DENSE = 30_000
"""Above this many points a panel shows their density instead of the points."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#4D4D4D")
"""Distinguishable with colour-blind eyes (Okabe and Ito), reused after eight elements."""


def parity_plot(
    path: str | os.PathLike[str],
    graphs: Sequence[AtomGraph],
    predictions: Sequence[Prediction],
    title: str = "",
) -> None:
    """Draw energy an atom, force components by element, stress and the rest, as far as both sides have them.

    Args:
        path: PNG file, written whole or not at all.
        graphs: single graphs with labels; NaN labels are left out.
        predictions: of the same graphs, from :func:`mlip.evaluation.predict.predict_dataset`.
        title: above the panels.

    Raises:
        DataError: nothing is both labelled and predicted, or the two differ in length.
    """
    if len(graphs) != len(predictions):
        raise DataError(f"There are {len(graphs)} structures but {len(predictions)} predictions.")
    points = ParityPoints()
    for graph, prediction in zip(graphs, predictions, strict=True):
        points.add(graph, prediction)
    draw_parity(path, points.panels(), title)


def draw_parity(path: str | os.PathLike[str], panels: Sequence[Panel], title: str = "") -> None:
    """Draw panels side by side, see `parity_plot`.

    Raises:
        DataError: there is none: nothing is both labelled and predicted.
    """
    if not panels:
        raise DataError("No structure has a label for anything that was predicted: there is nothing to plot.")
    figure = new_figure(4.6 * len(panels), 5.4)
    axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=[3, 1], sharex="col")
    for column, panel in enumerate(panels):
        _draw(axes[0, column], axes[1, column], panel)
    if title:
        figure.suptitle(title, fontsize=11)
    save_png(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of the object API (no pyplot, no global state); inches."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))


def _draw(parity: Axes, residual: Axes, panel: Panel) -> None:
    """Fill one column: parity above, errors below."""
    error_unit, size = _errors_in(panel.unit)
    error = (panel.predicted - panel.reference) / size
    values = np.concatenate([panel.reference, panel.predicted])
    # A single value (one structure) still needs an axis of some width.
    margin = 0.04 * np.ptp(values) or 0.1
    low, high = values.min() - margin, values.max() + margin
    parity.plot([low, high], [low, high], color="black", linewidth=0.8, zorder=0)
    residual.axhline(0.0, color="black", linewidth=0.8, zorder=0)
    if len(error) > DENSE:
        _density(parity, panel.reference, panel.predicted)
        _density(residual, panel.reference, error, aspect=3)
    else:
        _points(parity, residual, panel, error)
    parity.set(xlim=(low, high), ylim=(low, high), ylabel=_over("predicted", panel.unit))
    parity.set_title(f"{panel.title}\n{_errors_text(panel)}", fontsize=10)
    residual.set(xlabel=_over("reference", panel.unit), ylabel=_over("error", error_unit))
    residual.xaxis.set_major_locator(MaxNLocator(5))
    for axes in (parity, residual):
        axes.tick_params(labelsize=8, direction="in")
        axes.spines[["top", "right"]].set_visible(False)


def _points(parity: Axes, residual: Axes, panel: Panel, error: np.ndarray) -> None:
    """Scatter every point, coloured by group; rare groups are drawn last, on top."""
    names, counts = np.unique(panel.group, return_counts=True)
    size = float(np.clip(4000 / len(error), 2, 14))
    order = sorted(range(len(names)), key=lambda k: -counts[k])
    for k in order:
        of_group = panel.group == names[k]
        style = {
            "s": size,
            "alpha": 0.6,
            "linewidths": 0,
            "color": COLOURS[k % len(COLOURS)],
            "rasterized": True,
        }
        label = f"{names[k]}  {short(np.sqrt((error[of_group] ** 2).mean()))}"
        parity.scatter(panel.reference[of_group], panel.predicted[of_group], label=label, **style)
        residual.scatter(panel.reference[of_group], error[of_group], **style)
    if len(names) > 1 or names[0]:
        parity.legend(
            title=_over("RMSE", _errors_in(panel.unit)[0]),
            fontsize=8,
            title_fontsize=8,
            loc="upper left",
            frameon=False,
            markerscale=2.5 if size < 6 else 1.2,
            handletextpad=0.2,
            ncols=1 + len(names) // 9,
        )


def _density(axes: Axes, x: np.ndarray, y: np.ndarray, aspect: int = 1) -> None:
    axes.hexbin(x, y, gridsize=(90, max(1, 52 // aspect)), bins="log", mincnt=1, cmap="viridis", linewidths=0)


def _errors_in(unit: str) -> tuple[str, float]:
    """Return the unit of errors of values in a unit, and its size: thousandths; of Hartree millionths, as in QH9."""
    if unit == "Eh":
        return "µEh", 1e-6
    return (f"m{unit}", MEV) if unit else ("", 1.0)


def _errors_text(panel: Panel) -> str:
    unit, size = _errors_in(panel.unit)
    drawn = "" if panel.count == len(panel.reference) else f", {len(panel.reference):,} drawn"
    text = f"RMSE {short(panel.rmse / size)}, MAE {short(panel.mae / size)} {unit}".rstrip()
    return f"{text}  (n = {panel.count:,}{drawn})"


def _over(name: str, unit: str) -> str:
    return f"{name} / {unit}" if unit else name


def short(value: float) -> str:
    """Return three significant digits, or the whole number above a thousand, never an exponent there."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
