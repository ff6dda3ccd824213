"""Radial distribution functions, and whether the bonds of the first frame stay."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase.data import covalent_radii
from ase.geometry import find_mic

from mlip.core.errors import SimulationError
from mlip.data.neighbours import neighbour_list
from mlip.simulate.analysis.motion import Motion

BONDED = 1.25
"""Fraction of the sum of covalent radii up to which two atoms of the first frame are bonded."""

BROKEN = 0.5
"""Å by which the length of a bond may differ from that at the start before the run counts as unstable (Fu et al.,
Forces are not enough, TMLR 2023)."""


@dataclass(frozen=True)
class RadialDistribution:
    """How much more often than at random two atoms are found at a distance.

    Attributes:
        r: (bins,) Å, middle of the bins.
        values: g(r) by pairs of atomic numbers, each (bins,).
        frames: how many were averaged.
    """

    r: np.ndarray
    values: dict[tuple[int, int], np.ndarray]
    frames: int


def radial_distribution(
    motion: Motion, r_max: float | None = None, width: float = 0.05, frames: int = 200
) -> RadialDistribution:
    """Average the radial distribution functions of all pairs of species.

    The expected number of atoms b around an atom a in a shell of volume v is ``(N_b − δ_ab) v / V``, so that an ideal
    gas has g = 1 at all distances for any number of atoms.

    Args:
        motion: periodic along all axes.
        r_max: Å; at most, and by default, half the smallest distance between opposite faces of the cell.
        width: of a bin, Å.
        frames: at most so many, equally spaced, are looked at.

    Raises:
        SimulationError: not periodic along all axes, or a distance or width without sense.
    """
    if not motion.pbc.all():
        raise SimulationError("A radial distribution needs a structure that is periodic along all axes.")
    volumes = np.abs(np.linalg.det(motion.cells))
    heights = 1 / np.linalg.norm(np.linalg.inv(motion.cells), axis=1)
    limit = float(heights.min()) / 2
    r_max = limit if r_max is None else r_max
    if not 0 < width < r_max <= limit + 1e-9:
        raise SimulationError(
            f"The largest distance must be at most half the height of the cell, {limit:.3f} Å here, and more than the "
            f"width of a bin; got {r_max:g} Å and {width:g} Å."
        )
    edges = np.arange(int(r_max / width + 1e-9) + 1) * width
    chosen = np.unique(np.linspace(0, len(motion.time) - 1, min(frames, len(motion.time))).astype(int))
    counts = {pair: np.zeros(len(edges) - 1) for pair in combinations_with_replacement(motion.species, 2)}
    for k in chosen:
        cell, positions = motion.cells[k], motion.positions[k]
        senders, receivers, shifts = neighbour_list(positions, cell, motion.pbc, float(edges[-1]))
        distances = np.linalg.norm(positions[senders] - positions[receivers] + shifts @ cell, axis=1)
        ends = np.sort(np.stack([motion.numbers[senders], motion.numbers[receivers]]), axis=0)
        for pair, total in counts.items():
            near = distances[(ends[0] == pair[0]) & (ends[1] == pair[1])]
            total += np.histogram(near, edges)[0] * volumes[k]
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    values = {}
    for (first, second), total in counts.items():
        ways = int((motion.numbers == first).sum()) * (int((motion.numbers == second).sum()) - (first == second))
        # Every pair was met from both ends.
        expected = ways * shells * len(chosen) * (1 if first == second else 2)
        values[first, second] = total / expected if ways else np.zeros(len(shells))
    return RadialDistribution((edges[1:] + edges[:-1]) / 2, values, len(chosen))


@dataclass(frozen=True)
class Bonds:
    """The bonds of the first frame, followed through the run.

    Attributes:
        pairs: (bonds, 2) atom numbers.
        start, mean, std, shortest, longest: (bonds,) Å.
        deviation: (frames,) Å, the largest difference of any length from that at the start.
        stable_time: fs until a bond differs by more than 0.5 Å; None if none ever does.
    """

    pairs: np.ndarray
    start: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    shortest: np.ndarray
    longest: np.ndarray
    deviation: np.ndarray
    stable_time: float | None


def follow_bonds(motion: Motion, bonded: float = BONDED) -> Bonds | None:
    """Follow the lengths of the bonds of the first frame.

    Args:
        motion: of at least two atoms.
        bonded: fraction of the sum of covalent radii up to which atoms are bonded.

    Returns:
        The bonds, or None if there is none.
    """
    radii = covalent_radii[motion.numbers]
    cell, positions = motion.cells[0], motion.positions[0]
    senders, receivers, shifts = neighbour_list(positions, cell, motion.pbc, 2 * bonded * radii.max())
    lengths = np.linalg.norm(positions[senders] - positions[receivers] + shifts @ cell, axis=1)
    near = (senders < receivers) & (lengths < bonded * (radii[senders] + radii[receivers]))
    pairs = np.unique(np.stack([senders[near], receivers[near]], axis=1), axis=0)
    if not len(pairs):
        return None
    history = np.empty((len(motion.time), len(pairs)))
    for k, (at, box) in enumerate(zip(motion.positions, motion.cells)):
        history[k] = find_mic(at[pairs[:, 0]] - at[pairs[:, 1]], box, motion.pbc)[1]
    deviation = np.abs(history - history[0]).max(axis=1)
    broken = np.flatnonzero(deviation > BROKEN)
    return Bonds(
        pairs=pairs,
        start=history[0],
        mean=history.mean(axis=0),
        std=history.std(axis=0),
        shortest=history.min(axis=0),
        longest=history.max(axis=0),
        deviation=deviation,
        stable_time=float(motion.time[broken[0]] - motion.time[0]) if len(broken) else None,
    )
