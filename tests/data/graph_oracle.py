"""Edges by brute force: every periodic image of every atom, in plain Python."""

from __future__ import annotations

from itertools import product

import numpy as np
from ase import Atoms
from hypothesis import assume
from hypothesis import strategies as st
from scipy.optimize import brentq

Edge = tuple[int, int, int, int, int]
"""(sender, receiver, shift)."""


@st.composite
def structures(draw: st.DrawFn) -> Atoms:
    """Random structures: any pbc, skewed and small cells, zero vectors on open axes, unwrapped atoms."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    cell = np.diag(rng.uniform(1.5, 7.0, 3)) + draw(st.sampled_from([0.0, 1.0])) * rng.normal(size=(3, 3))
    if draw(st.booleans()):
        cell[~pbc] = 0.0
    lengths = np.linalg.norm(cell[pbc], axis=1)
    flatness = np.linalg.svd(cell[pbc] / lengths[:, None], compute_uv=False).prod()
    assume(flatness > 0.3 and lengths.min(initial=9.0) > 1.0)
    num_atoms = draw(st.integers(1, 6))
    positions = rng.normal(size=(num_atoms, 3)) * draw(st.sampled_from([1.0, 3.0, 12.0]))
    return Atoms(numbers=rng.integers(1, 9, num_atoms), positions=positions, cell=cell, pbc=pbc)


def rows(pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[Edge]:
    """Return edges as a sorted list."""
    return sorted(map(tuple, np.column_stack(pairs).tolist()))


def all_pairs(atoms: Atoms, cutoff: float) -> dict[Edge, float]:
    """Return the length of every pair within the cutoff, by enumerating images."""
    found = {}
    periodic = np.flatnonzero(atoms.pbc)
    vectors = atoms.cell.array[periodic]
    inverse = np.linalg.pinv(vectors) if len(periodic) else np.zeros((3, 0))
    # Planes of lattice points are 1/|column of the inverse| apart.
    reach = [int(np.ceil(cutoff * size)) + 1 for size in np.linalg.norm(inverse, axis=0)]
    steps = np.array(list(product(*(range(-n, n + 1) for n in reach))), dtype=np.int64)
    for i, j in product(range(len(atoms)), repeat=2):
        vector = atoms.positions[j] - atoms.positions[i]
        images = steps - np.rint(vector @ inverse).astype(np.int64)
        lengths = np.linalg.norm(vector + images @ vectors, axis=1)
        for image, length in zip(images[lengths < cutoff], lengths[lengths < cutoff], strict=True):
            shift = np.zeros(3, dtype=int)
            shift[periodic] = image
            if i != j or shift.any():
                found[(j, i, *shift.tolist())] = float(length)
    return found


def nearest(atoms: Atoms, k: int, cutoff: float, tolerance: float) -> list[Edge]:
    """Sort the neighbours of every atom and cut the list."""
    pairs = all_pairs(atoms, cutoff)
    chosen = []
    for i in range(len(atoms)):
        mine = sorted((length, edge) for edge, length in pairs.items() if edge[1] == i)
        last = mine[k - 1][0] if len(mine) >= k else np.inf
        chosen += [edge for length, edge in mine if length <= last + tolerance]
    return sorted(chosen)


def adaptive_cutoffs(atoms: Atoms, cutoff: float, target: float, width: float) -> list[float]:
    """Solve for the cutoff of every atom with scipy."""
    pairs = all_pairs(atoms, cutoff)

    def excess(c: float, lengths: list[float]) -> float:
        x = [min(max((c - length) / width, 0.0), 1.0) for length in lengths]
        return sum(6 * u**5 - 15 * u**4 + 10 * u**3 for u in x) + target * (c / cutoff) ** 12 - target

    mine = [[length for edge, length in pairs.items() if edge[1] == i] for i in range(len(atoms))]
    # A little beyond the end: rounding may leave the root of an atom alone there.
    return [brentq(excess, 1e-9, cutoff * 1.0001, args=(lengths,), xtol=1e-13) for lengths in mine]
