"""Labels that are missing, that only a part of the structures has, or that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.core.fields import INPUTS
from mlip.data.checks.base import Check, Finding, Seen, Settings, structures
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable


class Labels(Check):
    """Which labels there are, and which a part of the structures lacks."""

    name = "labels"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._with: dict[str, int] = {}
        self._without: dict[str, Seen] = {}
        self._periodic_without_stress = Seen()
        self._total = 0
        self._unlabelled = Seen()

    def update(self, frame: Frame) -> None:
        """Count the labels."""
        for name in frame.labels:
            if name not in self._without:
                # All structures before this one had none.
                self._without[name] = Seen()
                self._without[name].count = self._total
            self._with[name] = self._with.get(name, 0) + 1
        for name, lacking in self._without.items():
            if name not in frame.labels:
                lacking.add(frame.source)
        if frame.periodic and "stress" not in frame.labels:
            self._periodic_without_stress.add(frame.source)
        if not any(name not in INPUTS for name in frame.labels):
            self._unlabelled.add(frame.source)
        self._total += 1

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Compare the counts with the number of structures."""
        if not self._total:
            yield self.finding("error", "There is no structure to train on.", "Look at the path.")
            return
        if self._unlabelled.count == self._total:
            advice = "Name the keys of the labels, such as data.dataset.energy_key=…"
            yield self.finding("error", "No structure has a label.", advice)
            return
        for name, lacking in self._without.items():
            missing = self._periodic_without_stress if name == "stress" else lacking
            if not missing:
                continue
            level = "warning" if name in ("energy", "forces", "stress") else "note"
            kind = "periodic structures lack a stress" if name == "stress" else f"structures lack {name}"
            yield self.finding(
                level,
                f"{missing.count} of {self._total} {kind}; the others have it.",
                "Losses skip what is missing; make sure that it is missing on purpose and not under another key.",
                missing,
            )
        for name, without in (("energy", "forces"), ("forces", "energy")):
            if name in self._with and without not in self._with:
                yield self.finding("note", f"The structures have {name} but no {without}.")

    def passed(self) -> str | None:
        """The labels."""
        everywhere = [name for name, lacking in self._without.items() if not lacking]
        return f"{', '.join(everywhere)} in all {self._total} structures" if everywhere else None


class Finite(Check):
    """NaN and infinities in positions, cells and labels that the reader let through."""

    name = "not a number"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._seen: dict[str, Seen] = {}

    def update(self, frame: Frame) -> None:
        """Look at every number."""
        values = {"positions": frame.atoms.positions, "cell": frame.atoms.cell.array, **frame.labels}
        for name, value in values.items():
            if not np.isfinite(value).all():
                self._seen.setdefault(name, Seen()).add(frame.source)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Name the field."""
        for name, seen in self._seen.items():
            advice = "Remove or repair these structures: one of them turns a whole model into NaN."
            yield self.finding("error", f"NaN or inf in the {name} of {structures(seen.count)}.", advice, seen)
