"""Molecules in periodic boxes, which programs wrap into the cell atom by atom."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from mlip.core.errors import SimulationError
from mlip.data.neighbours import neighbour_list
from mlip.simulate.contacts import BONDED


def make_whole(molecule: Atoms) -> tuple[Atoms, list[str]]:
    """Join the atoms of a molecule along its bonds, across the boundaries of its cell.

    Bonds are pairs within `mlip.simulate.contacts.BONDED` times the sum of the covalent radii.

    Args:
        molecule: not changed.

    Returns:
        A copy that is not periodic and has no cell, and a warning if it is in several pieces, whose distances stay
        those of the file.

    Raises:
        SimulationError: it is bonded to its own periodic images.
        StructureError: the cell makes no sense.
    """
    radii, cell = covalent_radii[molecule.numbers], molecule.cell.array
    first, second, shifts = neighbour_list(molecule.positions, cell, molecule.pbc, 2 * BONDED * radii.max())
    # From the second atom to the image of the first one that it is bonded to.
    bonds = molecule.positions[first] - molecule.positions[second] + shifts @ cell
    near = np.linalg.norm(bonds, axis=1) < BONDED * (radii[first] + radii[second])
    first, second, shifts = first[near], second[near], shifts[near]
    images, pieces = _images(len(molecule), first, second, shifts)
    name = molecule.get_chemical_formula()
    if (images[second] + shifts != images[first]).any():
        raise SimulationError(
            f"The molecule {name} is bonded to its own periodic images: give it in a larger box, or without one."
        )
    whole = molecule.copy()
    whole.positions += images @ cell
    whole.set_cell(np.zeros((3, 3)))
    whole.pbc = False
    if pieces == 1:
        return whole, []
    return whole, [f"The molecule {name} is in {pieces} pieces: they stay as far apart as they are in its file."]


def _images(size: int, first: np.ndarray, second: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, int]:
    """Walk along bonds; return the image (atoms, 3) that each atom has to be at, and the number of pieces."""
    links = coo_array((np.ones(len(first)), (second, first)), shape=(size, size)).tocsr()
    shift_of = dict(zip(zip(second.tolist(), first.tolist()), shifts))
    images, seen, pieces = np.zeros((size, 3), dtype=np.int64), np.zeros(size, dtype=bool), 0
    for start in range(size):
        if seen[start]:
            continue
        pieces += 1
        order, before = breadth_first_order(links, start, directed=True)
        for atom in order[1:].tolist():
            images[atom] = images[before[atom]] + shift_of[int(before[atom]), atom]
        seen[order] = True
    return images, pieces
