"""Whether the spread of a committee tells its errors: how large both are, and whether they go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mlip.core.fields import SPREADS
from mlip.core.units import MEV
from mlip.data.graph import AtomGraph


@dataclass(frozen=True)
class Agreement:
    """Errors and spreads of one field.

    Attributes:
        count: structures (energy) or atoms (forces) that have a label.
        error: root of the mean square of the errors, meV or meV/Å; of forces that of the vectors, not of components.
        spread: root of the mean square of the spreads, in the same unit.
        ratio: error over spread; 1 is calibrated, above the committee is too sure of itself. None without spread.
        correlation: Pearson's, of the size of the error and the spread. None where one of them does not vary.
    """

    count: int
    error: float
    spread: float
    ratio: float | None
    correlation: float | None


@dataclass
class _Moments:
    """Count, means and sums of products of deviations of (error, spread)."""

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(2))
    products: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))

    def add(self, values: np.ndarray) -> None:
        """Add (rows, 2) as Chan, Golub and LeVeque (Am. Stat. 37, 242, 1983): sums of squares would cancel."""
        total = self.count + len(values)
        if total == self.count:
            return
        mean = values.mean(axis=0)
        shift, deviations = mean - self.mean, values - mean
        self.products = (
            self.products + deviations.T @ deviations + np.outer(shift, shift) * (self.count * len(values) / total)
        )
        self.mean = self.mean + shift * (len(values) / total)
        self.count = total

    def agreement(self) -> Agreement:
        """Return the numbers of the report."""
        error, spread = np.sqrt(np.diag(self.products) / self.count + self.mean**2)
        deviations = np.sqrt(np.diag(self.products))
        varies = (deviations > 1e-12 * np.abs(self.mean) * self.count).all() and (deviations > 0).all()
        return Agreement(
            count=self.count,
            error=float(error / MEV),
            spread=float(spread / MEV),
            ratio=float(error / spread) if spread > 0 else None,
            correlation=float(self.products[0, 1] / deviations.prod()) if varies else None,
        )


class Calibration:
    """Collects errors and spreads structure by structure, in memory that does not grow."""

    def __init__(self) -> None:
        self._moments: dict[str, _Moments] = {}

    def add(self, graph: AtomGraph, prediction: Mapping[str, np.ndarray]) -> None:
        """Add one structure with labels and its prediction; what has no label or no spread is left out."""
        for name in ("energy", "forces"):
            label, spread = graph.get(name), prediction.get(SPREADS[name])
            if label is None or spread is None:
                continue
            predicted = np.asarray(prediction[name])
            difference = np.atleast_1d(predicted - label.cpu().numpy().reshape(predicted.shape))
            error = np.abs(difference) if difference.ndim == 1 else np.linalg.norm(difference, axis=1)
            values = np.stack([error, np.atleast_1d(spread)], axis=1)
            self._moments.setdefault(name, _Moments()).add(values[np.isfinite(error)])

    def result(self) -> dict[str, Agreement]:
        """Return the agreement by field; empty for a model without spreads or data without labels."""
        return {name: moments.agreement() for name, moments in self._moments.items() if moments.count}
