"""What every data set hands out: a structure with its labels, in the package's units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms


@dataclass
class Sample:
    """One labelled structure.

    Attributes:
        atoms: numbers, positions (Å), cell and pbc; no calculator, no constraints.
        labels: by field name: ``energy`` () eV, ``forces`` (atoms, 3) eV/Å, ``stress`` (3, 3) eV/Å³; float64.
        info: ``source`` ("file:frame", frames counted from 0) and ``config_type`` where the file gives one.
    """

    atoms: Atoms
    labels: dict[str, np.ndarray]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the sample came from, for messages."""
        return str(self.info.get("source", "an unnamed structure"))
