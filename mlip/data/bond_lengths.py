"""The closest two atoms of a molecule, against the length of a bond: Å and Bohr differ by 1.9."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

CLOSEST = (0.62, 1.45)
"""Distance of the closest pair of atoms over the sum of their covalent radii, in molecules whose positions are in Å."""


def closest_atoms(numbers: np.ndarray, positions: np.ndarray) -> tuple[float, float]:
    """Return the distance of the pair of atoms that is closest for its elements, and how many times a bond it is.

    Args:
        numbers: (atoms,), at least two.
        positions: (atoms, 3).

    Returns:
        Distance in the unit of the positions, and its ratio to the sum of the covalent radii in Å.
    """
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    radii = covalent_radii[numbers]
    ratios = distances / (radii[:, None] + radii[None]) + np.diag(np.full(len(numbers), np.inf))
    pair = np.unravel_index(ratios.argmin(), ratios.shape)
    return float(distances[pair]), float(ratios[pair])
