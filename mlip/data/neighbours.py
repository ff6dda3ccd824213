"""Neighbour lists: all pairs closer than a cutoff, periodic images included."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from ase import Atoms
from vesin import NeighborList

from mlip.core.errors import StructureError

Pairs: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(senders (edges,), receivers (edges,), cell_shifts (edges, 3)), all int64."""

SHORTEST_LATTICE_VECTOR = 0.1
"""Å. Below this a periodic cell is a mistake of units, and the number of images explodes."""

LARGEST_COORDINATE = 1e8
"""Å. Beyond it float64 has less than 1e-8 Å left, and shifts no longer fit vesin's 32 bits."""

FLAT = 1e-6
"""Volume over product of lengths under which periodic lattice vectors count as linearly dependent."""

_MARGIN = 1e-9
"""Relative; by which vesin's list is wider than ours."""

_MANY_CELLS = 3e4
"""Fewer than the 1e5 cells of the size of the cutoff that vesin sorts atoms into."""

_THICK = 8.0
"""Cells that the thinnest axis has to keep when vesin reduces their number."""

_MANY_IMAGES = 1e4
"""Images of an atom among which a search of a wide and thin cell is not begun."""


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
    flags = pbc.tolist()
    if not any(flags):
        return np.eye(3)
    # Nine numbers: plain floats take a tenth of the time of numpy's functions.
    rows = [row for row, periodic in zip(cell.tolist(), flags, strict=True) if periodic]
    lengths = [math.hypot(*row) for row in rows]
    if not all(math.isfinite(length) for length in lengths):
        raise StructureError(f"The cell must be finite along periodic axes, got {cell.tolist()}.")
    if min(lengths) < SHORTEST_LATTICE_VECTOR:
        raise StructureError(
            f"Periodic axes need lattice vectors of at least {SHORTEST_LATTICE_VECTOR} Å, the shortest here "
            f"has {min(lengths):.3g} Å (pbc {flags}). Set atoms.cell in Å, or atoms.pbc = False for "
            "a molecule."
        )
    # Volume (or area) over the product of lengths: the product of the singular values of the directions.
    if len(rows) == 3:
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = rows
        volume = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
        flatness = abs(volume) / math.prod(lengths)
    else:
        _, stretch, directions = np.linalg.svd(cell[pbc] / np.array(lengths)[:, None])
        flatness = stretch.prod()
        cell[~pbc] = directions[len(rows) :]
    if flatness < FLAT:
        raise StructureError(
            f"The periodic lattice vectors {rows} span no volume. Set a proper atoms.cell, or "
            "atoms.pbc = False for a molecule."
        )
    return cell


def check_positions(positions: np.ndarray) -> float:
    """Return the largest coordinate in Å, of (atoms, 3) positions.

    Raises:
        StructureError: a position is not finite, or so large that no digits are left for distances.
    """
    largest = float(np.abs(positions).max(initial=0.0))
    if largest < LARGEST_COORDINATE:
        return largest
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if bad.size:
        raise StructureError(
            f"Positions must be finite, atom {bad[0]} is at {positions[bad[0]].tolist()} "
            f"({bad.size} of {len(positions)} atoms)."
        )
    raise StructureError(
        f"Positions must be below {LARGEST_COORDINATE:.0e} Å, the largest coordinate is {largest:.3g} Å: no digits are "
        "left for distances between atoms. Wrap or centre the structure."
    )


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
    largest = check_positions(positions)
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise StructureError(f"The cutoff must be a positive length in Å, got {cutoff}.")
    box = complete_cell(cell, pbc)
    # The list is made a trifle wider and cut by our own distances, so that the cutoff is strict whatever vesin's
    # rounding. Of an edge and its reverse vesin finds one, which is faster, and both are there or neither.
    points, search_box, reach, images = positions, box, cutoff * (1 + _MARGIN), None
    wide = max(2 * largest, 1.8 * float(np.abs(box).max())) > _MANY_CELLS ** (1 / 3) * cutoff
    if wide:
        points, search_box, reach, images = _search_space(positions, box, pbc, reach)
    finder = NeighborList(cutoff=reach, full_list=False)
    found, shifts, lengths = finder.compute(points=points, box=search_box, periodic=pbc, quantities="PSd", copy=False)
    pairs = found[:, 1].astype(np.int64), found[:, 0].astype(np.int64), shifts.astype(np.int64).reshape(-1, 3)
    if images is not None:
        pairs = pairs[0], pairs[1], pairs[2] + images[pairs[1]] - images[pairs[0]]
    # Vesin's lengths are right to rounding: far below the margin.
    if wide or lengths.max(initial=0.0) > cutoff * (1 - _MARGIN):
        pairs = within(pairs, positions, box, cutoff)
    return both_directions(pairs, len(positions))


def _search_space(
    positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return positions, box and a cutoff whose list holds every pair within the cutoff, and maybe more.

    Vesin sorts atoms into cells of the size of the cutoff, at most 1e5 of them. It divides by zero, which ends the
    process, where there would be more and one axis is thin: a sheet of some thousand Å, fragments far apart. Along
    open axes its cells are those of a Cartesian coordinate.

    Returns:
        positions (atoms, 3) that are wrapped into the cell, turned and moved together; box (3, 3); cutoff; and the
        image (atoms, 3) int64 of each atom that was wrapped.
    """
    inverse = np.linalg.inv(box)
    # Along open axes the rows of the box are unit vectors normal to all others: coordinates there are in Å.
    coordinates = positions @ inverse
    images = np.where(pbc, np.floor(coordinates), 0.0)
    coordinates -= images
    widths = 1 / np.linalg.norm(inverse, axis=0)
    frame = box.copy()
    frame[pbc] = np.linalg.qr(box[pbc].T)[0].T
    for axis in np.flatnonzero(~pbc) if len(positions) else ():
        # No pair reaches over a gap wider than the cutoff, so gaps may be closed to two cutoffs.
        order = np.argsort(coordinates[:, axis])
        steps = np.diff(coordinates[order, axis], prepend=coordinates[order[0], axis])
        coordinates[order, axis] = np.cumsum(np.minimum(steps, 2 * cutoff))
        widths[axis] = max(1.01 * coordinates[:, axis].max(), 1.0)
    reach = cutoff
    while True:
        cells = np.maximum(widths / reach, 1.0)
        if cells.prod() < _MANY_CELLS or cells.min() > _THICK * (cells.prod() / _MANY_CELLS) ** (1 / 3):
            break
        reach *= 1.25
    if reach > cutoff and np.maximum(2 * reach / widths[pbc], 1.0).prod() > _MANY_IMAGES:
        raise StructureError(
            f"The cell is {widths.max():.3g} Å wide and {widths.min():.3g} Å thin: neighbours cannot be searched in "
            "such a cell. Set pbc = False along empty directions, or check the units of the cell."
        )
    return coordinates @ box @ frame.T, box @ frame.T, reach, images.astype(np.int64)


def both_directions(half: Pairs, num_atoms: int) -> Pairs:
    """Add the reverse of every pair, and order them by receiver, sender and shift."""
    senders, receivers, shifts = half
    if not len(senders):
        return half
    reach = np.abs(shifts).max(axis=0).tolist()
    widths = [(num_atoms - 1).bit_length()] * 2 + [(2 * size).bit_length() for size in reach]
    if sum(widths) > 63:
        pairs = np.concatenate([senders, receivers]), np.concatenate([receivers, senders])
        shifts = np.concatenate([shifts, -shifts])
        order = np.lexsort((*shifts.T[::-1], *pairs))
        return pairs[0][order], pairs[1][order], shifts[order]
    # A pair is one number, receiver first: sorting numbers is many times faster than sorting rows.
    of_y, of_x = widths[4], widths[3] + widths[4]
    of_sender = widths[2] + of_x
    of_receiver = of_sender + widths[1]
    shift = (shifts[:, 0] << of_x) + (shifts[:, 1] << of_y) + shifts[:, 2]
    centre = (reach[0] << of_x) + (reach[1] << of_y) + reach[2]
    keys = np.concatenate(
        [
            (receivers << of_receiver) + (senders << of_sender) + (centre + shift),
            (senders << of_receiver) + (receivers << of_sender) + (centre - shift),
        ]
    )
    keys.sort()
    shifts = np.empty((len(keys), 3), dtype=np.int64)
    for axis, (start, size) in enumerate(zip((of_x, of_y, 0), reach, strict=True)):
        shifts[:, axis] = ((keys >> start) & ((1 << widths[2 + axis]) - 1)) - size
    return (keys >> of_sender) & ((1 << widths[1]) - 1), keys >> of_receiver, shifts


def within(pairs: Pairs, positions: np.ndarray, cell: np.ndarray, cutoff: float) -> Pairs:
    """Keep the pairs that are closer than the cutoff, in their order."""
    senders, receivers, shifts = pairs
    vectors = pair_vectors(pairs, positions, cell)
    near = np.einsum("ej,ej->e", vectors, vectors) < cutoff**2
    return senders[near], receivers[near], shifts[near]


def pair_vectors(pairs: Pairs, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return (edges, 3) from receiver to sender, Å; of an edge and its reverse exactly opposite.

    Args:
        pairs: senders, receivers, cell_shifts.
        positions: (atoms, 3).
        cell: (3, 3) rows, finite.
    """
    senders, receivers, shifts = pairs
    # The reverse is exact in this order of operations only.
    return (positions[senders] - positions[receivers]) + shifts @ cell


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
