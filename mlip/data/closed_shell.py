"""Whether a structure is a neutral closed-shell molecule in Å, by all that it says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.core.units import BOHR
from mlip.data.bond_lengths import CLOSEST, closest_atoms
from mlip.data.labels import CANDIDATES

_CLOSED = {"charge": 0, "spin": 1}
_UNPAIRED = 0.5
"""Sum of initial charges (e) or magnetic moments (μB) from which on a molecule is not neutral and closed-shell."""


def check_molecule(atoms: Atoms, only: str, distances: bool = True, overrule: str = "") -> None:
    """Refuse what is no neutral closed-shell molecule in Å.

    Args:
        atoms: the structure, of finite positions.
        only: that no others can be taken, as a clause of the sentence.
        distances: whether the closest atoms must be about a bond apart.
        overrule: how to have other distances taken; "" for not at all.

    Raises:
        StructureError: periodicity, a charge, unpaired electrons, an odd number of electrons, or positions that are
            probably in Bohr.
    """
    if atoms.pbc.any():
        axes = ", ".join(axis for axis, periodic in zip("abc", atoms.pbc) if periodic)
        raise StructureError(
            f"The structure is periodic along {axes}, and {only}: if it is a molecule in a box, set atoms.pbc = False "
            "(pbc='F F F' in extended XYZ)."
        )
    _check_electrons(atoms, only)
    if distances and len(atoms) > 1:
        check_distances(atoms, overrule)


def stated_electrons(atoms: Atoms) -> dict[str, Any]:
    """Return what a structure states of its charge and multiplicity in ``info``, whatever it calls them."""
    known = {key for name in _CLOSED for key in CANDIDATES[name]}
    return {key: value for key, value in atoms.info.items() if value is not None and str(key).lower() in known}


def _check_electrons(atoms: Atoms, only: str) -> None:
    for key, value in stated_electrons(atoms).items():
        name = next(name for name in _CLOSED if str(key).lower() in CANDIDATES[name])
        if _number(value) != _CLOSED[name]:
            meaning = "" if name == "charge" else " (the multiplicity 2S + 1)"
            raise StructureError(f"The structure says {key} {value}{meaning}, and {only}, {key} {_CLOSED[name]}.")
    for name, unit in (("initial_charges", "e"), ("initial_magmoms", "unpaired electrons")):
        total = float(np.sum(atoms.arrays.get(name, 0.0)))
        # Not a number is not zero either.
        if not abs(total) <= _UNPAIRED:
            raise StructureError(f"The structure's {name} add up to {total:g} {unit}, and {only}.")
    electrons = int(atoms.numbers.sum())
    if electrons % 2:
        raise StructureError(
            f"{atoms.get_chemical_formula()} has an odd number of electrons, {electrons}, and {only}: is an atom "
            "missing?"
        )


def check_distances(atoms: Atoms, overrule: str = "") -> None:
    """Refuse a molecule of at least two atoms whose closest ones are no bond apart, see `check_molecule`.

    Raises:
        StructureError: positions that are probably in Bohr, or atoms that overlap.
    """
    distance, ratio = closest_atoms(atoms.numbers, atoms.positions)
    found = f"The closest atoms are {distance:.3f} Å apart, {ratio:.2f} times a bond"
    tail = f"; if they are right, {overrule}" if overrule else ""
    if ratio > CLOSEST[1]:
        raise StructureError(
            f"{found}: the positions are probably in Bohr, multiply them by {BOHR:.6f} to get Å{tail}."
        )
    if ratio < CLOSEST[0]:
        raise StructureError(f"{found}: do atoms overlap, or are the positions in another unit than Å{tail}?")


def _number(stated: Any) -> float:
    try:
        return float(stated)
    except (TypeError, ValueError):
        return float("nan")
