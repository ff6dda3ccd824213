"""Neighbour lists: all pairs closer than a cutoff, periodic images included."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from ase import Atoms
from vesin import NeighborList

from mlip.core.errors import StructureError

Pairs: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(senders (edges,), receivers (edges,), cell_shifts (edges, 3)), all int64."""

SHORTEST_LATTICE_VECTOR = 0.1
"""Å. Below this a periodic cell is a mistake of units, and the number of images explodes."""

FLAT = 1e-6
"""Volume over product of lengths under which periodic lattice vectors count as linearly dependent."""


def complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Replace the rows of non-periodic axes by unit vectors normal to the others.

    What is written there (zeros, a vacuum box, a skewed vector) has no physical meaning, and a slab with a
    zero third vector must work like any other.

    Args:
        cell: (3, 3) rows in Å.
        pbc: (3,) bool.

    Raises:
        StructureError: a periodic vector is not finite, too short, or depends on the others.
    """
    cell = np.array(cell, dtype=np.float64).reshape(3, 3)
    pbc = np.array(pbc, dtype=bool).reshape(3)
    periodic = cell[pbc]
    lengths = np.linalg.norm(periodic, axis=1)
    if not np.isfinite(periodic).all():
        raise StructureError(f"The cell must be finite along periodic axes, got {cell.tolist()}.")
    if pbc.any() and lengths.min() < SHORTEST_LATTICE_VECTOR:
        raise StructureError(
            f"Periodic axes need lattice vectors of at least {SHORTEST_LATTICE_VECTOR} Å, the shortest here "
            f"has {lengths.min():.3g} Å (pbc {pbc.tolist()}). Set atoms.cell in Å, or atoms.pbc = False for "
            "a molecule."
        )
    # Singular values of the directions: their product is the volume (or area) over the product of lengths.
    _, stretch, directions = np.linalg.svd(periodic / lengths[:, None])
    if stretch.prod() < FLAT:
        raise StructureError(
            f"The periodic lattice vectors {periodic.tolist()} span no volume. Set a proper atoms.cell, or "
            "atoms.pbc = False for a molecule."
        )
    cell[~pbc] = directions[len(periodic) :]
    return cell


def neighbour_list(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Pairs:
    """Find all directed pairs with ``|r_j + S·cell − r_i| < cutoff``.

    Self images (i = j, S ≠ 0) are pairs; an atom is no neighbour of itself (i = j, S = 0). Atoms need not be
    wrapped into the cell, which may be smaller than the cutoff and skewed.

    Args:
        positions: (atoms, 3) in Å.
        cell: (3, 3) rows in Å; rows of non-periodic axes are ignored.
        pbc: (3,) bool.
        cutoff: in Å, strict.

    Returns:
        senders j (edges,), receivers i (edges,), cell_shifts S (edges, 3), int64, ordered by receiver, then
        sender, then shift: the same structure always gives the same order.

    Raises:
        StructureError: positions are not finite, or periodic axes span no volume.
    """
    positions = np.array(positions, dtype=np.float64).reshape(-1, 3)
    pbc = np.array(pbc, dtype=bool).reshape(3)
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if bad.size:
        raise StructureError(
            f"Positions must be finite, atom {bad[0]} is at {positions[bad[0]].tolist()} "
            f"({bad.size} of {len(positions)} atoms)."
        )
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise StructureError(f"The cutoff must be a positive length in Å, got {cutoff}.")
    box = complete_cell(cell, pbc)
    # The list is made a trifle wider and cut by our own distances, so that the cutoff is strict and an edge
    # and its reverse are always both there, whatever vesin's rounding.
    finder = NeighborList(cutoff=cutoff * (1 + 1e-9), full_list=True)
    receivers, senders, shifts = finder.compute(points=positions, box=box, periodic=pbc, quantities="ijS")
    pairs = senders.astype(np.int64), receivers.astype(np.int64), shifts.astype(np.int64).reshape(-1, 3)
    senders, receivers, shifts = within(pairs, positions, box, cutoff)
    order = np.lexsort((*shifts.T[::-1], senders, receivers))
    return senders[order], receivers[order], shifts[order]


def within(pairs: Pairs, positions: np.ndarray, cell: np.ndarray, cutoff: float) -> Pairs:
    """Keep the pairs that are closer than the cutoff, in their order."""
    senders, receivers, shifts = pairs
    # In this order of operations an edge and its reverse have exactly opposite vectors.
    vectors = (positions[senders] - positions[receivers]) + shifts @ cell
    near = np.einsum("ej,ej->e", vectors, vectors) < cutoff**2
    return senders[near], receivers[near], shifts[near]


class SkinNeighbourList:
    """A neighbour list that is reused between the steps of MD or a relaxation.

    The list is built at ``cutoff + skin`` and cut to the pairs within the cutoff at every call, so the result
    is the same set of pairs, in the same order, as a fresh list.

    When it is kept: a cell that went from C0 to C is an affine map F = C0⁻¹·C of all lattice vectors, and
    u_i = r_i − r0_i·F are the displacements on top of it. A pair vector is then d = d0·F + u_j − u_i, so
    |d| < cutoff implies |d0| < (cutoff + 2·max|u|) / σ_min(F). While that is at most cutoff + skin no pair
    can be missing. With a fixed cell this is the usual rule max|u| ≤ skin / 2.

    Attributes:
        cutoff: Å.
        skin: Å; 0 builds a fresh list whenever anything moves.
        num_builds: how many times a list was built.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if not (np.isfinite(skin) and skin >= 0):
            raise StructureError(f"The skin must be a length in Å of at least 0, got {skin}.")
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.num_builds = 0
        self._pairs: Pairs | None = None
        self._positions = np.zeros((0, 3))
        self._numbers = np.zeros(0, dtype=np.int64)
        self._pbc = np.zeros(3, dtype=bool)
        self._cell = np.eye(3)

    def update(self, atoms: Atoms) -> Pairs:
        """Return (senders, receivers, cell_shifts) within the cutoff, as `neighbour_list` does.

        Raises:
            StructureError: as `neighbour_list`.
        """
        positions, cell = atoms.get_positions(), complete_cell(atoms.cell.array, atoms.pbc)
        if self._pairs is None or not self._still_valid(atoms, positions, cell):
            self._pairs = neighbour_list(positions, cell, atoms.pbc, self.cutoff + self.skin)
            self._positions, self._cell = positions, cell
            self._numbers, self._pbc = atoms.numbers.copy(), atoms.pbc.copy()
            self.num_builds += 1
        return within(self._pairs, positions, cell, self.cutoff)

    def _still_valid(self, atoms: Atoms, positions: np.ndarray, cell: np.ndarray) -> bool:
        """Whether the kept list surely holds every pair within the cutoff."""
        if not np.array_equal(self._numbers, atoms.numbers) or not np.array_equal(self._pbc, atoms.pbc):
            return False
        shrink = 1.0
        expected = self._positions
        if not np.array_equal(cell, self._cell):
            strain = np.linalg.solve(self._cell, cell)
            shrink = np.linalg.svd(strain, compute_uv=False)[-1]
            expected = self._positions @ strain
        moved = np.sqrt(((positions - expected) ** 2).sum(axis=1).max(initial=0.0))
        # Written so that NaN positions are not valid; the factor covers rounding of the sum itself.
        return bool(self.cutoff + 2 * moved <= (self.cutoff + self.skin) * shrink * (1 - 1e-12))
