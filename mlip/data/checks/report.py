"""What all checks found, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlip.data.checks.base import LEVELS, Finding, Settings
from mlip.data.checks.overview import Overview
from mlip.data.checks.table import FrameTable

LISTED = 10
"""Structures of each kind in the list of outliers."""


@dataclass(frozen=True)
class Report:
    """The result of :func:`mlip.data.checks.run.run_checks`.

    Attributes:
        findings: the worst first.
        passed: what was confirmed by evidence in the data, in words.
        table: a few numbers of every structure, for plots.
        overview: what is in the data.
        settings: that were used.
        num_broken: structures that could not be read.
    """

    findings: list[Finding]
    passed: list[str]
    table: FrameTable
    overview: Overview
    settings: Settings
    num_broken: int

    def count(self, level: str) -> int:
        """Return the number of findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    def outliers(self, number: int = LISTED) -> dict[str, list[dict[str, Any]]]:
        """Return the structures with the largest force, stress and energy residual, whatever their size.

        Each with ``source``, ``value`` (eV/Å, eV/Å³, eV/atom) and ``typical``, the median over the structures.
        """
        if not len(self.table):
            return {}
        columns = {
            "energy residual": np.abs(self.table.energies.deviation),
            "largest force": self.table["force_max"],
            "largest stress component": self.table["stress_max"],
        }
        found = {}
        for name, values in columns.items():
            there = np.flatnonzero(np.isfinite(values))
            rows = there[np.argsort(-values[there], kind="stable")][:number]
            if len(rows):
                typical = float(np.median(values[there]))
                found[name] = [
                    {"source": self.table.source(int(row)), "value": float(values[row]), "typical": typical}
                    for row in rows
                ]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **{f"{level}s": self.count(level) for level in LEVELS},
            "unreadable": self.num_broken,
            "cutoff": self.settings.cutoff,
            "complete": self.settings.complete,
            "findings": [finding.as_dict() for finding in self.findings],
            "passed": self.passed,
            "outliers": self.outliers(),
            "data": self.overview.as_dict(self.table),
        }
