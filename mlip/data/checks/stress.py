"""Stresses that cannot be what they are taken for: zero, lopsided, of another unit, of a structure without volume."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.core.units import GPA, KBAR
from mlip.data.checks.base import Check, Finding, Seen, Settings, structures
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable

LOPSIDED = 0.01
"""Largest difference of off-diagonal components relative to the largest component, above `SMALL`."""

SMALL = 1e-4
"""eV/Å³; differences below it are noise of a DFT code."""

USUAL = 1.0
"""eV/Å³ (160 GPa). A set of which half the structures are above it is no common training set."""


class StressValues(Check):
    """Symmetry, size and sense of stress tensors."""

    name = "stress values"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._lopsided, self._molecules, self._zero = Seen(), Seen(), Seen()
        self._number = 0

    def update(self, frame: Frame) -> None:
        """Look at one tensor."""
        stress = frame.label("stress")
        if stress is None:
            return
        self._number += 1
        largest = np.abs(stress).max()
        difference = np.abs(stress - stress.T).max()
        if difference > SMALL and difference > LOPSIDED * largest:
            self._lopsided.add(frame.source)
        if largest == 0:
            self._zero.add(frame.source)
        elif not frame.atoms.pbc.any():
            self._molecules.add(frame.source)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say what is wrong with them."""
        if self._lopsided:
            text = f"The stress of {structures(self._lopsided.count)} is no symmetric tensor."
            advice = (
                "Look at the order of its components: Voigt order is xx yy zz yz xz xy; VASP prints xx yy zz xy yz zx."
            )
            yield self.finding("error", text, advice, self._lopsided)
        if self._zero:
            text = f"The stress of {structures(self._zero.count)} is exactly zero in all components."
            level = "error" if self._zero.count > 0.01 * self._number else "warning"
            yield self.finding(level, text, "It was probably filled in: remove it where there is none.", self._zero)
        if self._molecules:
            text = f"{structures(self._molecules.count)} without periodic axes have a stress."
            advice = "A molecule has no volume that it could refer to: leave stress out of the labels, or restore pbc."
            yield self.finding("warning", text, advice, self._molecules)
        yield from self._magnitude(table)

    def _magnitude(self, table: FrameTable) -> Iterator[Finding]:
        largest = table["stress_max"]
        largest = largest[np.isfinite(largest) & (largest > 0)]
        if len(largest) < 3:
            return
        middle = float(np.median(largest))
        if middle > USUAL:
            yield self.finding(
                "error",
                f"Half of the structures have a stress above {middle:.3g} eV/Å³, that is {middle / GPA:.0f} GPa. "
                f"As GPa it would be {middle * GPA:.2g} eV/Å³, as kbar {middle * KBAR:.2g} eV/Å³.",
                "Say stress_unit: GPa or kbar (data.dataset.stress_unit=…).",
            )
