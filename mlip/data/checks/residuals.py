"""How far the energy of a structure is from what its composition, and others of the same formula, let expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlip.data.checks.table import FrameTable

FIT_ROWS = 20_000
"""Structures that the energies of the elements are fitted to; a random choice of more."""

OWN_MEDIAN = 8
"""Structures of one formula from which on they are compared among themselves."""

OWN_SCALE = 20
"""Structures of one formula from which on it has a width of its own."""

NARROWEST = 5e-3
"""eV/atom; widths below it are not believed."""


@dataclass(frozen=True)
class EnergyResiduals:
    """Energies against a robust fit.

    Attributes:
        elements: atomic numbers.
        energies: (elements,) eV, of the robust fit.
        residual: (rows,) eV/atom, energy less the fit; NaN without an energy.
        deviation: (rows,) eV/atom, residual less the median of its formula where that has enough structures.
        width: (rows,) eV/atom, the robust standard deviation that a deviation is to be measured by.
    """

    elements: list[int]
    energies: np.ndarray
    residual: np.ndarray
    deviation: np.ndarray
    width: np.ndarray


def energy_residuals(table: FrameTable) -> EnergyResiduals:
    """Fit one energy for each element, insensitive to structures with a wrong one."""
    per_atom = table["energy"] / table["atoms"]
    labelled = np.flatnonzero(np.isfinite(per_atom))
    elements = sorted(table.elements)
    chosen = labelled
    if len(labelled) > FIT_ROWS:
        chosen = np.random.default_rng(0).choice(labelled, FIT_ROWS, replace=False)
    counts = table.counts(chosen, elements)
    energies = robust_fit(counts / counts.sum(axis=1, keepdims=True), per_atom[chosen])
    residual = np.full(len(table), np.nan)
    for block in np.array_split(labelled, len(labelled) // FIT_ROWS + 1):
        counts = table.counts(block, elements)
        residual[block] = per_atom[block] - counts @ energies / np.maximum(counts.sum(axis=1), 1)
    return EnergyResiduals(elements, energies, residual, *_within_formulas(residual, table["formula"], labelled))


def robust_fit(matrix: np.ndarray, target: np.ndarray, iterations: int = 30) -> np.ndarray:
    """Return x with matrix·x ≈ target for most rows; of minimum norm where they do not determine it."""
    weights = np.ones(len(target))
    solution = np.zeros(matrix.shape[1])
    for step in range(iterations if len(target) else 0):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(matrix * root[:, None], target * root, rcond=None)[0]
        error = np.abs(target - matrix @ solution)
        width = max(1.4826 * float(np.median(error)), NARROWEST)
        # Sums of absolute errors first, which cannot get stuck; then rows far outside lose their say.
        weights = 1 / np.maximum(error, width) if step < iterations // 2 else 1 / (1 + (error / (3 * width)) ** 2) ** 2
    return solution


def robust_width(values: np.ndarray) -> float:
    """Return the standard deviation of the bulk of some values about zero.

    From the median, or from the range of all but the outermost 2.5 % on each side where that is wider: of two
    temperatures in one set the smaller one is no outlier.
    """
    if not len(values):
        return 0.0
    cut = max(2, -(-len(values) // 40))
    inner = np.sort(values)[cut:-cut]
    spread = float(np.ptp(inner)) / 3.92 if len(inner) else 0.0
    return max(1.4826 * float(np.median(np.abs(values))), spread)


def _within_formulas(residual: np.ndarray, formula: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    deviation, width = residual.copy(), np.full(len(residual), np.nan)
    order = labelled[np.argsort(formula[labelled], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(formula[order])) + 1) if len(order) else []
    few: list[np.ndarray] = []
    several: list[np.ndarray] = []
    for rows in groups:
        if len(rows) >= OWN_MEDIAN:
            deviation[rows] -= np.median(residual[rows])
        if len(rows) >= OWN_SCALE:
            width[rows] = robust_width(deviation[rows])
        else:
            (several if len(rows) >= OWN_MEDIAN else few).append(rows)
    for pool in (several, few):
        if pool:
            rows = np.concatenate(pool)
            width[rows] = robust_width(deviation[rows])
    return deviation, np.maximum(width, NARROWEST)
