"""Least-squares energies of the elements over any number of structures, in memory for elements × elements."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import chemical_symbols


class EnergyFit:
    """Accumulates E ≈ Σ_z count_z · E0_z by the triangular factor of a QR decomposition.

    The factor R of the compositions with the energies as a last column has the same least-squares solutions as all
    rows together, of minimum norm where compositions leave elements undetermined, and is merged by stacking.

    Attributes:
        num_structures: how many have been added.
    """

    def __init__(self) -> None:
        self.num_structures = 0
        self._elements = np.zeros(0, dtype=np.int64)
        self._factor = np.zeros((0, 1))

    def add(self, composition: np.ndarray, energies: np.ndarray) -> None:
        """Add structures.

        Args:
            composition: (structures, 119) atoms by atomic number.
            energies: (structures,) eV.
        """
        elements = np.flatnonzero(composition.any(axis=0))
        rows = np.column_stack([composition[:, elements], energies]).astype(np.float64)
        self._merge(elements, rows, len(energies))

    def merge(self, other: EnergyFit) -> None:
        """Add the structures of another fit."""
        self._merge(other._elements, other._factor, other.num_structures)

    def _merge(self, elements: np.ndarray, rows: np.ndarray, count: int) -> None:
        union = np.union1d(self._elements, elements)
        stacked = np.zeros((len(self._factor) + len(rows), len(union) + 1))
        for block, known, start in ((self._factor, self._elements, 0), (rows, elements, len(self._factor))):
            part = stacked[start : start + len(block)]
            part[:, np.searchsorted(union, known)] = block[:, :-1]
            part[:, -1] = block[:, -1]
        self._elements, self.num_structures = union, self.num_structures + count
        self._factor = np.linalg.qr(stacked, mode="r") if len(stacked) > len(union) + 1 else stacked

    def solve(self) -> dict[str, Any] | None:
        """Return the energies; None without structures.

        Returns:
            ``energies`` (eV by symbol), ``rank`` (how many elements the compositions determine), ``rmse`` (eV per
            structure).
        """
        if self.num_structures == 0:
            return None
        matrix, target = self._factor[:, :-1], self._factor[:, -1]
        limit = np.finfo(np.float64).eps * max(self.num_structures, len(self._elements))
        solution, _, rank, _ = np.linalg.lstsq(matrix, target, rcond=limit)
        rest = float(np.linalg.norm(matrix @ solution - target))
        return {
            "energies": {chemical_symbols[z]: float(e) for z, e in zip(self._elements, solution, strict=True)},
            "rank": int(rank),
            "rmse": rest / float(np.sqrt(self.num_structures)),
        }
