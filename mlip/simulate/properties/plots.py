"""Plots of properties, with matplotlib's objects only: no global state, no display."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mlip.core.files import write_atomically
from mlip.core.units import GPA, KB, MEV
from mlip.simulate.properties.elastic import ElasticResult
from mlip.simulate.properties.elastic_moduli import young_modulus
from mlip.simulate.properties.eos import EquationOfState
from mlip.simulate.properties.neb import NebResult
from mlip.simulate.properties.phonons import PhononResult


def plot_equation_of_state(path: str | os.PathLike[str], result: EquationOfState) -> None:
    """Write a PNG with the energies per atom against the volume per atom, and the curve.

    Raises:
        MlipError: the file cannot be written.
    """
    count, curve = result.num_atoms, result.curve
    zero = result.energies.min() if curve is None else curve.e0
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(result.volumes / count, (result.energies - zero) / count / MEV, "o", color="C0", label="computed")
    if curve is not None:
        fine = np.linspace(result.volumes.min(), result.volumes.max(), 200)
        label = f"Birch–Murnaghan: B₀ {curve.b0 / GPA:.1f} GPa, B₀′ {curve.b0_prime:.2f}"
        axes.plot(fine / count, (curve.energy(fine) - zero) / count / MEV, color="C1", label=label)
        axes.axvline(curve.v0 / count, color="0.6", linewidth=1, linestyle="--")
    axes.set_xlabel("V / Å³/atom")
    axes.set_ylabel("E − E₀ / meV/atom")
    axes.set_title(result.formula)
    axes.legend(fontsize=8)
    save(figure, path)


def plot_elastic(path: str | os.PathLike[str], result: ElasticResult) -> None:
    """Write a PNG with the tensor in the standard orientation and Young's modulus against the direction.

    Raises:
        MlipError: the file cannot be written.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    tensor, names = result.ieee / GPA, ("xx", "yy", "zz", "yz", "xz", "xy")
    axes = figure.add_subplot(1, 2, 1)
    # Pale enough for the numbers to be read.
    largest = 1.6 * np.abs(tensor).max()
    axes.imshow(tensor, cmap="RdBu_r", vmin=-largest, vmax=largest)
    for i, j in np.ndindex(6, 6):
        axes.text(j, i, f"{round(tensor[i, j]) + 0:d}", ha="center", va="center", fontsize=8)
    axes.set_xticks(range(6), names)
    axes.set_yticks(range(6), names)
    axes.set_title(f"{result.formula}, C / GPa")
    polar = figure.add_subplot(1, 2, 2, projection="polar")
    angle = np.linspace(0, 2 * np.pi, 361)
    if result.moduli.stable:
        for first, second, name in ((0, 1, "xy"), (1, 2, "yz"), (0, 2, "xz")):
            directions = np.zeros((len(angle), 3))
            directions[:, first], directions[:, second] = np.cos(angle), np.sin(angle)
            polar.plot(angle, young_modulus(result.ieee, directions) / GPA, label=f"{name} plane")
        polar.legend(fontsize=8, loc="lower left")
        polar.set_ylim(bottom=0)
    polar.set_title("Young's modulus / GPa")
    save(figure, path)


def plot_bands(path: str | os.PathLike[str], result: PhononResult) -> None:
    """Write a PNG with the bands along the path and the density of states beside them.

    Raises:
        MlipError: the file cannot be written.
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    bands, states = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    ticks: list[tuple[float, str]] = []
    for segment in result.bands:
        bands.plot(segment.distances, segment.frequencies, color="C0", linewidth=1)
        for place, label in zip((segment.distances[0], segment.distances[-1]), segment.labels):
            if ticks and abs(ticks[-1][0] - place) < 1e-8:
                # Where the path jumps both names stand at one place.
                if label not in ticks[-1][1].split("|"):
                    ticks[-1] = (place, f"{ticks[-1][1]}|{label}")
            else:
                ticks.append((place, label))
    for place, _ in ticks:
        bands.axvline(place, color="0.8", linewidth=0.8)
    bands.axhline(0, color="0.5", linewidth=0.8)
    bands.set_xticks([place for place, _ in ticks], [label for _, label in ticks])
    bands.set_xlim(ticks[0][0], ticks[-1][0])
    bands.set_ylabel("frequency / THz (below 0: imaginary)")
    bands.set_title(f"{result.formula}, {result.spacegroup}")
    states.plot(result.dos[:, 1], result.dos[:, 0], color="C1", linewidth=1)
    states.set_xlim(left=0)
    states.set_xlabel("states / THz⁻¹")
    save(figure, path)


def plot_thermodynamics(path: str | os.PathLike[str], result: PhononResult) -> None:
    """Write a PNG with free energy, entropy and heat capacity against the temperature.

    Raises:
        MlipError: the file cannot be written.
    """
    thermo = result.thermodynamics
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(thermo.temperatures, thermo.entropy / KB, color="C0", label="S / k")
    axes.plot(thermo.temperatures, thermo.heat_capacity / KB, color="C1", label="Cv / k")
    axes.set_xlabel("T / K")
    axes.set_ylabel("S, Cv / k per primitive cell")
    right = axes.twinx()
    right.plot(thermo.temperatures, thermo.free_energy, color="C2")
    right.set_ylabel("F / eV", color="C2")
    axes.legend(fontsize=8)
    axes.set_title(result.formula)
    save(figure, path)


def plot_path(path: str | os.PathLike[str], result: NebResult) -> None:
    """Write a PNG with the energy along a path.

    Raises:
        MlipError: the file cannot be written.
    """
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(*result.curve.T, color="C1", linewidth=1.2)
    axes.plot(result.coordinate, result.energies, "o", color="C0")
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set_xlabel("reaction coordinate / Å")
    axes.set_ylabel("E − E(initial) / eV")
    formula = result.images[0].get_chemical_formula()
    axes.set_title(f"{formula}: barrier {result.forward:.3f} eV, back {result.backward:.3f} eV")
    save(figure, path)


def plot_energies(
    path: str | os.PathLike[str], names: Sequence[str], energies: Sequence[float], label: str, title: str
) -> None:
    """Write a PNG with energies as bars.

    Raises:
        MlipError: the file cannot be written.
    """
    figure = Figure(figsize=(max(4.0, 1 + 0.8 * len(names)), 4.0), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(names)), energies, color="C0", width=0.6)
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 6 else 60)
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_ylabel(label)
    axes.set_title(title)
    save(figure, path)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all."""
    write_atomically(path, lambda part: figure.savefig(str(part), format="png", dpi=130))
