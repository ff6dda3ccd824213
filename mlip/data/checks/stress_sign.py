"""The sign and the unit of the stress, from how it changes with volume: a compressed crystal pushes outwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np

from mlip.core.units import GPA
from mlip.data.checks.base import EXAMPLES, Check, Finding, Settings
from mlip.data.checks.table import FrameTable

FEWEST = 4
"""Structures of a group."""

STEP = 0.01
"""Least difference of the logarithm of two volumes that are compared."""

AGREE = 0.5
"""(pairs with one sign − pairs with the other) / pairs from which on a group has an opinion."""

MOST = 200
"""Structures of a group that are compared with each other."""

STIFF = 6.0
"""eV/Å³ (960 GPa): no crystal is as stiff."""

SOFT = 0.005
"""eV/Å³ (0.8 GPa): no crystal but of rare gases is as soft."""

STRONG_STRESS = 0.1
"""eV/Å³ (16 GPa). Matter bears more compression than this, but hardly more tension."""


@dataclass(frozen=True)
class Vote:
    """What one group of structures says: agreement from −1 to 1, and the bulk modulus in eV/Å³."""

    agreement: float
    modulus: float
    rows: np.ndarray


class StressSign(Check):
    """In groups of one composition, tension must grow with volume, by a plausible bulk modulus.

    A group is the structures of one reduced formula with one ``group`` and ``config_type``; where these are too few,
    all structures of the formula.
    """

    name = "stress sign"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._passed: str | None = None

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Count the votes."""
        votes = self._votes(table)
        right = [vote for vote in votes if vote.agreement > AGREE]
        wrong = [vote for vote in votes if vote.agreement < -AGREE]
        advice = (
            "In ASE's convention tension is positive; VASP's own output has the opposite sign: say stress_sign: -1 "
            "(data.dataset.stress_sign=-1)."
        )
        if len(wrong) > len(right) and (len(wrong) > 1 or len(wrong[0].rows) >= 6):
            rows = np.concatenate([vote.rows for vote in wrong])
            text = f"The stress has the wrong sign: it falls with volume in {len(wrong)} of {len(votes)} groups"
            text += " of one composition, so a compressed crystal would pull inwards."
            examples = [table.source(row) for row in rows[:EXAMPLES]]
            yield Finding("error", self.name, text, advice, len(rows), examples)
        elif len(wrong) >= 3 and len(wrong) > 0.2 * len(votes):
            text = f"In {len(wrong)} of {len(votes)} groups of one composition the stress falls with volume."
            yield self.finding("warning", text, "Do the files mix two sign conventions? " + advice)
        elif right:
            moduli = np.median([vote.modulus for vote in right]) / GPA
            self._passed = f"sign of the stress, in {len(right)} of {len(votes)} groups (stiffness {moduli:.0f} GPa)"
        elif not votes:
            yield from self._by_extremes(table, advice)
        for finding in self._unit(right or wrong):
            self._passed = None
            yield finding

    def passed(self) -> str | None:
        """The sign, if the data show it."""
        return self._passed

    def _unit(self, votes: list[Vote]) -> Iterator[Finding]:
        if not votes:
            return
        modulus = float(np.median([vote.modulus for vote in votes]))
        if modulus > STIFF or 0 < modulus < SOFT:
            yield self.finding(
                "error" if modulus > STIFF else "warning",
                f"From volume and stress the bulk modulus comes out as {modulus / GPA:.3g} GPa, so the stress has "
                f"another unit: read as GPa it would be {modulus:.3g} GPa, read as kbar {modulus / 10:.3g} GPa.",
                "Say stress_unit: GPa, kbar or eV/A^3 (data.dataset.stress_unit=…).",
            )

    def _by_extremes(self, table: FrameTable, advice: str) -> Iterator[Finding]:
        """Where no two structures can be compared: strong stresses are compressions."""
        tension = table["tension"]
        strong = tension[np.abs(np.nan_to_num(tension)) > STRONG_STRESS]
        if len(strong) < 20:
            return
        positive = float(np.mean(strong > 0))
        if positive > 0.8:
            text = f"{100 * positive:.0f} % of the strong stresses are tension, which matter hardly bears."
            yield self.finding("warning", text, advice)
        elif positive < 0.2:
            self._passed = f"sign of the stress ({100 - 100 * positive:.0f} % of the strong ones are compression)"

    @staticmethod
    def _votes(table: FrameTable) -> list[Vote]:
        usable = np.flatnonzero(np.isfinite(table["tension"]) & (table["volume"] > 0))
        log_volume = np.log(np.where(table["volume"] > 0, table["volume"], 1) / table["atoms"])
        reduced = _reduced_formulas(table)[table["formula"][usable]]
        votes: list[Vote] = []
        left: list[np.ndarray] = []
        for key in (np.stack([reduced, table["group"][usable]], axis=1), reduced[:, None]):
            _, which = np.unique(key, axis=0, return_inverse=True)
            order = np.argsort(which.reshape(-1), kind="stable")
            ends = np.flatnonzero(np.diff(which.reshape(-1)[order])) + 1
            left = []
            for members in np.split(order, ends) if len(order) else []:
                rows = usable[members]
                vote = _vote(log_volume[rows], table["tension"][rows], rows) if len(rows) >= FEWEST else None
                if vote is not None:
                    votes.append(vote)
                else:
                    left.append(members)
            if not left or votes:
                break
        return votes


def _vote(log_volume: np.ndarray, tension: np.ndarray, rows: np.ndarray) -> Vote | None:
    """Compare all pairs of a group; None if too few differ in volume."""
    if len(rows) > MOST:
        chosen = np.random.default_rng(0).choice(len(rows), MOST, replace=False)
        log_volume, tension, rows = log_volume[chosen], tension[chosen], rows[chosen]
    first, second = np.triu_indices(len(rows), 1)
    step = log_volume[second] - log_volume[first]
    apart = np.abs(step) > STEP
    if apart.sum() < FEWEST - 1:
        return None
    slopes = (tension[second] - tension[first])[apart] / step[apart]
    return Vote(float(np.sign(slopes).mean()), float(abs(np.median(slopes))), rows)


def _reduced_formulas(table: FrameTable) -> np.ndarray:
    """Return (formulas,) a number for each formula that Si2 and Si8 share."""
    numbers: dict[tuple[tuple[int, int], ...], int] = {}
    found = []
    for composition in table.compositions:
        divisor = gcd(*(count for _, count in composition))
        reduced = tuple((number, count // divisor) for number, count in composition)
        found.append(numbers.setdefault(reduced, len(numbers)))
    return np.array(found, dtype=np.int64)
