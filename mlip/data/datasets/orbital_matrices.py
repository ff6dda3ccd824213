"""Checks of raw numbers in files of Hamiltonians: sizes, symmetry, units of length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from mlip.core.errors import DataError
from mlip.data.bond_lengths import CLOSEST, closest_atoms
from mlip.data.orbitals import num_orbitals

ASYMMETRY = 1e-8
"""Hartree; a Fock matrix that differs more from its transpose is damaged or was cut in rows of another length."""

LARGEST = 1e5
"""Hartree; the deepest orbital of the heaviest element is at -7000."""

FARTHEST = 1e4
"""Å from the origin."""


def orbital_matrix(value: Any, numbers: np.ndarray, basis: str, name: str, where: str) -> np.ndarray:
    """Return a checked matrix over the orbitals of a structure.

    Raises:
        DataError: a wrong number of elements, or it is not finite, absurdly large or not symmetric.
    """
    size = num_orbitals(numbers, basis)
    found = raw_numbers(value, "<f8", (size, size), name, where, f" for {size} orbitals in {basis}")
    if np.abs(found).max() > LARGEST:
        raise DataError(f"{where}: the {name} has the element {np.abs(found).max():.3g}; the row is damaged.")
    if np.abs(found - found.T).max() > ASYMMETRY:
        raise DataError(f"{where}: the {name} must be symmetric, it differs from its transpose; the row is damaged.")
    return found


def check_distances(numbers: np.ndarray, positions: np.ndarray, where: str, advice: str) -> None:
    """Refuse positions that cannot be those of a molecule in Å.

    Args:
        numbers: (atoms,).
        positions: (atoms, 3) as they would be used, Å.
        where: names the row.
        advice: what to do if they are in another unit, without a full stop.

    Raises:
        DataError: the closest pair of atoms is much too close or too far for a bond, or an atom is very far away.
    """
    if np.abs(positions).max() > FARTHEST:
        raise DataError(f"{where}: an atom is {np.abs(positions).max():.3g} Å from the origin; the row is damaged.")
    if len(numbers) < 2:
        return
    distance, ratio = closest_atoms(numbers, positions)
    if not CLOSEST[0] <= ratio <= CLOSEST[1]:
        raise DataError(
            f"{where}: the closest atoms would be {distance:.3f} Å apart, {ratio:.2f} times a bond. "
            f"{advice}; or the row is damaged."
        )


def raw_numbers(value: Any, dtype: str, shape: tuple[int, ...], name: str, where: str, why: str = "") -> np.ndarray:
    """Return numbers of a known shape from bytes or an array; a copy, finite.

    Args:
        value: bytes, a numpy array or a tensor of the same kinds.
        dtype: of the bytes; an array of integers may be of any kind, one of floats must be float64.
        shape: of the result.
        name: of the numbers, for messages.
        where: names the row.
        why: says what the size follows from.

    Raises:
        DataError: another size or kind, or NaN.
    """
    size = math.prod(shape)
    kind = np.dtype(dtype)
    if isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.int32, torch.int64):
        value = value.detach().numpy()
    if isinstance(value, bytes):
        if len(value) != size * kind.itemsize:
            raise DataError(f"{where}: the {name} must have {size * kind.itemsize} bytes{why}, got {len(value)}.")
        array = np.frombuffer(value, dtype=kind)
    elif isinstance(value, np.ndarray):
        right = value.dtype.kind in "iu" if kind.kind == "i" else value.dtype == np.float64
        if value.size != size or not right:
            raise DataError(
                f"{where}: the {name} must be {size} numbers of kind {kind.name}{why}, got {value.size} of "
                f"{value.dtype}."
            )
        array = value
    else:
        raise DataError(f"{where}: the {name} must be bytes or an array, got {short(value)}.")
    if kind.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: the {name} must be finite numbers; the row is damaged.")
    return np.array(array.reshape(shape), dtype=np.int64 if kind.kind == "i" else np.float64)


def short(value: Any) -> str:
    """Describe a value in a few words, for messages."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else f"{type(value).__name__} {str(value)[:40]!r}"
