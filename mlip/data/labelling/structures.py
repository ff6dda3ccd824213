"""What a structure must be like to be labelled: a neutral closed-shell molecule in Å."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.core.units import BOHR, HARTREE
from mlip.data.bond_lengths import CLOSEST, closest_atoms
from mlip.data.labels import CANDIDATES

_CLOSED = {"charge": 0, "spin": 1}
_UNPAIRED = 0.5
"""Sum of initial charges (e) or magnetic moments (μB) from which on a molecule is not neutral and closed-shell."""


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
        _check(atoms)
        if len(atoms) > 1 and not any_distance:
            _check_unit(atoms)
        refused = ""
    except StructureError as error:
        refused = str(error)
    kinetic = atoms.get_kinetic_energy() / HARTREE if "momenta" in atoms.arrays else 0.0
    numbers = np.asarray(atoms.numbers, dtype=np.int64).copy()
    return Structure(numbers, np.array(atoms.positions, dtype=np.float64), file, frame, float(kinetic), refused)


def _check(atoms: Atoms) -> None:
    if atoms.pbc.any():
        raise StructureError(
            "Only molecules can be computed, and this structure is periodic: if it is a molecule in a box, set "
            "atoms.pbc = False (pbc='F F F' in extended XYZ)."
        )
    if not np.isfinite(atoms.positions).all():
        raise StructureError("The positions must be finite numbers.")
    if (atoms.numbers < 1).any():
        raise StructureError("It has an atom without an element (X); only elements can be computed.")
    advice = "only neutral closed-shell molecules can be computed"
    for name, closed in _CLOSED.items():
        for key in atoms.info:
            if str(key).lower() in CANDIDATES[name] and _number(atoms.info[key]) != closed:
                raise StructureError(f"It says {key} {atoms.info[key]}, and {advice}, {key} {closed}.")
    for name, unit in (("initial_charges", "e"), ("initial_magmoms", "unpaired electrons")):
        total = float(np.sum(atoms.arrays.get(name, 0.0)))
        if not abs(total) <= _UNPAIRED:
            raise StructureError(f"Its {name} add up to {total:g} {unit}, and {advice}.")


def _check_unit(atoms: Atoms) -> None:
    distance, ratio = closest_atoms(atoms.numbers, atoms.positions)
    found = f"The closest atoms are {distance:.3f} Å apart, {ratio:.2f} times a bond"
    if ratio > CLOSEST[1]:
        raise StructureError(f"{found}: the positions are probably in Bohr, multiply them by {BOHR:.6f} to get Å.")
    if ratio < CLOSEST[0]:
        raise StructureError(f"{found}: atoms overlap, or the positions are in another unit than Å.")


def _number(stated: Any) -> float:
    try:
        return float(stated)
    except (TypeError, ValueError):
        return float("nan")
