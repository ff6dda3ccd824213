"""What a Hamiltonian model refuses to predict, each with one sentence on what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from mlip.calculators.structure_checks import check_structure
from mlip.core.errors import StructureError
from mlip.core.units import BOHR
from mlip.data.bond_lengths import CLOSEST, closest_atoms
from mlip.models.base import AtomisticModel

CLOSED_SHELL = {"charge": 0, "spin": 1, "multiplicity": 1}
"""What a neutral closed-shell molecule may say of itself in ``atoms.info``; spin is the multiplicity 2S + 1."""

_UNPAIRED = 0.5
"""Sum of initial charges (e) or magnetic moments (μB) from which on a molecule is not neutral and closed-shell."""


def check_molecule(atoms: Atoms, model: AtomisticModel, distances: bool = True) -> None:
    """Refuse what is no neutral closed-shell molecule of the model's elements, in Å.

    Args:
        atoms: the structure.
        model: knows its elements.
        distances: whether the closest atoms must be about a bond apart.

    Raises:
        StructureError: no atoms, an unknown element, positions that are not finite, periodicity, a charge, unpaired
            electrons, or positions that are probably in Bohr.
    """
    check_structure(atoms, model)
    if atoms.pbc.any():
        axes = ", ".join(axis for axis, periodic in zip("abc", atoms.pbc) if periodic)
        raise StructureError(
            f"Hamiltonian models predict molecules, this structure is periodic along {axes}: if it is a molecule in a "
            "box, set atoms.pbc = False (pbc='F F F' in extended XYZ)."
        )
    _check_closed_shell(atoms)
    if distances and len(atoms) > 1:
        _check_unit(atoms)


def _check_closed_shell(atoms: Atoms) -> None:
    advice = "the model knows neutral closed-shell molecules only"
    for name, closed in CLOSED_SHELL.items():
        stated = atoms.info.get(name)
        if stated is not None and _number(stated) != closed:
            meaning = "" if name == "charge" else " (the multiplicity 2S + 1)"
            raise StructureError(f"The structure says {name} {stated}{meaning}, and {advice}, {name} {closed}.")
    for name, unit in (("initial_charges", "e"), ("initial_magmoms", "unpaired electrons")):
        total = float(np.sum(atoms.arrays.get(name, 0.0)))
        if abs(total) > _UNPAIRED:
            raise StructureError(f"The {name} of the structure add up to {total:g} {unit}, and {advice}.")
    electrons = int(atoms.numbers.sum())
    if electrons % 2:
        raise StructureError(
            f"{atoms.get_chemical_formula()} has an odd number of electrons, {electrons}, and {advice}: is an atom "
            "missing?"
        )


def _number(stated: Any) -> float:
    try:
        return float(stated)
    except (TypeError, ValueError):
        return float("nan")


def _check_unit(atoms: Atoms) -> None:
    distance, ratio = closest_atoms(atoms.numbers, atoms.positions)
    found = f"The closest atoms are {distance:.3f} Å apart, {ratio:.2f} times a bond"
    overrule = "; if they are right, use check_distances=False (--any-distance)"
    if ratio > CLOSEST[1]:
        raise StructureError(
            f"{found}: the positions are probably in Bohr, multiply them by {BOHR:.6f} to get Å{overrule}."
        )
    if ratio < CLOSEST[0]:
        raise StructureError(f"{found}: do atoms overlap, or are the positions in another unit than Å{overrule}?")
