"""Forces and stress against differences of the energy between structures that are close to each other.

Between two neighbouring frames of a relaxation, of dynamics or of an elastic set the energy changes by
−½(F₁ + F₂)·u + ½(V₁σ₁ + V₂σ₂):ε up to third order, with displacements u at constant lattice coordinates and the strain
ε. A wrong sign or unit of forces or stress changes one term by a factor that the data give away.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mlip.core.units import BOHR, GPA, HARTREE, KBAR, KCAL_PER_MOL
from mlip.data.checks.base import EXAMPLES, Check, Finding, Settings
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable

SYSTEMS = 256
"""Compositions of which the last structures are remembered …"""

REMEMBERED = 4
"""… this many of each."""

MAX_PAIRS = 20_000
"""Pairs that are kept."""

FAR_ATOMS = 0.15
"""Å; largest displacement for which the expansion holds."""

FAR_CELLS = 0.06
"""Largest strain for which the expansion holds."""

NOISE = 2e-3
"""eV; smaller differences say nothing."""

FEWEST = 8
"""Pairs that are needed for a statement."""

FORCE_FACTORS = {
    "have the wrong sign": -1.0,
    "are in Hartree/Bohr, the energies in eV": BOHR / HARTREE,
    "are in Hartree/Å, the energies in eV": 1 / HARTREE,
    "are in eV/Bohr": BOHR,
    "are in kcal/mol/Å, the energies in eV": 1 / KCAL_PER_MOL,
    "are in eV/Å, the energies in Hartree": HARTREE,
    "are in eV/Å, the energies in kcal/mol": KCAL_PER_MOL,
    "are gradients in Hartree/Bohr, the energies in eV": -BOHR / HARTREE,
}
"""Force as read over the force that the energies have."""

STRESS_FACTORS = {
    "has the wrong sign": -1.0,
    "is in GPa": 1 / GPA,
    "is in GPa and has the wrong sign": -1 / GPA,
    "is in kbar": 1 / KBAR,
    "is in kbar and has the wrong sign": -1 / KBAR,
    "is in Hartree/Bohr³": BOHR**3 / HARTREE,
    "is in Hartree/Bohr³ and has the wrong sign": -(BOHR**3) / HARTREE,
}
"""Stress as read over the stress that the energies have."""


@dataclass(frozen=True)
class Kept:
    """A structure that later ones are compared with: a frame would drag its neighbour list along."""

    atoms: Atoms
    source: str
    damaged: bool
    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None


class EnergyDifferences(Check):
    """Sign and unit of forces and stress, from pairs of neighbouring structures."""

    name = "energy differences"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._recent: OrderedDict[tuple[tuple[int, int], ...], deque[Kept]] = OrderedDict()
        self._pairs: list[tuple[float, float, float]] = []
        self._sources: list[str] = []
        self._passed: list[str] = []

    def update(self, frame: Frame) -> None:
        """Compare with the last structures of the same composition."""
        energy, forces, stress = (frame.label(name) for name in ("energy", "forces", "stress"))
        if energy is None or (forces is None and stress is None) or len(self._pairs) >= MAX_PAIRS:
            return
        kept = Kept(
            frame.atoms, frame.source, bool(frame.damage), float(energy), forces, stress if frame.periodic else None
        )
        queue = self._recent.pop(frame.composition, None) or deque(maxlen=REMEMBERED)
        for other in queue:
            pair = _compare(other, kept)
            if pair is not None:
                self._pairs.append(pair)
                if len(self._sources) < EXAMPLES:
                    self._sources.append(f"{other.source} and {frame.source}")
        queue.append(kept)
        self._recent[frame.composition] = queue
        if len(self._recent) > SYSTEMS:
            self._recent.popitem(last=False)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Compare the two sides."""
        if not self._pairs:
            return
        change, by_forces, by_stress = np.array(self._pairs).T
        # NaN: a frame without that label. Cells that did not change ask nothing of the stress.
        usable = np.isfinite(by_forces) & np.isfinite(by_stress)
        change, by_forces, by_stress = change[usable], by_forces[usable], by_stress[usable]
        yield from self._judge("The forces", change, by_forces, by_stress, FORCE_FACTORS, "energy_unit and length_unit")
        yield from self._judge(
            "The stress", change, by_stress, by_forces, STRESS_FACTORS, "stress_unit and stress_sign"
        )

    def passed(self) -> str | None:
        """Which derivatives agree with the energies."""
        return "; ".join(self._passed) or None

    def _judge(
        self, what: str, change: np.ndarray, term: np.ndarray, other: np.ndarray, factors: dict[str, float], keys: str
    ) -> Iterator[Finding]:
        """Compare one term with what it must be, in pairs in which the other one hardly counts."""
        with np.errstate(divide="ignore", invalid="ignore"):
            # Whichever unit the term has, the change it should explain is what the other one leaves.
            rest = change - other
            clear = (np.abs(rest) > NOISE) & (np.abs(other) < 0.3 * np.abs(change)) & (term != 0)
            ratio = term[clear] / rest[clear]
        if len(ratio) < FEWEST:
            return
        low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
        if abs(high - low) > 0.5 * abs(middle):
            return
        evidence = f"by the energies of {len(ratio)} pairs of neighbouring structures"
        if abs(middle - 1) < 0.25:
            self._passed.append(f"{what.lower().removeprefix('the ')} {evidence} (ratio {middle:.2f})")
            return
        for text, factor in factors.items():
            if abs(middle / factor - 1) < 0.15:
                yield Finding(
                    "error",
                    self.name,
                    f"{what} {text}: {middle:.3g} times what the energies say, {evidence}.",
                    f"Say {keys} (data.dataset.…) as they are in the file.",
                    len(ratio),
                    tuple(self._sources),
                )
                return
        yield self.finding(
            "warning",
            f"{what}: {middle:.3g} times what the energies say, {evidence}.",
            "Different codes or settings for energies and derivatives, another unit, or energies at another width.",
        )


def _compare(first: Kept, second: Kept) -> tuple[float, float, float] | None:
    """Return the change of energy, and what forces and stress say of it; None if the structures are far apart."""
    one, two = first.atoms, second.atoms
    if not np.array_equal(one.numbers, two.numbers) or not np.array_equal(one.pbc, two.pbc):
        return None
    deformation, strain = np.eye(3), np.zeros((3, 3))
    if one.pbc.all():
        if first.damaged or second.damaged:
            return None
        deformation = np.linalg.solve(one.cell.array, two.cell.array)
        strain = _logarithmic_strain(deformation)
        if np.abs(strain).max() > FAR_CELLS:
            return None
    elif one.pbc.any() and not np.allclose(one.cell.array, two.cell.array):
        return None
    moved = two.positions - one.positions @ deformation
    if one.pbc.all():
        steps = moved @ np.linalg.inv(two.cell.array)
        moved = (steps - np.round(steps)) @ two.cell.array
    if np.abs(moved).max() > FAR_ATOMS:
        return None
    by_forces = by_stress = 0.0
    if np.abs(moved).max() > 1e-6:
        if first.forces is None or second.forces is None:
            return None
        by_forces = -0.5 * float(np.vdot(first.forces + second.forces, moved))
    if np.abs(strain).max() > 1e-6:
        if first.stress is None or second.stress is None:
            return None
        by_stress = 0.5 * float(np.vdot(one.get_volume() * first.stress + two.get_volume() * second.stress, strain))
    return second.energy - first.energy, by_forces, by_stress


def _logarithmic_strain(deformation: np.ndarray) -> np.ndarray:
    """Return ½ log of FᵀF for row vectors that transform as v·F; rotations drop out."""
    values, vectors = np.linalg.eigh(deformation @ deformation.T)
    return 0.5 * (vectors * np.log(np.maximum(values, 1e-12))) @ vectors.T
