"""What happens where a graph that is not smooth changes: its energies may jump."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms

from mlip.data.graphs.base import GraphBuilder, distances, take
from mlip.data.neighbours import Pairs
from mlip.models.base import AtomisticModel
from mlip.testing.evaluate import evaluate, force_scale
from mlip.testing.measurement import Measurement
from mlip.testing.smoothness import jumps_at
from mlip.testing.structures import crystal, molecule, within_reach

_DENSITIES = (1.0, 0.85, 0.72, 0.6)
"""Lengths by which structures are scaled, until an atom has more neighbours than the graph keeps."""
_PATH = np.linspace(0.0, 0.6, 61)
"""Å along which one atom is moved."""
_COUNTS = 0.9
"""Of the cutoff: an edge that is shorter has some weight."""
_STEP = 1e-6
"""Å on either side of a change: near it the graph may change again."""


def change_rows(model: AtomisticModel) -> Iterator[Measurement]:
    """Yield the jumps of energy and forces where the edges of a moving atom change; none for smooth graphs.

    Args:
        model: in float64.
    """
    builder = model.graph_builder
    found = None if builder.smooth else find_change(model)
    if found is None:
        return
    at, where = found
    energy, forces = jumps_at(model, at, where, _STEP)
    scale = force_scale(evaluate(model, at(where))["forces"])
    meaning = (
        f"the graph is not smooth ({builder.description}): atoms that move get kicks, MD heats up; "
        "train with model/graph=radius for MD, phonons and tight relaxations"
    )
    yield Measurement("energy where the graph changes", energy / scale, 1e-6, "RMS force · 1 Å", meaning)
    yield Measurement("forces where the graph changes", forces / scale, 1e-4, "RMS force", meaning)


def find_change(model: AtomisticModel) -> tuple[Callable[[float], Atoms], float] | None:
    """Move one atom until an edge comes or goes that has some weight.

    Returns:
        A function from the displacement (Å) to the structure, and the displacement at which the graph changes; None
        where none of the structures has so many neighbours.
    """
    builder = model.graph_builder
    for scale in _DENSITIES:
        for grown in (crystal(model.elements), molecule(model.elements)):
            start = within_reach(grown, model.cutoff)
            start.set_cell(scale * start.cell.array)
            start.positions *= scale
            at = _moving(start)
            graphs = [edges(builder, at(x)) for x in _PATH]
            for k in range(len(_PATH) - 1):
                low, high = float(_PATH[k]), float(_PATH[k + 1])
                if _has_weight(builder, at(high), graphs[k] ^ graphs[k + 1], _COUNTS * model.cutoff):
                    return at, _bisect(builder, at, low, high, _COUNTS * model.cutoff)
    return None


def edges(builder: GraphBuilder, atoms: Atoms) -> set[tuple[int, ...]]:
    """Return the edges as a set of (sender, receiver, shift)."""
    return set(map(tuple, np.column_stack(builder(atoms, dict(atoms.arrays))).tolist()))


def _moving(start: Atoms) -> Callable[[float], Atoms]:
    direction = np.array([0.36, 0.48, 0.8])

    def at(displacement: float) -> Atoms:
        atoms = start.copy()
        atoms.positions[-1] += displacement * direction
        return atoms

    return at


def _has_weight(builder: GraphBuilder, atoms: Atoms, changed: set[tuple[int, ...]], reach: float) -> bool:
    """Whether one of the edges is shorter than ``reach`` (Å)."""
    if not changed:
        return False
    rows = np.array(sorted(changed))
    pairs: Pairs = rows[:, 0], rows[:, 1], rows[:, 2:]
    return len(take(pairs, distances(pairs, atoms) < reach)[0]) > 0


def _bisect(builder: GraphBuilder, at: Callable[[float], Atoms], low: float, high: float, reach: float) -> float:
    """Return where the first change within an interval happens, to rounding."""
    before = edges(builder, at(low))
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _has_weight(builder, at(middle), before ^ edges(builder, at(middle)), reach):
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)
