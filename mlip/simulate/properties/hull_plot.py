"""Plot of formation energies: over the composition of a binary system, else as bars above the hull."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pymatgen.core import Composition

from mlip.core.units import MEV
from mlip.simulate.properties.hull import HullResult
from mlip.simulate.properties.plots import save

MOST_BARS = 60
"""Entries shown as bars: those closest to the hull."""


def plot_hull(path: str | os.PathLike[str], entries: Sequence[HullResult], references: Sequence[HullResult]) -> None:
    """Write a PNG; entries and references are those of one hull, with the elements among the references.

    Raises:
        MlipError: the file cannot be written.
    """
    elements = sorted({str(element) for one in entries for element in Composition(one.formula)})
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    if len(elements) == 2:
        _binary(axes, entries, references, elements)
    else:
        shown = sorted(entries, key=lambda one: one.above_hull)[:MOST_BARS]
        figure.set_size_inches(6.4, 1.2 + 0.22 * len(shown))
        axes.barh(range(len(shown)), [one.above_hull / MEV for one in shown], color="C0")
        axes.set_yticks(range(len(shown)), [one.formula for one in shown], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("energy above the hull / meV/atom")
    save(figure, path)


def _binary(axes: Axes, entries: Sequence[HullResult], references: Sequence[HullResult], elements: list[str]) -> None:
    second = elements[1]
    both = [one for one in (*references, *entries) if set(Composition(one.formula).as_dict()) <= set(elements)]
    share = {id(one): Composition(one.formula).get_atomic_fraction(second) for one in both}
    stable: dict[float, float] = {}
    for one in both:
        if one.above_hull < 1e-9:
            place = round(share[id(one)], 9)
            stable[place] = min(one.formation_energy, stable.get(place, np.inf))
    line = sorted(stable.items())
    axes.plot([x for x, _ in line], [energy for _, energy in line], "-", color="0.5", label="hull")
    for group, colour, label in ((references, "0.3", "references"), (entries, "C1", "entries")):
        points = [one for one in both if any(one is each for each in group)]
        axes.plot([share[id(one)] for one in points], [one.formation_energy for one in points], "o", color=colour,
                  label=label)  # fmt: skip
    axes.set_xlabel(f"share of {second} in {elements[0]}–{second}")
    axes.set_ylabel("formation energy / eV/atom")
    axes.legend(fontsize=8)
