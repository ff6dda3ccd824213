"""Pictures of matrices over orbitals: true, predicted, and what is between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, SymLogNorm

from mlip.core.errors import DataError
from mlip.core.units import MEV
from mlip.evaluation.plots import new_figure, save_png

LINEAR = 1e-2
"""Hartree up to which colours are linear; beyond, logarithmic, or core orbitals would leave all else white."""

LABELLED = 24
"""Atoms up to which each has its symbol at the axes and its lines."""


@dataclass(frozen=True)
class MatrixPicture:
    """One molecule.

    Attributes:
        title: above its row.
        symbols: of the atoms.
        atom_of_orbital: ``(orbitals,)``.
        true, predicted: ``(orbitals, orbitals)``, Hartree.
    """

    title: str
    symbols: Sequence[str]
    atom_of_orbital: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


def matrix_plot(path: str | os.PathLike[str], pictures: Sequence[MatrixPicture]) -> None:
    """Draw a row for each molecule: true matrix, predicted matrix, error; colours are symmetric about zero.

    Args:
        path: PNG file, written whole or not at all.
        pictures: one for each row.

    Raises:
        DataError: there is no molecule.
    """
    if not pictures:
        raise DataError("There is no molecule whose matrix could be drawn.")
    figure = new_figure(12.0, 4.1 * len(pictures))
    rows = figure.subfigures(len(pictures), 1, squeeze=False)[:, 0]
    for row, picture in zip(rows, pictures, strict=True):
        error = (picture.predicted - picture.true) / MEV
        mean = np.abs(error).mean() / MEV
        row.suptitle(f"{picture.title}, mean absolute error {mean:,.0f} µEh", fontsize=10)
        largest = max(np.abs(picture.true).max(), np.abs(picture.predicted).max(), LINEAR * 1.01)
        colours = SymLogNorm(LINEAR, vmin=-largest, vmax=largest)
        # An error of zero everywhere still needs a scale of some width.
        limit = np.abs(error).max() or 1e-9
        columns = row.subplots(1, 3)
        images = [
            _draw(columns[0], picture, picture.true, "true", colours),
            _draw(columns[1], picture, picture.predicted, "predicted", colours),
            _draw(columns[2], picture, error, "predicted - true", Normalize(-limit, limit)),
        ]
        row.colorbar(images[1], ax=columns[:2], label="Eh", shrink=0.85, pad=0.02)
        row.colorbar(images[2], ax=columns[2], label="mEh", shrink=0.85, pad=0.02)
    save_png(figure, path)


def _draw(axes: Axes, picture: MatrixPicture, values: np.ndarray, title: str, norm: Normalize) -> object:
    image = axes.imshow(values, cmap="RdBu_r", norm=norm, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.tick_params(length=0, labelsize=8)
    axes.set(xticks=[], yticks=[])
    if len(picture.symbols) <= LABELLED:
        counts = np.bincount(picture.atom_of_orbital, minlength=len(picture.symbols))
        ends = np.cumsum(counts)
        for end in ends[:-1].tolist():
            axes.axhline(end - 0.5, color="0.4", linewidth=0.5)
            axes.axvline(end - 0.5, color="0.4", linewidth=0.5)
        middles = ends - counts / 2 - 0.5
        axes.set_xticks(middles, picture.symbols)
        axes.set_yticks(middles, picture.symbols)
    return image
