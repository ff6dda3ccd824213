"""Cells and periodic axes that do not belong to their atoms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase.data import covalent_radii

from mlip.core.errors import StructureError
from mlip.data.checks.base import Check, Finding, Seen, Settings, structures
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable
from mlip.data.neighbours import neighbour_list

DENSE = 2.0
"""Å³ per atom; no condensed matter at accessible pressures is denser."""

SOLID = 60.0
"""Å³ per atom; in emptier cells no atom is bonded to its image."""

THIN, WIDE = 5.5, 8.0
"""Å; an empty layer between these is more than any packing leaves, and less than separates a surface from its image."""

BOND, BOND_RANGE = 1.25, 4.0
"""Longest bond in sums of covalent radii, and in Å."""

NAMES = {0: "not periodic", 1: "periodic along one axis", 2: "periodic along two axes", 3: "fully periodic"}


class Periodicity(Check):
    """Broken cells, mixed and lost periodic axes, thin layers of vacuum."""

    name = "periodicity"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._kinds: dict[int, Seen] = {}
        self._kinds_of: dict[tuple[tuple[int, int], ...], set[int]] = {}
        self._both, self._lost, self._dense, self._thin, self._broken = Seen(), Seen(), Seen(), Seen(), Seen()
        self._damage = ""

    def update(self, frame: Frame) -> None:
        """Look at cell and axes."""
        axes = int(frame.atoms.pbc.sum())
        self._kinds.setdefault(axes, Seen()).add(frame.source)
        if frame.damage:
            self._broken.add(frame.source)
            self._damage = self._damage or frame.damage
            return
        if len(self._kinds_of) < 100_000 or frame.composition in self._kinds_of:
            kinds = self._kinds_of.setdefault(frame.composition, set())
            kinds.add(int(axes == 0))
            if len(kinds) > 1:
                self._both.add(frame.source)
        if axes == 3 and frame.volume < DENSE * len(frame):
            self._dense.add(frame.source)
        if axes == 0 and _fills_its_cell(frame):
            self._lost.add(frame.source)
        if axes and THIN < (gap := _widest_gap(frame)) < WIDE and gap > self.settings.cutoff:
            self._thin.add(frame.source)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say which kinds there are, and what is odd."""
        if self._broken:
            text = f"{structures(self._broken.count)} cannot be made into a graph: {self._damage}"
            yield self.finding("error", text, "Repair or remove them.", self._broken)
        if self._dense:
            text = f"{structures(self._dense.count, 'have')} less than {DENSE:g} Å³ per atom."
            yield self.finding("error", text, "Is the cell in another unit (nm)?", self._dense)
        if self._lost:
            text = f"{structures(self._lost.count, 'fill')} a cell like a crystal, but no axis is periodic."
            advice = "Were the pbc flags lost when the file was written? Then surfaces are learned as bulk: set pbc."
            yield self.finding("warning", text, advice, self._lost)
        if self._both:
            text = f"{structures(self._both.count)} of one composition are periodic in part and not periodic in part."
            yield self.finding("warning", text, "Are the pbc flags of all files right?", self._both)
        if len(self._kinds) > 1:
            parts = [f"{seen.count} {NAMES[axes]}" for axes, seen in sorted(self._kinds.items())]
            text = f"Mixed periodic axes: {', '.join(parts)}."
            advice = "Stress is only defined for the fully periodic ones."
            rarest = min(self._kinds.values(), key=lambda seen: seen.count)
            yield Finding("note", self.name, text, advice, rarest.count, tuple(rarest.examples))
        if self._thin:
            text = f"{structures(self._thin.count, 'have')} an empty layer of {THIN:g} to {WIDE:g} Å between images."
            advice = "A surface may feel its image in DFT, which a model with a shorter cutoff cannot learn."
            yield self.finding("note", text, advice, self._thin)


def _fills_its_cell(frame: Frame) -> bool:
    """Whether atoms without periodic axes would be bonded to their images along all axes of their cell."""
    cell = frame.atoms.cell.array
    volume = abs(np.linalg.det(cell))
    if len(frame) < 4 or not DENSE * len(frame) < volume < SOLID * len(frame):
        return False
    try:
        senders, receivers, shifts = neighbour_list(frame.atoms.positions, cell, np.ones(3, dtype=bool), BOND_RANGE)
    except StructureError:
        return False
    radii = covalent_radii[frame.numbers]
    vectors = frame.atoms.positions[senders] - frame.atoms.positions[receivers] + shifts @ cell
    bonded = np.linalg.norm(vectors, axis=1) < BOND * (radii[senders] + radii[receivers])
    return bool(shifts[bonded].any(axis=0).all())


def _widest_gap(frame: Frame) -> float:
    """Return the widest empty layer normal to a periodic axis, Å."""
    cell, pbc = frame.atoms.cell.array, frame.atoms.pbc
    if abs(np.linalg.det(cell)) < 1e-6:
        return 0.0
    inverse = np.linalg.inv(cell)
    scaled = np.sort((frame.atoms.positions @ inverse)[:, pbc] % 1.0, axis=0)
    gaps = np.diff(scaled, axis=0, append=scaled[:1] + 1.0).max(axis=0)
    return float((gaps / np.linalg.norm(inverse, axis=0)[pbc]).max())
