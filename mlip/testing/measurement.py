"""One measured error next to the largest value that is still right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def worst(*errors: float) -> float:
    """Return the largest error; NaN if there is one, which Python's ``max`` may lose."""
    return float(np.max(errors))


@dataclass(frozen=True)
class Measurement:
    """The outcome of a check.

    Attributes:
        name: of the check.
        value: measured error; 0 is perfect, NaN fails.
        tolerance: largest value that passes.
        unit: of both; ``"1"`` for ratios and counts.
        meaning: what goes wrong in a simulation if it fails, in one sentence.
    """

    name: str
    value: float
    tolerance: float
    unit: str = "1"
    meaning: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return bool(self.value <= self.tolerance)
