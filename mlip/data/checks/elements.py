"""Elements that too few structures have, and numbers of electrons that no multiplicity fits."""

from __future__ import annotations

from collections.abc import Iterator

from ase.data import chemical_symbols

from mlip.data.checks.base import Check, Finding, Seen, Settings, structures
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable

RARE = 10
"""Structures with an element, below which it is rare …"""

MANY = 100
"""… in a set of at least so many."""


class RareElements(Check):
    """Elements in a handful of structures, which a model cannot learn."""

    name = "rare elements"

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """List them."""
        rare = {chemical_symbols[z]: count for z, count in sorted(table.elements.items()) if count < RARE}
        if rare and table.num_seen >= MANY:
            listing = ", ".join(f"{symbol} ({count})" for symbol, count in rare.items())
            text = f"{len(rare)} elements are in fewer than {RARE} structures: {listing}."
            yield self.finding(
                "note", text, "A split may leave them out of training; predictions for them are guesses."
            )


class Electrons(Check):
    """Total charge and multiplicity must leave whole pairs of electrons."""

    name = "charge and spin"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._odd, self._number, self._negative = Seen(), 0, Seen()

    def update(self, frame: Frame) -> None:
        """Count electrons."""
        spin = frame.labels.get("spin")
        if spin is None:
            return
        self._number += 1
        # 0 stands for "not stated" in sets of crystals.
        if int(spin) < 1:
            if int(spin) < 0:
                self._negative.add(frame.source)
            return
        electrons = int(frame.numbers.sum()) - int(frame.labels.get("charge", 0))
        if (electrons - (int(spin) - 1)) % 2:
            self._odd.add(frame.source)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say how many do not fit."""
        if self._negative:
            text = f"The multiplicity of {structures(self._negative.count)} is negative."
            yield self.finding("error", text, "spin is the multiplicity 2S + 1, at least 1.", self._negative)
        if not self._odd:
            return
        text = f"Charge and multiplicity of {structures(self._odd.count)} do not fit the number of electrons."
        all_odd = self._odd.count > 0.9 * self._number
        advice = "spin must be the multiplicity 2S + 1"
        advice += (
            ", and seems to be 2S or the number of unpaired electrons." if all_odd else "; look at the charge, too."
        )
        yield self.finding("error" if all_odd else "warning", text, advice, self._odd)
