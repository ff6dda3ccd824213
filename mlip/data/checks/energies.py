"""Energies that are far from all others, or that look like another unit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.core.units import HARTREE, KCAL_PER_MOL
from mlip.data.checks.base import EXAMPLES, Check, Finding, Settings, structures
from mlip.data.checks.residuals import NARROWEST, robust_fit, robust_width
from mlip.data.checks.table import FrameTable

FAR = 20.0
"""Widths of the distribution from which on an energy is an outlier …"""

FAR_AT_LEAST = 0.25
"""… if it is this far as well, eV/atom."""

UNPHYSICAL = 15.0
"""eV/atom: more than any bond or any compression that a training set has."""

LEVEL_TOLERANCE = 0.05
"""How well the energies of free atoms below must fit for a unit to be named."""

HEAVY_SHARE = 0.9
"""Share of carbon and heavier elements in the estimate, below which it is not accurate enough."""

FEWEST = 8
"""Structures that are needed to see whether energies grow with their size."""

DIVIDED = 0.3
"""Width of the energies over that of the energies per atom, both less a fit, below which they are per atom already."""


class EnergyOutliers(Check):
    """Energies per atom against a robust least-squares fit and against other structures of the same formula."""

    name = "energy outliers"

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Name structures that are far outside the distribution."""
        if not len(table):
            return
        fit = table.energies
        size = np.abs(fit.deviation)
        with np.errstate(invalid="ignore"):
            far = np.flatnonzero((size > FAR * fit.width) & (size > FAR_AT_LEAST) & (size <= UNPHYSICAL))
            wild = np.flatnonzero(size > UNPHYSICAL)
        for rows, level, word in ((wild, "error", "unphysically far"), (far, "warning", "far")):
            if len(rows):
                rows = rows[np.argsort(-size[rows])]
                yield Finding(
                    level,
                    self.name,
                    f"The energy of {structures(len(rows))} is {word} from that of comparable ones, the worst "
                    f"{fit.deviation[rows[0]]:+.3g} eV/atom.",
                    "Look at them: failed SCF, another code or unit, a wrong composition; remove or repair them.",
                    len(rows),
                    [table.source(row) for row in rows[:EXAMPLES]],
                )


class EnergyUnit(Check):
    """All-electron total energies come close to sums over free atoms, which names their unit."""

    name = "energy unit"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._confirmed = False

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say if the numbers are total energies in another unit than eV."""
        rows = np.flatnonzero(np.isfinite(table["energy"]))
        rows = rows[:: max(1, len(rows) // 5000)]
        elements = sorted(table.elements)
        terms = table.counts(rows, elements) * free_atom_energy(np.array(elements, dtype=float))
        total = terms.sum(axis=1)
        heavy = terms[:, np.array(elements) >= 5].sum(axis=1) > HEAVY_SHARE * total
        if not heavy.any():
            return
        ratio = float(np.median(-table["energy"][rows][heavy] / total[heavy]))
        self._confirmed = _near(ratio, HARTREE)
        # ratio × unit is a Hartree.
        for name, unit in (
            ("Hartree", HARTREE),
            ("Rydberg", HARTREE / 2),
            ("kcal/mol", KCAL_PER_MOL),
            ("kJ/mol", KCAL_PER_MOL / 4.184),
            ("meV", 1e-3),
        ):
            if _near(ratio * unit, HARTREE):
                yield self.finding(
                    "error",
                    f"The energies are read as eV, but they are all-electron total energies in {name}: their "
                    f"sum over free atoms fits {name} to {100 * abs(ratio * unit / HARTREE - 1):.1f} %.",
                    f"Say energy_unit: {name} (data.dataset.energy_unit={name}); look at the unit of the forces, too.",
                )

    def passed(self) -> str | None:
        """Total energies of all electrons in eV."""
        return "energies are all-electron totals in eV" if self._confirmed else None


class EnergyPerAtom(Check):
    """Energies that do not grow with the number of atoms: somebody has divided them by it."""

    name = "energy per atom"

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Compare how well energies, and energies over the number of atoms, follow from the elements' shares."""
        rows = np.flatnonzero(np.isfinite(table["energy"]))
        rows = rows[:: max(1, len(rows) // 5000)]
        if len(rows) < FEWEST:
            return
        counts = table.counts(rows, sorted(table.elements))
        sizes = counts.sum(axis=1)
        shares, energies = counts / sizes[:, None], table["energy"][rows]
        as_read, divided = (
            max(robust_width(values - shares @ robust_fit(shares, values)), NARROWEST)
            for values in (energies, energies / sizes)
        )
        if as_read < DIVIDED * divided:
            yield self.finding(
                "error",
                f"The energies do not grow with the number of atoms: as they are, they follow from the composition to "
                f"{as_read:.2g} eV, divided by the number of atoms to {divided:.2g} eV only.",
                "They are energies per atom already: write total energies into the file.",
            )


def free_atom_energy(number: np.ndarray) -> np.ndarray:
    """Return −E of the free neutral atom in Hartree, all electrons, by Schwinger's formula; 1 % from carbon on."""
    return 0.768745 * number ** (7 / 3) - 0.5 * number**2 + 0.269900 * number ** (5 / 3)


def _near(value: float, wanted: float) -> bool:
    return abs(value / wanted - 1) < LEVEL_TOLERANCE
