"""A picture of radial functions before and after they were replaced."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mlip.evaluation.plots import COLOURS, new_figure, save_png
from mlip.models.splinify import LayerFit


def plot_fits(path: str | os.PathLike[str], fits: Sequence[LayerFit], title: str = "") -> None:
    """Draw the functions of each layer that vary most: before as lines, after as dashes.

    Args:
        path: PNG file, written whole or not at all.
        fits: of :func:`mlip.models.splinify.splinify`.
        title: above the panels.
    """
    columns = min(3, len(fits))
    rows = -(-len(fits) // columns)
    figure = new_figure(4.2 * columns, 3.0 * rows + 0.4)
    for k, fit in enumerate(fits):
        axes = figure.add_subplot(rows, columns, k + 1)
        for j in range(fit.before.shape[1]):
            colour = COLOURS[j % len(COLOURS)]
            axes.plot(fit.distances, fit.before[:, j], color=colour, label="before" if j == 0 else None)
            axes.plot(fit.distances, fit.after[:, j], "--", color="black", lw=1, label="after" if j == 0 else None)
        axes.set_title(f"layer {k + 1}: R² = {fit.r2:.4f}", fontsize=10)
        axes.set_xlabel("distance / Å")
        axes.set_ylabel("radial weight")
        if k == 0:
            axes.legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title)
    save_png(figure, path)
