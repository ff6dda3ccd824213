"""What a structure must be like to be labelled: a neutral closed-shell molecule in Å."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.core.units import HARTREE
from mlip.data.closed_shell import check_molecule


@dataclass(frozen=True)
class Structure:
    """One structure to be labelled.

    Attributes:
        numbers: (atoms,) int64.
        positions: (atoms, 3) Å.
        file: name of its file.
        frame: in the file, from 0.
        kinetic: energy of its velocities, Hartree; 0 where it has none.
        refused: why it cannot be labelled, "" if it can.
    """

    numbers: np.ndarray
    positions: np.ndarray
    file: str
    frame: int
    kinetic: float = 0.0
    refused: str = ""

    @property
    def source(self) -> str:
        """``file:frame``."""
        return f"{self.file}:{self.frame}"


def structure(atoms: Atoms, file: str, frame: int, any_distance: bool = False) -> Structure:
    """Return a structure, with what speaks against it in ``refused``.

    Args:
        atoms: the structure, Å.
        file: name of its file.
        frame: in the file.
        any_distance: whether the closest atoms may be much closer or farther apart than a bond.
    """
    try:
        _check(atoms, any_distance)
        refused = ""
    except StructureError as error:
        refused = str(error)
    kinetic = atoms.get_kinetic_energy() / HARTREE if "momenta" in atoms.arrays else 0.0
    numbers = np.asarray(atoms.numbers, dtype=np.int64).copy()
    return Structure(numbers, np.array(atoms.positions, dtype=np.float64), file, frame, float(kinetic), refused)


def _check(atoms: Atoms, any_distance: bool) -> None:
    if not np.isfinite(atoms.positions).all():
        raise StructureError("The positions must be finite numbers.")
    if (atoms.numbers < 1).any():
        raise StructureError("It has an atom without an element (X); only elements can be computed.")
    check_molecule(atoms, "only neutral closed-shell molecules can be computed", not any_distance)
