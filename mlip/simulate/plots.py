"""Plots of a relaxation and of an MD run, with matplotlib's objects only: no global state, no display."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlip.core.files import write_atomically
from mlip.simulate.relax import RelaxationResult
from mlip.simulate.thermo import ThermoRow, column

MANY_POINTS = 60
"""Above this points are joined without markers."""


def plot_relaxation(path: str | os.PathLike[str], result: RelaxationResult) -> None:
    """Write a PNG with energy and largest force (and stress, if the cell was relaxed) against the step.

    Raises:
        MlipError: the file cannot be written.
    """
    steps = [entry.step for entry in result.history]
    figure = Figure(figsize=(7, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    per_atom = [1000 * (entry.energy - result.after.energy) / len(result.atoms) for entry in result.history]
    top.plot(steps, per_atom, color="C0", **_style(steps))
    top.set_ylabel("E − E(final) / meV/atom")
    top.set_title(f"{result.atoms.get_chemical_formula()}, {result.optimizer}")
    _positive(bottom, steps, [entry.fmax for entry in result.history], "C1", "largest force / eV/Å")
    bottom.axhline(result.fmax, color="0.5", linestyle="--", linewidth=1, label=f"limit {result.fmax:g} eV/Å")
    stresses = [entry.stress_max for entry in result.history if entry.stress_max is not None]
    if stresses:
        _positive(bottom, steps, stresses, "C2", "largest stress / eV/Å³")
    bottom.set_yscale("log")
    bottom.set_xlabel("step")
    bottom.legend(fontsize=8)
    _save(figure, path)


def plot_md(path: str | os.PathLike[str], rows: Sequence[ThermoRow], num_atoms: int, title: str = "") -> None:
    """Write a PNG with temperature, energies and (where it changes) volume against the time in ps.

    Args:
        path: the PNG file.
        rows: the log, restarts included.
        num_atoms: energies are shown per atom.
        title: of the figure.

    Raises:
        MlipError: the file cannot be written.
    """
    time = column(rows, "time") / 1000
    volume = column(rows, "volume")
    changes = bool(volume.max() > volume.min())
    figure = Figure(figsize=(7, 7.5 if changes else 6), layout="constrained")
    axes = figure.subplots(4 if changes else 3, 1, sharex=True)
    style = _style(time)
    axes[0].plot(time, column(rows, "temperature"), color="C3", **style)
    axes[0].set_ylabel("T / K")
    axes[0].set_title(title)
    for name, colour in (("potential", "C0"), ("total", "C1")):
        energy = column(rows, name)
        axes[1].plot(time, 1000 * (energy - energy[0]) / num_atoms, color=colour, label=name, **style)
    axes[1].set_ylabel("E − E(0) / meV/atom")
    axes[1].legend(fontsize=8)
    conserved = column(rows, "conserved")
    axes[2].plot(time, 1000 * (conserved - conserved[0]) / num_atoms, color="C2", **style)
    axes[2].set_ylabel("conserved / meV/atom")
    if changes:
        axes[3].plot(time, volume, color="C4", **style)
        axes[3].set_ylabel("V / Å³")
    axes[-1].set_xlabel("time / ps")
    _save(figure, path)


def _positive(axes: Axes, steps: Sequence[int], values: Sequence[float], colour: str, label: str) -> None:
    # An exact zero (a symmetric structure) has no place on a logarithmic axis.
    axes.plot(steps, [max(value, 1e-12) for value in values], color=colour, label=label, **_style(steps))


def _style(points: Sequence[float]) -> dict[str, object]:
    return {"marker": "." if len(points) <= MANY_POINTS else "", "linewidth": 1.2}


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    write_atomically(path, lambda part: figure.savefig(str(part), format="png", dpi=130))
