"""Geometry that no healthy simulation shows: atoms on top of each other, pieces that fly apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlip.core.errors import StructureError
from mlip.data.neighbours import neighbour_list

TOUCHING = 0.5
"""Fraction of the sum of covalent radii (Cordero 2008, as in ASE) below which two atoms touch."""

OVERLAP = 0.2
"""Fraction of the sum of covalent radii below which two atoms of an input are a mistake."""

BONDED = 1.5
"""Fraction of the sum of covalent radii up to which two atoms belong to one piece."""


@dataclass(frozen=True)
class Contact:
    """The closest pair of atoms, measured by the sum of their covalent radii.

    Attributes:
        first, second: atom numbers.
        distance: Å.
        ratio: distance over the sum of covalent radii.
    """

    first: int
    second: int
    distance: float
    ratio: float

    def describe(self, atoms: Atoms) -> str:
        """Return a phrase such as ``"atoms 3 (C) and 7 (H) are 0.31 Å apart"``."""
        return (
            f"atoms {self.first} ({atoms.symbols[self.first]}) and {self.second} "
            f"({atoms.symbols[self.second]}) "
            f"are {self.distance:.2f} Å apart"
        )


def closest_contact(atoms: Atoms, below: float = TOUCHING) -> Contact | None:
    """Find the worst contact: the pair with the smallest distance over sum of covalent radii.

    Args:
        atoms: the structure, periodic images included.
        below: only pairs with a ratio under this are looked for.

    Returns:
        The pair, or None if all pairs are farther apart.
    """
    first, second, distances, sums = _pairs(atoms, below)
    if not len(first):
        return None
    ratios = distances / sums
    worst = int(np.argmin(ratios))
    pair = sorted((int(first[worst]), int(second[worst])))
    return Contact(pair[0], pair[1], float(distances[worst]), float(ratios[worst]))


def require_apart(atoms: Atoms, where: str) -> None:
    """Refuse atoms on top of each other.

    Args:
        atoms: the structure.
        where: begins the message, such as ``"In the starting structure"``.

    Raises:
        StructureError: which two.
    """
    contact = closest_contact(atoms, OVERLAP) if len(atoms) else None
    if contact is not None:
        raise StructureError(f"{where} {contact.describe(atoms)}: they overlap.")


def count_pieces(atoms: Atoms, bonded: float = BONDED) -> int:
    """Count the pieces of a structure that no pair within ``bonded`` times the covalent radii connects."""
    first, second, _, _ = _pairs(atoms, bonded)
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(atoms), len(atoms)))
    return int(connected_components(links, directed=False)[0])


def _pairs(atoms: Atoms, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return atoms i, atoms j, distances and sums of radii of all pairs closer than factor · (r_i + r_j)."""
    radii = covalent_radii[atoms.numbers]
    cell = atoms.cell.array
    senders, receivers, shifts = neighbour_list(atoms.positions, cell, atoms.pbc, 2 * factor * radii.max())
    vectors = atoms.positions[senders] - atoms.positions[receivers] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=1)
    sums = radii[senders] + radii[receivers]
    near = distances < factor * sums
    return receivers[near], senders[near], distances[near], sums[near]
