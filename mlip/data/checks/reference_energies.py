"""Whether the reference energies of the elements are determined, and belong to the structures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import DataError
from mlip.data.atomic_energies import AtomicEnergyFit, check_isolated
from mlip.data.checks.base import Check, Finding, Settings
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable


class ReferenceEnergies(Check):
    """Isolated atoms of the data, or else the rank of the least-squares fit."""

    name = "reference energies"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._fit = AtomicEnergyFit()
        self._source: str | None = None

    def update(self, frame: Frame) -> None:
        """Add an equation, of the training part."""
        energy = frame.label("energy")
        if energy is not None and frame.part == 0:
            self._fit.add(frame.numbers, float(energy))

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Name what is undetermined."""
        elements = self._fit.elements
        if not elements:
            return
        missing = [symbol for symbol in elements if symbol not in table.isolated]
        if table.isolated and missing:
            yield self.finding(
                "error",
                f"There are isolated atoms for {', '.join(sorted(table.isolated))}, but not for {', '.join(missing)}.",
                "Add them; a training refuses to mix isolated atoms and fitted energies.",
            )
        elif table.isolated:
            yield from self._binding(table)
        elif self._fit.rank < len(elements):
            # Where all structures have one composition nothing else can be expected, and nothing else is needed.
            level = "note" if self._fit.rank == 1 else "warning"
            text = f"The compositions determine {self._fit.rank} of {len(elements)} reference energies: "
            text += "; ".join(self._fit.undetermined()) + "."
            advice = (
                "Energies of other compositions will have no meaning. Add isolated atoms (config_type=IsolatedAtom)"
            )
            yield self.finding(level, text, advice + " or structures of other compositions.")
        else:
            self._source = "reference energies of all elements are determined by least squares"

    def passed(self) -> str | None:
        """Where the reference energies come from."""
        return self._source

    def _binding(self, table: FrameTable) -> Iterator[Finding]:
        rows = np.arange(0, len(table), max(1, len(table) // 5000))
        elements = [number for number in sorted(table.elements) if chemical_symbols[number] in table.isolated]
        whole = np.isin(table["formula"][rows], _formulas_of(table, elements))
        rows = rows[whole]
        counts = table.counts(rows, elements)
        isolated = np.array([table.isolated[chemical_symbols[number]] for number in elements])
        binding = (table["energy"][rows] - counts @ isolated) / counts.sum(axis=1)
        try:
            check_isolated(table.isolated, binding)
        except DataError as error:
            yield self.finding("error", str(error))
            return
        unbound = float(np.mean(binding[np.isfinite(binding)] > 0)) if np.isfinite(binding).any() else 0.0
        if unbound > 0.5:
            text = f"{100 * unbound:.0f} % of the structures have a higher energy than their isolated atoms."
            yield self.finding("warning", text, "Are atoms and structures of the same code, settings and reference?")
        self._source = "reference energies are those of isolated atoms in the data"


def _formulas_of(table: FrameTable, elements: list[int]) -> list[int]:
    known = set(elements)
    return [k for k, formula in enumerate(table.compositions) if all(number in known for number, _ in formula)]
