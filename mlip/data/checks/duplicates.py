"""Geometries that are there more than once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.data.checks.base import EXAMPLES, Check, Finding, structures
from mlip.data.checks.table import FrameTable

SAME_ENERGY = 1e-3
"""eV/atom by which labels of one geometry may differ: convergence of a DFT code."""

SAME_FORCE = 0.05
"""eV/Å of the root mean square force, likewise."""


class Duplicates(Check):
    """Copies cost time and weigh double; copies with other labels contradict each other."""

    name = "duplicates"

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Look for geometries of the same part with the same, and with other labels."""
        copies, contradictions = 0, 0
        copied: list[str] = []
        contradicted: list[str] = []
        worst = 0.0
        for run in table.geometries.repeated():
            run = run[run["part"] == run["part"][0]]
            if len(run) < 2:
                continue
            energy, force = _range(run["energy"]), _range(run["force"])
            if energy > SAME_ENERGY or force > SAME_FORCE:
                contradictions += 1
                worst = max(worst, energy)
                contradicted += _pair(table, run) if len(contradicted) < EXAMPLES else []
            else:
                copies += len(run) - 1
                copied += _pair(table, run) if len(copied) < EXAMPLES else []
        about = "" if table.geometries.share == 1 else f" (of {100 * table.geometries.share:g} % of the geometries)"
        if contradictions:
            yield Finding(
                "error",
                self.name,
                f"{contradictions} geometries are there twice with different labels{about}, "
                f"by up to {worst:.3g} eV/atom.",
                "Keep the ones of one level of theory: no model can learn both.",
                contradictions,
                contradicted,
            )
        if copies:
            yield Finding(
                "warning",
                self.name,
                f"{structures(copies, 'have')} the geometry and the labels of an earlier one{about}.",
                "Remove them: they weigh double, and a random split puts copies into training and test.",
                copies,
                copied,
            )


def _range(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.ptp(values)) if len(values) else 0.0


def _pair(table: FrameTable, run: np.ndarray) -> list[str]:
    first, second = (table.name(int(entry["part"]), int(entry["number"])) for entry in run[:2])
    return [f"{first} = {second}"]
