"""Hamiltonian and overlap matrices: symmetric, of one size, in a basis that fits the atoms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.core.fields import MATRICES
from mlip.data.checks.base import Check, Finding, Seen, Settings, structures
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable
from mlip.data.least_squares import StreamedLeastSquares

ASYMMETRY = 1e-6
"""Hartree; largest difference of a matrix and its transpose."""

DECOMPOSED = 200
"""Overlap matrices whose eigenvalues are looked at."""


class Matrices(Check):
    """Matrices over orbitals."""

    name = "matrices"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._asymmetric: dict[str, Seen] = {}
        self._sizes, self._overlap = Seen(), Seen()
        self._orbitals = StreamedLeastSquares(118)
        self._number = 0

    def update(self, frame: Frame) -> None:
        """Look at the matrices of one structure."""
        found = {name: value for name in MATRICES if (value := frame.label(name)) is not None}
        if not found:
            return
        self._number += 1
        shapes = {value.shape for value in found.values()}
        shape = next(iter(shapes))
        if len(shapes) > 1 or len(shape) != 2 or shape[0] != shape[1]:
            self._sizes.add(frame.source)
            return
        self._orbitals.add(np.bincount(frame.numbers, minlength=119)[None, 1:], np.array([shape[0]]))
        for name, value in found.items():
            if np.abs(value - value.T).max() > ASYMMETRY:
                self._asymmetric.setdefault(name, Seen()).add(frame.source)
        overlap = found.get("overlap")
        if overlap is not None:
            wrong = np.abs(np.diag(overlap) - 1).max() > 1e-3
            if not wrong and self._number <= DECOMPOSED:
                wrong = np.linalg.eigvalsh((overlap + overlap.T) / 2)[0] <= 0
            if wrong:
                self._overlap.add(frame.source)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say what is wrong with them."""
        for name, seen in self._asymmetric.items():
            text = f"The {name} of {structures(seen.count)} is not symmetric."
            yield self.finding(
                "error", text, "Real orbitals give symmetric matrices: look at reshaping and order.", seen
            )
        if self._sizes:
            text = f"The matrices of {structures(self._sizes.count)} differ in size or are not square."
            yield self.finding("error", text, "Look at the basis and at how the blobs are cut.", self._sizes)
        if self._overlap:
            text = f"The overlap of {structures(self._overlap.count)} is no overlap of normalised functions."
            yield self.finding("error", text, "Its diagonal must be 1 and its eigenvalues positive.", self._overlap)
        if self._number and self._orbitals.residual(self._orbitals.solve()) > 1e-6:
            text = "The sizes of the matrices are no sum over atoms of a number of orbitals for each element."
            yield self.finding("error", text, "Do they mix basis sets, or are some cut?")

    def passed(self) -> str | None:
        """The matrices."""
        bad = self._asymmetric or self._sizes or self._overlap
        return f"matrices of {self._number} structures are symmetric" if self._number and not bad else None
