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
        labels: by name out of :data:`mlip.core.fields.DATA_FIELDS`: ``energy`` () eV, ``forces`` (atoms, 3) eV/Å,
            ``stress`` (3, 3) eV/Å³, …, ``hamiltonian`` (orbitals, orbitals) Hartree; float64. Inputs such as ``charge``
            and ``tags`` are here, too; int64 or bool. What is not known is not there: no zeros, no NaN.
        info: plain JSON values: ``source`` ("file:frame", frames counted from 0), and where known ``config_type``,
            ``group`` (frames of one group, such as a trajectory, belong into one part of a split), ``basis`` of
            matrices, and what else the data set documents.
        isolated: a single atom that is there for its energy, not to train on.
    """

    atoms: Atoms
    labels: dict[str, np.ndarray]
    info: dict[str, Any] = field(default_factory=dict)
    isolated: bool = False

    @property
    def source(self) -> str:
        """Where the sample came from, for messages."""
        return str(self.info.get("source", "an unnamed structure"))
