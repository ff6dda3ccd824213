"""Atoms that overlap, atoms that nobody is near, and lengths in another unit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.core.units import BOHR
from mlip.data.checks.base import Check, Finding, Seen, Settings, structures
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable

OVERLAP = 0.5
"""Å; closer than any two nuclei in a training set."""

CLOSE = 0.6
"""Of the sum of covalent radii."""

RARE_GASES = frozenset({2, 10, 18, 36, 54, 86})

REMEMBERED = 50_000
"""Nearest distances that are kept for the unit of length."""


class Distances(Check):
    """Shortest distances against covalent radii."""

    name = "distances"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._overlap, self._close = Seen(), Seen()
        self._nearest: list[float] = []
        self._shortest = np.inf

    def update(self, frame: Frame) -> None:
        """Look at the closest pair."""
        if not len(frame.distances):
            return
        distance, relative = frame.distances.min(), frame.relative_distances.min()
        self._shortest = min(self._shortest, float(distance))
        # Atoms of rare gases do not touch.
        if len(self._nearest) < REMEMBERED and not RARE_GASES.issuperset(frame.numbers.tolist()):
            self._nearest.append(float(relative))
        if distance < OVERLAP:
            self._overlap.add(f"{frame.source} ({_pair(frame, frame.distances)})")
        elif relative < CLOSE:
            self._close.add(f"{frame.source} ({_pair(frame, frame.relative_distances)})")

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say how many are too close, and whether all are."""
        middle = float(np.median(self._nearest)) if self._nearest else 1.0
        unit = next(
            (name for name, factor in (("nm", 0.1), ("Bohr", 1 / BOHR)) if abs(middle / factor - 1.1) < 0.25), ""
        )
        if unit and len(self._nearest) >= 3:
            text = f"The nearest neighbours of half the structures are {middle:.2g} sums of covalent radii apart"
            advice = f"Say length_unit: {unit} (data.dataset.length_unit={unit}) if that is the file's."
            yield self.finding("error" if unit == "nm" else "warning", f"{text}: is the length in {unit}?", advice)
            return
        if self._overlap:
            text = f"{structures(self._overlap.count, 'have')} atoms closer than {OVERLAP} Å"
            text += f" (down to {self._shortest:.2g})."
            yield self.finding("error", text, "Remove them, or look at the cell and its unit.", self._overlap)
        if self._close:
            text = f"{structures(self._close.count, 'have')} atoms closer than {CLOSE} of their covalent radii's sum."
            advice = "Fine where collisions are sampled on purpose; otherwise look at them."
            yield self.finding("warning", text, advice, self._close)


class Neighbourless(Check):
    """Structures and atoms without a neighbour at the cutoff."""

    name = "neighbours"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._empty, self._alone = Seen(), Seen()

    def update(self, frame: Frame) -> None:
        """Count the neighbours of each atom."""
        if frame.damage:
            return
        if not len(frame.distances):
            self._empty.add(frame.source)
        elif (lonely := np.flatnonzero(frame.num_neighbours == 0)).size:
            self._alone.add(f"{frame.source} (atom {lonely[0]})")

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say how many there are."""
        cutoff = f"{self.settings.cutoff:g} Å"
        advice = (
            "A model sees free atoms there: constant energy, no force. Raise the cutoff, or leave them out; if they "
            "are free atoms, mark them config_type=IsolatedAtom."
        )
        if self._empty:
            text = f"{structures(self._empty.count, 'have')} no pair of atoms within {cutoff}."
            yield self.finding("warning", text, advice, self._empty)
        if self._alone:
            text = f"{structures(self._alone.count, 'have')} atoms without any neighbour within {cutoff}."
            yield self.finding("warning", text, advice, self._alone)


def _pair(frame: Frame, values: np.ndarray) -> str:
    edge = int(values.argmin())
    symbols = frame.atoms.symbols
    i, j = int(frame.receivers[edge]), int(frame.senders[edge])
    return f"{symbols[i]}{i}-{symbols[j]}{j} {frame.distances[edge]:.3g} Å"
