"""What happens when an atom crosses the cutoff: nothing may jump."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from mlip.models.base import AtomisticModel
from mlip.ops.envelope.base import Envelope
from mlip.testing.evaluate import evaluate_many, largest
from mlip.testing.structures import dimer, molecule

_STEP = 2e-4
"""Å on either side of the cutoff."""


def crossings(model: AtomisticModel) -> dict[str, list[float]]:
    """Return the distances (Å) at which a neighbour may stop to count: the cutoff, and the ends of learned envelopes.

    At the cutoff of the graph there is nothing to see in a model that has learned a shorter range. (Repulsion of nuclei
    ends far below the cutoff by a formula, amid whatever else acts there: its own test looks at it.)
    """
    ends = {part.end for part in model.modules() if isinstance(part, Envelope) and any(True for _ in part.parameters())}
    learned = sorted(end for end in ends if end < model.cutoff)
    return {"the cutoff": [model.cutoff]} | ({"the learned range": learned} if learned else {})


def leaving_atom(model: AtomisticModel, seed: int = 0) -> Callable[[float], Atoms]:
    """Return a function from a distance (Å) to a molecule with one more atom that far from its outermost."""
    core = molecule(model.elements, seed, num_atoms=5)
    core.positions -= core.positions.mean(axis=0)
    outermost = int(np.argmax(np.linalg.norm(core.positions, axis=1)))
    anchor = core.positions[outermost]
    outward = anchor / np.linalg.norm(anchor)

    def at(distance: float) -> Atoms:
        atoms = core.copy()
        atoms.extend(Atoms(model.elements[0], positions=[anchor + distance * outward]))
        return atoms

    return at


def leaving_pairs(model: AtomisticModel, largest_number: int = 6) -> list[Callable[[float], Atoms]]:
    """Return functions from a distance (Å) to a dimer, one for each pair of elements (the first few)."""
    pairs = list(combinations_with_replacement(model.elements, 2))[:largest_number]
    return [lambda distance, pair=pair: dimer(*pair, distance) for pair in pairs]


def jumps_at(
    model: AtomisticModel, at: Callable[[float], Atoms], distance: float, step: float = _STEP
) -> tuple[float, float]:
    """Extrapolate the steps of energy and forces at a distance, such as the cutoff, from both sides.

    With J(δ) = f(r + δ) − f(r − δ) a continuous f with bounded slopes has 2 J(δ) − J(2δ) = O(δ²),
    whatever its slope; a step shows in full.

    Returns:
        Step of the energy in eV, largest step of a force component in eV/Å.
    """

    outside, inside, far_outside, far_inside = evaluate_many(model, [at(distance + k * step) for k in (1, -1, 2, -2)])

    def jump(field: str) -> np.ndarray:
        return 2 * (outside[field] - inside[field]) - (far_outside[field] - far_inside[field])

    return abs(float(jump("energies").sum())), largest(jump("forces"))


def stiffest_near(model: AtomisticModel, at: Callable[[float], Atoms], distance: float, num_points: int = 21) -> float:
    """Return the largest ``|ΔF/Δr|`` in eV/Å² of the leaving atom in the last 2 % of a distance, such as the cutoff.

    An energy that changes within a hundredth of an Å is continuous on paper and a step for MD.
    """
    distances = np.linspace(0.98, 1.001, num_points) * distance
    forces = np.array([one["forces"][-1] for one in evaluate_many(model, [at(r) for r in distances])])
    slopes = np.diff(forces, axis=0) / np.diff(distances)[:, None]
    return float(np.max(np.abs(slopes)))
