"""ASE's filter that relaxes positions and cell together, without what it computes several times a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.filters import FrechetCellFilter
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from scipy.linalg import expm_frechet, logm

SMALL = 0.3
"""Norm of a strain up to which the series of the logarithm has all digits; scipy's general function takes twenty times
as long, a good part of what the model takes for a small crystal."""


class CellFilter(FrechetCellFilter):
    """Positions and the logarithm of the deformation of the cell, as in the base class, whose arguments it takes.

    An optimizer asks three times a step for the forces. Here they are kept while nothing moves, and the gradient with
    respect to the logarithm A of the deformation, ``∂E/∂A = L(Aᵀ, ∂E/∂e^A)`` with the Fréchet derivative L of the
    exponential, is one evaluation of L instead of one for each of nine directions. In a batch of small crystals the
    base class would take longer than the model.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._logarithm: tuple[np.ndarray, np.ndarray] | None = None

    def get_positions(self) -> np.ndarray:
        """Return the positions in the undeformed cell and the scaled logarithm, ``(atoms + 3, 3)``."""
        deformation = self.deform_grad()
        positions = np.linalg.solve(deformation, self.atoms.positions.T).T
        # The base class takes the exponential for ``cell_factor`` times the deformation.
        logarithm = self._log(deformation) + np.eye(3) * np.log(self.cell_factor)
        return np.concatenate([positions, logarithm * self.exp_cell_factor])

    def get_forces(self, **kwargs: Any) -> np.ndarray:
        """Return their generalised forces, ``(atoms + 3, 3)``."""
        positions, cell = self.atoms.positions, self.atoms.cell.array
        if self._kept is not None and not kwargs:
            forces, at, in_cell = self._kept
            if np.array_equal(at, positions) and np.array_equal(in_cell, cell):
                return forces.copy()
        forces = self._forces(**kwargs)
        self._kept = None if kwargs else (forces, positions.copy(), cell.copy())
        return forces.copy()

    def _forces(self, **kwargs: Any) -> np.ndarray:
        volume = self.atoms.get_volume()
        stress = voigt_6_to_full_3x3_stress(self.atoms.get_stress(**kwargs))
        virial = -volume * (stress + self.scalar_pressure * np.eye(3))
        if self.hydrostatic_strain:
            virial = np.eye(3) * (virial.trace() / 3)
        virial = virial * self.mask
        deformation = self.deform_grad()
        slope = virial @ np.linalg.inv(deformation.T)
        on_log = expm_frechet(self._log(deformation).T, slope, compute_expm=False)
        criterion = -virial / volume
        if self.constant_volume:
            on_log = on_log - np.eye(3) * (on_log.trace() / 3)
            criterion = criterion - np.eye(3) * (criterion.trace() / 3)
        self.stress = full_3x3_to_voigt_6_stress(criterion)
        return np.concatenate([self.atoms.get_forces(**kwargs) @ deformation, on_log / self.exp_cell_factor])

    def _log(self, deformation: np.ndarray) -> np.ndarray:
        if self._logarithm is None or not np.array_equal(self._logarithm[0], deformation):
            self._logarithm = deformation.copy(), _logarithm(deformation)
        return self._logarithm[1]


def _logarithm(matrix: np.ndarray) -> np.ndarray:
    """Return log M of a (3, 3) matrix, near 1 as ``2 artanh Z`` with ``Z = (M − 1)(M + 1)⁻¹``."""
    identity = np.eye(3)
    if not np.linalg.norm(matrix - identity) < SMALL:
        return np.real(logm(matrix))
    # Both factors are functions of M and so commute; |Z| < 0.18, and the term that is left out is 1e-16 of it.
    ratio = np.linalg.solve(matrix + identity, matrix - identity)
    square, total = ratio @ ratio, identity / 19
    for power in range(17, 0, -2):
        total = total @ square + identity / power
    return 2 * ratio @ total
