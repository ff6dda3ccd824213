"""Parity plots: predictions against labels, with the errors below."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlip.core.errors import DataError
from mlip.core.fields import FIELDS, LABELS
from mlip.core.files import write_atomically
from mlip.core.units import MEV
from mlip.data.graph import AtomGraph
from mlip.evaluation.predict import Prediction

DENSE = 30_000
"""Above this many points a panel shows their density instead of the points."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#4D4D4D")
"""Distinguishable with colour-blind eyes (Okabe and Ito), reused after eight elements."""


@dataclass(frozen=True)
class Panel:
    """One quantity: reference and prediction in the unit of the axis, errors in thousandths of it.

    Attributes:
        title: quantity.
        unit: of the axes; errors are in ``m`` + unit. Empty for plain numbers, whose errors are plain, too.
        reference, predicted: ``(points,)``, labelled values only.
        group: ``(points,)`` name of each point's colour group; empty strings for none.
    """

    title: str
    unit: str
    reference: np.ndarray
    predicted: np.ndarray
    group: np.ndarray


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
    panels = [
        panel
        for panel in (
            _energy(graphs, predictions),
            _forces(graphs, predictions),
            _stress(graphs, predictions),
            *(_plain(graphs, predictions, label) for label in LABELS if FIELDS[label].unit == "1"),
        )
        if panel is not None and len(panel.reference)
    ]
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


def _energy(graphs: Sequence[AtomGraph], predictions: Sequence[Prediction]) -> Panel | None:
    """Energies an atom. Their offset would hide the errors, so the mean of the reference is taken off."""
    if not all("energy" in p for p in predictions):
        return None
    atoms = np.array([graph.positions.shape[0] for graph in graphs])
    reference = np.array([_label(graph, "energy", ()) for graph in graphs]) / atoms
    predicted = np.array([float(p["energy"]) for p in predictions]) / atoms
    keep = ~np.isnan(reference)
    offset = reference[keep].mean() if keep.any() else 0.0
    group = np.full(keep.sum(), "")
    title = f"Energy per atom, relative to {offset:.3f} eV"
    return Panel(title, "eV/atom", reference[keep] - offset, predicted[keep] - offset, group)


def _forces(graphs: Sequence[AtomGraph], predictions: Sequence[Prediction]) -> Panel | None:
    if not all("forces" in p for p in predictions):
        return None
    reference = np.concatenate([_label(graph, "forces", graph.positions.shape) for graph in graphs]).ravel()
    predicted = np.concatenate([p["forces"] for p in predictions]).ravel()
    numbers = np.concatenate([graph.atomic_numbers.cpu().numpy() for graph in graphs]).repeat(3)
    keep = ~np.isnan(reference)
    group = np.array(chemical_symbols)[numbers[keep]]
    return Panel("Force components", "eV/Å", reference[keep], predicted[keep], group)


def _stress(graphs: Sequence[AtomGraph], predictions: Sequence[Prediction]) -> Panel | None:
    if not all("stress" in p for p in predictions):
        return None
    # All nine, as in `ErrorStatistics`, so that the numbers of plot and table agree.
    reference = np.stack([_label(graph, "stress", (3, 3)) for graph in graphs]).ravel()
    predicted = np.stack([p["stress"] for p in predictions]).ravel()
    kind = np.tile(np.where(np.eye(3, dtype=bool), "normal", "shear").ravel(), len(graphs))
    keep = ~np.isnan(reference)
    return Panel("Stress components", "eV/Å³", reference[keep], predicted[keep], kind[keep])


def _plain(graphs: Sequence[AtomGraph], predictions: Sequence[Prediction], name: str) -> Panel | None:
    """Every component of a field without a unit."""
    if not all(name in p for p in predictions):
        return None
    predicted = [np.asarray(p[name], dtype=float) for p in predictions]
    reference = np.concatenate([_label(graph, name, p.shape).ravel() for graph, p in zip(graphs, predicted)])
    keep = ~np.isnan(reference)
    title = name.replace("_", " ").capitalize()
    return Panel(
        title, "", reference[keep], np.concatenate([p.ravel() for p in predicted])[keep], np.full(keep.sum(), "")
    )


def _label(graph: AtomGraph, name: str, shape: Sequence[int]) -> np.ndarray:
    """Return a label of a single graph, NaN where the graph has none; molecules have no stress."""
    value = graph.get(name)
    if value is None or (name == "stress" and not graph.pbc.any()):
        return np.full(shape, np.nan)
    return value.cpu().numpy().reshape(shape)


def _draw(parity: Axes, residual: Axes, panel: Panel) -> None:
    """Fill one column: parity above, errors below."""
    error_unit = f"m{panel.unit}" if panel.unit else ""
    error = (panel.predicted - panel.reference) / (MEV if panel.unit else 1.0)
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
    parity.set_title(f"{panel.title}\n{_errors_text(error, error_unit)}", fontsize=10)
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
            title=f"RMSE / m{panel.unit}",
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


def _errors_text(error: np.ndarray, unit: str) -> str:
    rmse, mae = np.sqrt((error**2).mean()), np.abs(error).mean()
    return f"RMSE {short(rmse)}, MAE {short(mae)} {unit}".rstrip() + f"  (n = {len(error):,})"


def _over(name: str, unit: str) -> str:
    return f"{name} / {unit}" if unit else name


def short(value: float) -> str:
    """Return three significant digits, or the whole number above a thousand, never an exponent there."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
