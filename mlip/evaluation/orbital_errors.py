"""How far a predicted Hamiltonian is off for one molecule: its entries, and the orbitals that it has.

Inside, energies are in Hartree, similarities from 0 to 1. The published numbers of QH9 and MD17 are means over
molecules of `MatrixErrors` and `OrbitalErrors`; docs/evaluate.md says which is which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlip.core.errors import DataError
from mlip.data.molecular_orbitals import MolecularOrbitals, closed_shells

DEGENERATE = 1e-3
"""Hartree; orbitals whose true energies differ by less from the next one's are one level.

27 meV. What symmetry makes degenerate differs by 4e-6 in QH9's matrices (integration grid), what is close by chance or
because it is far apart (the 1s of two equal atoms) by 1e-5 to 2e-4; a model mixes the orbitals of a level freely
if its errors are of the size of the differences."""


@dataclass(frozen=True)
class MatrixErrors:
    """Mean absolute errors over entries, Hartree.

    They depend on how the molecule is oriented, by some 10 %: a sum of absolute values is not kept by the rotation of a
    shell. Root mean squares and all of `OrbitalErrors` are kept.

    Attributes:
        all: over the whole matrix.
        diagonal: over the blocks of one atom with itself.
        off_diagonal: over the blocks of two atoms; NaN for a single atom.
    """

    all: float
    diagonal: float
    off_diagonal: float


@dataclass(frozen=True)
class OrbitalErrors:
    """Errors of the orbitals of a closed-shell molecule. The k-th predicted is compared with the k-th true orbital.

    Attributes:
        occupied: mean absolute error of the occupied orbitals' energies ("ε" of the papers), Hartree.
        homo, lumo, gap: predicted - true energy of the highest occupied and the lowest unoccupied orbital and of their
            difference, Hartree; the last two are NaN where every orbital is occupied.
        similarity: mean over the occupied orbitals of ``|c_trueᵀ S c_predicted|``, the cosine of two functions.
        cosine: mean over the occupied orbitals of ``|c_true · c_predicted| / (|c_true| |c_predicted|)``, the cosine of
            two lists of numbers, which leaves the overlap out. This is "ψ" of QHBench's script and of the papers that
            use it (QHNet, QH9, SPHNet).
        subspace: as ``similarity``, but orbitals of one level are compared as the space that they span, by the mean of
            the singular values of ``C_trueᵀ S C_predicted``: rotations within a level cost nothing.
    """

    occupied: float
    homo: float
    lumo: float
    gap: float
    similarity: float
    cosine: float
    subspace: float


def matrix_errors(predicted: np.ndarray, true: np.ndarray, atom_of_orbital: np.ndarray) -> MatrixErrors:
    """Return the errors of a Hamiltonian.

    Args:
        predicted, true: ``(orbitals, orbitals)``, Hartree, in one order.
        atom_of_orbital: ``(orbitals,)`` which atom a row belongs to, see :func:`mlip.data.orbitals.orbital_table`.

    Raises:
        DataError: the sizes differ.
    """
    size = len(atom_of_orbital)
    if predicted.shape != (size, size) or true.shape != (size, size):
        raise DataError(
            f"Hamiltonians over {size} orbitals must be compared, got matrices {predicted.shape} and {true.shape}."
        )
    error = np.abs(predicted - true)
    one_atom = atom_of_orbital[:, None] == atom_of_orbital
    return MatrixErrors(_mean(error), _mean(error[one_atom]), _mean(error[~one_atom]))


def orbital_errors(
    predicted: MolecularOrbitals,
    true: MolecularOrbitals,
    overlap: np.ndarray,
    num_electrons: int,
    degenerate: float = DEGENERATE,
) -> OrbitalErrors:
    """Return the errors of the orbitals of a Hamiltonian.

    Args:
        predicted, true: of the predicted and the true matrix with the same overlap.
        overlap: ``(orbitals, orbitals)``.
        num_electrons: in these orbitals, two in each occupied one.
        degenerate: Hartree, see `DEGENERATE`.

    Raises:
        DataError: as :func:`mlip.data.molecular_orbitals.closed_shells`.
    """
    count = int(np.count_nonzero(closed_shells(len(true.energies), num_electrons)))
    occupied = slice(count)
    error = predicted.energies - true.energies
    homo = float(error[count - 1])
    lumo = float(error[count]) if count < len(error) else math.nan
    left, right = true.coefficients[:, occupied], predicted.coefficients[:, occupied]
    projections = left.T @ overlap @ right
    lengths = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
    in_levels = sum(
        float(np.linalg.svd(projections[level, level], compute_uv=False).sum())
        for level in levels(true.energies[occupied], degenerate)
    )
    return OrbitalErrors(
        occupied=_mean(np.abs(error[occupied])),
        homo=homo,
        lumo=lumo,
        gap=lumo - homo,
        similarity=_mean(np.abs(np.diag(projections))),
        cosine=_mean(np.abs((left * right).sum(axis=0)) / lengths),
        subspace=in_levels / count,
    )


def levels(energies: np.ndarray, degenerate: float = DEGENERATE) -> Iterator[slice]:
    """Yield the runs of ascending energies in which each differs by less than ``degenerate`` from the next.

    >>> [(level.start, level.stop) for level in levels(np.array([-1.0, -0.5, -0.5, 0.1]))]
    [(0, 1), (1, 3), (3, 4)]
    """
    ends = [*(np.flatnonzero(np.diff(energies) >= degenerate) + 1).tolist(), len(energies)]
    start = 0
    for stop in ends:
        if stop > start:
            yield slice(start, stop)
        start = stop


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
