"""Draw ``docs/images/overview.png``: from a frame of the bundled ethanol set to what a model is used for.

Run from the repository root: ``python scripts/draw_overview.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.io import read
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from mlip.data.build_graph import build_graph

SOURCE = Path("data/ethanol_dft/ethanol.xyz")
TARGET = Path("docs/images/overview.png")
FRAME = 40
CUTOFF = 2.6
"""Å; smaller than a model's, so that the edges can be told apart."""

BLUE, GREY = "#0072B2", "#777777"


def main() -> None:
    """Draw and save the picture."""
    atoms = read(SOURCE, index=FRAME)
    figure = Figure(figsize=(11, 3.3), dpi=110, layout="none")
    FigureCanvasAgg(figure)
    positions = flat_view(atoms)
    draw_structure(panel(figure, 0.012, "DFT frame", "atoms, energy, forces"), atoms, positions, forces=True)
    draw_structure(panel(figure, 0.255, "graph", "edges within a cutoff"), atoms, positions, forces=False)
    draw_flow(figure)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, format="png")
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


def flat_view(atoms: Atoms) -> np.ndarray:
    """Return positions and forces turned so that the molecule lies flat: columns x, y, depth."""
    centred = atoms.positions - atoms.positions.mean(0)
    _, _, axes = np.linalg.svd(centred)
    return np.stack([centred @ axes.T, atoms.calc.results["forces"] @ axes.T])


def panel(figure: Figure, left: float, title: str, caption: str) -> Axes:
    """Return empty axes with a title above and a caption below."""
    axes = figure.add_axes((left, 0.1, 0.25, 0.76))
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set(xlim=(-2.3, 2.3), ylim=(-2.0, 2.0))
    axes.set_title(title, fontsize=13, fontweight="bold")
    axes.text(0, -2.1, caption, ha="center", fontsize=10, color=GREY)
    return axes


def draw_structure(axes: Axes, atoms: Atoms, view: np.ndarray, forces: bool) -> None:
    """Draw bonds or edges, atoms back to front, and the forces as arrows."""
    places, pulls = view
    graph = build_graph(atoms, CUTOFF)
    for sender, receiver in graph.edge_index.T.tolist():
        bond = np.linalg.norm(places[sender] - places[receiver])
        bonded = bond < 1.25 * (covalent_radii[atoms.numbers[[sender, receiver]]].sum())
        if sender < receiver and (bonded or not forces):
            style = {"color": GREY, "linewidth": 3.0} if bonded and forces else {"color": BLUE, "linewidth": 0.9}
            axes.plot(*places[[sender, receiver], :2].T, zorder=1, **style)
    for k in np.argsort(places[:, 2]):
        number = atoms.numbers[k]
        radius = 0.55 * covalent_radii[number] if forces else 0.3 * covalent_radii[number] + 0.06
        face = 0.85 * jmol_colors[number] + 0.1
        axes.add_patch(Circle(places[k, :2], radius, facecolor=face, edgecolor="black", linewidth=0.8, zorder=2))
        if forces:
            end = places[k, :2] + 0.35 * pulls[k, :2]
            arrow = {"arrowstyle": "-|>", "mutation_scale": 11, "color": "#D55E00", "linewidth": 1.6}
            axes.add_patch(FancyArrowPatch(places[k, :2], end, shrinkA=0, shrinkB=0, zorder=3, **arrow))


def draw_flow(figure: Figure) -> None:
    """Draw the boxes: training, the model file, its uses."""
    axes = figure.add_axes((0.5, 0.0, 0.5, 1.0))
    axes.set(xlim=(0, 10), ylim=(0, 6.55))
    axes.set_axis_off()
    box(axes, 0.45, 2.5, 2.55, 1.5, "mlip train", "equivariant model,\nforces from the energy", BLUE)
    box(axes, 3.8, 2.5, 2.85, 1.5, "model.safetensors", "weights and a card,\nno pickle", "#009E73")
    uses = (
        ("mlip evaluate", "errors, parity plot"),
        ("MLIPCalculator", "in ASE"),
        ("mlip relax", "positions and cell"),
        ("mlip md", "NVE, NVT, NPT"),
        ("mlip doctor", "self-test"),
    )
    arrow(axes, (-0.25, 3.25), (0.4, 3.25))
    arrow(axes, (3.1, 3.25), (3.7, 3.25))
    for k, (name, what) in enumerate(uses):
        y = 5.15 - 1.15 * k
        box(axes, 7.4, y, 2.5, 0.9, name, what, "#555555")
        arrow(axes, (6.75, 3.25), (7.3, y + 0.45))


def box(axes: Axes, x: float, y: float, width: float, height: float, title: str, text: str, colour: str) -> None:
    """Draw a rounded box with a bold first line."""
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.15", "facecolor": "white", "edgecolor": colour}
    axes.add_patch(FancyBboxPatch((x, y), width, height, linewidth=1.6, **style))
    middle = x + width / 2
    axes.text(middle, y + 0.70 * height, title, ha="center", va="center", fontsize=10, color=colour, weight="bold")
    axes.text(middle, y + 0.30 * height, text, ha="center", va="center", fontsize=8, color="black")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow between two boxes."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=GREY, linewidth=1.2))


if __name__ == "__main__":
    main()
