"""The picture of a prediction: HOMO and LUMO in space, and the ladder of orbital energies."""

from __future__ import annotations

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlip.calculators.orbital_result import OrbitalResult
from mlip.calculators.orbital_surface import (
    ENCLOSED,
    draw_surface,
    enclosing_amplitude,
    orbital_on_grid,
    trimmed,
    view_of,
)
from mlip.core.files import write_atomically
from mlip.core.units import HARTREE

DEEPEST, HIGHEST = 45.0, 12.0
"""eV below the HOMO and above the LUMO that are drawn; cores are far below."""

SAME = 0.35
"""eV; closer levels are drawn side by side."""

_OCCUPIED, _EMPTY = "#1f5fb4", "#9a9a9a"


def plot_orbitals(path: str | os.PathLike[str], result: OrbitalResult, title: str = "") -> None:
    """Write a PNG with surfaces of HOMO and LUMO around the molecule, and its orbital energies in eV.

    Args:
        path: the picture.
        result: with its orbitals.
        title: of the figure.

    Raises:
        DataError: the orbitals were not asked for, or PySCF is not installed.
        MlipError: the file cannot be written.
    """
    columns = range(result.homo_index, min(result.homo_index + 2, len(result.orbital_energies)))
    mol, ordered, view = result.mol(), result.in_order("pyscf"), view_of(result.positions)
    orbitals = [orbital_on_grid(mol, ordered.coefficients[:, column], view) for column in columns]
    levels = [enclosing_amplitude(values) for values in orbitals]
    view, orbitals = trimmed(view, orbitals, result.positions)
    width, height = (4.2 * count / max(view.counts[:2]) for count in view.counts[:2])
    figure = Figure(figsize=(3.2 + 2 * max(width, 2.5), max(height, 3.8) + 0.8), layout="constrained")
    ladder, *pictures = figure.subplots(1, 3, width_ratios=(2.6, max(width, 2.5), max(width, 2.5)))
    draw_ladder(ladder, result)
    for axes in pictures:
        axes.set_axis_off()
    for axes, name, column, values, level in zip(pictures, ("HOMO", "LUMO"), columns, orbitals, levels):
        image = draw_surface(values, level, view, result.numbers, result.positions)
        axes.imshow(image, interpolation="bilinear")
        axes.set_title(f"{name}   {result.orbital_energies[column] * HARTREE:.2f} eV", fontsize=11)
    figure.supxlabel(
        f"surfaces enclose {100 * ENCLOSED:.0f} % of the electron; blue and red are the two signs",
        fontsize=8,
        color="0.4",
    )
    figure.suptitle(title)
    write_atomically(path, lambda part: figure.savefig(part, dpi=130, format="png"))


def draw_ladder(axes: Axes, result: OrbitalResult) -> None:
    """Draw orbital energies as lines, occupied ones with their two electrons, and the gap."""
    levels = np.asarray(result.orbital_energies) * HARTREE
    homo = result.homo * HARTREE
    top = (result.homo if result.lumo is None else result.lumo) * HARTREE + HIGHEST
    shown = (levels >= homo - DEEPEST) & (levels <= top)
    for group in _together(np.flatnonzero(shown), levels):
        width = 0.8 / len(group)
        for place, k in enumerate(group):
            left = -0.4 + place * width
            occupied = result.occupations[k] > 0
            axes.plot(
                [left + 0.03, left + width - 0.03], [levels[k]] * 2, color=_OCCUPIED if occupied else _EMPTY, lw=1.8
            )
            if occupied:
                x = left + width / 2 + np.array([-0.025, 0.025])
                axes.plot(x, [levels[k]] * 2, "o", color=_OCCUPIED, ms=4, mec="white", mew=0.8)
    axes.annotate("HOMO", (0.45, homo), va="center", fontsize=9, color=_OCCUPIED)
    if result.lumo is not None:
        lumo = result.lumo * HARTREE
        axes.annotate("LUMO", (0.45, lumo), va="center", fontsize=9, color="0.35")
        axes.annotate("", (0.57, lumo - 0.6), (0.57, homo + 0.6), arrowprops={"arrowstyle": "<->", "color": "0.5"})
        axes.text(0.62, (homo + lumo) / 2, f"{lumo - homo:.2f} eV", va="center", fontsize=8, color="0.4")
    below, above = int((levels < homo - DEEPEST).sum()), int((levels > top).sum())
    axes.set_xlim(-0.5, 1.05)
    axes.set_xticks([])
    axes.set_ylabel("orbital energy / eV")
    axes.set_xlabel(f"not shown: {below} below (cores), {above} above", fontsize=8, color="0.4")
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _together(indices: np.ndarray, levels: np.ndarray) -> list[list[int]]:
    """Return the levels in groups that would be drawn over each other."""
    groups: list[list[int]] = []
    for k in indices.tolist():
        if groups and levels[k] - levels[groups[-1][-1]] < SAME:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups
