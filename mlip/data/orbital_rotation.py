"""How orbitals turn with the molecule: exact matrices for any rotation or reflection, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mlip.core.errors import DataError
from mlip.data.orbitals import shells
from mlip.ops.spherical_harmonics import spherical_harmonics

ORTHOGONAL = 1e-8
"""Largest deviation of R Rᵀ from the unit matrix."""


def shell_rotation(degree: int, rotation: np.ndarray) -> np.ndarray:
    """Return ``D`` with ``Y(R r) = D Y(r)`` for the orbitals m = -l … l of one shell, (2l + 1, 2l + 1).

    Args:
        degree: l.
        rotation: R, (3, 3) orthogonal; with determinant -1 it reflects as well.

    Raises:
        DataError: R is not orthogonal.
    """
    return _rotations(degree, _checked(rotation))[degree]


def orbital_rotation(numbers: Sequence[int] | np.ndarray, basis: str, rotation: np.ndarray) -> np.ndarray:
    """Return ``D`` (orbitals, orbitals) in the order `mlip`: turned atoms ``positions @ R.T`` have ``D H Dᵀ``.

    It is block-diagonal, one block a shell. Overlaps turn so exactly; Fock matrices of density functionals up to
    the error of their integration grid, which stays where it is when the molecule turns (1e-5 Hartree in QH9).

    Args:
        numbers: atomic numbers of the structure.
        basis: see :func:`mlip.data.orbitals.shells`.
        rotation: R, (3, 3) orthogonal; with determinant -1 it reflects as well.

    Raises:
        DataError: R is not orthogonal, or as `shells`.
    """
    return rotation_of_shells(
        [degree for number in np.asarray(numbers).tolist() for degree in shells(basis, number)], rotation
    )


def rotation_of_shells(degrees: Sequence[int], rotation: np.ndarray) -> np.ndarray:
    """Return ``D`` of orbitals in shells of these degrees, one after the other, as `orbital_rotation`.

    Args:
        degrees: l of each shell.
        rotation: R, (3, 3) orthogonal; with determinant -1 it reflects as well.

    Raises:
        DataError: R is not orthogonal.
    """
    blocks = _rotations(max(degrees, default=0), _checked(rotation))
    matrix = np.zeros((sum(2 * degree + 1 for degree in degrees),) * 2)
    start = 0
    for degree in degrees:
        stop = start + 2 * degree + 1
        matrix[start:stop, start:stop] = blocks[degree]
        start = stop
    return matrix


def _checked(rotation: np.ndarray) -> np.ndarray:
    array = np.asarray(rotation, dtype=np.float64)
    if array.shape != (3, 3) or not np.abs(array @ array.T - np.eye(3)).max() < ORTHOGONAL:
        raise DataError(f"A rotation must be an orthogonal 3x3 matrix, got {array.tolist()}.")
    return array


def _rotations(largest: int, rotation: np.ndarray) -> list[np.ndarray]:
    """Return D of the degrees 0 … largest: the solution of ``Y(points Rᵀ) = Y(points) Dᵀ``."""
    # More points than unknowns and none of them special: well conditioned for any degree of a basis.
    points = np.random.default_rng(0).normal(size=(8 * (largest + 1) ** 2, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    before, after = _harmonics(largest, points), _harmonics(largest, points @ rotation.T)
    blocks = []
    for degree in range(largest + 1):
        columns = slice(degree**2, (degree + 1) ** 2)
        blocks.append(np.linalg.lstsq(before[:, columns], after[:, columns], rcond=None)[0].T)
    return blocks


def _harmonics(largest: int, points: np.ndarray) -> np.ndarray:
    """Return real harmonics about the z axis, (points, (largest + 1)²); the package's own are about y."""
    return spherical_harmonics(largest, torch.from_numpy(points[:, [1, 2, 0]].copy())).numpy()
