"""What a structure must be like to be labelled: mostly a molecule in Å whose electrons are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.core.units import HARTREE
from mlip.data.closed_shell import check_distances, check_molecule, stated_electrons
from mlip.data.labels import CANDIDATES


class Takes(StrEnum):
    """Which structures can be computed."""

    closed_shell = "neutral closed-shell molecules"
    molecules = "molecules"
    anything = "anything"


CARRIED = ("initial_magmoms", "initial_charges", "tags")
"""Arrays of ASE that a calculator may begin with, or tell atoms apart by."""

_LABEL_KEYS = {key for keys in CANDIDATES.values() for key in keys}


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
        cell: (3, 3) Å, None for a molecule.
        pbc: of the three axes.
        charge: total, e.
        spin: multiplicity 2S + 1.
        stated: which of charge and spin the file or the user has named.
        info: plain numbers and texts of the file that are no labels, to be kept.
        arrays: those of `CARRIED` that are not zero everywhere, (atoms,) or (atoms, 3); none of a method that is for
            molecules.
    """

    numbers: np.ndarray
    positions: np.ndarray
    file: str
    frame: int
    kinetic: float = 0.0
    refused: str = ""
    cell: np.ndarray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    charge: int = 0
    spin: int = 1
    stated: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """``file:frame``."""
        return f"{self.file}:{self.frame}"

    @property
    def atoms(self) -> Atoms:
        """The structure for ASE, with charge and spin in ``info`` if they are stated, and its arrays."""
        atoms = Atoms(self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info = {name: getattr(self, name) for name in self.stated}
        for name, values in self.arrays.items():
            atoms.set_array(name, values)
        return atoms


def structure(
    atoms: Atoms,
    file: str,
    frame: int,
    any_distance: bool = False,
    takes: Takes = Takes.closed_shell,
    given: Mapping[str, int | None] | None = None,
) -> Structure:
    """Return a structure, with what speaks against it in ``refused``.

    Args:
        atoms: the structure, Å.
        file: name of its file.
        frame: in the file.
        any_distance: whether the closest atoms may be much closer or farther apart than a bond.
        takes: what can be computed.
        given: charge and spin of structures that do not state them.
    """
    electrons: dict[str, int] = {}
    try:
        _check(atoms, any_distance, takes)
        if takes is not Takes.closed_shell:
            electrons = _electrons(atoms, given or {}, molecule=takes is Takes.molecules)
        refused = ""
    except StructureError as error:
        refused = str(error)
    kinetic = atoms.get_kinetic_energy() / HARTREE if "momenta" in atoms.arrays else 0.0
    return Structure(
        np.asarray(atoms.numbers, dtype=np.int64).copy(),
        np.array(atoms.positions, dtype=np.float64),
        file,
        frame,
        float(kinetic),
        refused,
        cell=np.array(atoms.cell.array) if atoms.pbc.any() else None,
        pbc=tuple(atoms.pbc.tolist()),
        **electrons,
        stated=tuple(electrons),
        info={} if takes is Takes.closed_shell else _kept(atoms.info),
        arrays=_carried(atoms) if takes is Takes.anything else {},
    )


def _check(atoms: Atoms, any_distance: bool, takes: Takes) -> None:
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError("The positions must be finite numbers.")
    if (atoms.numbers < 1).any():
        raise StructureError("It has an atom without an element (X); only elements can be computed.")
    for name in CARRIED if takes is Takes.anything else ():
        if not np.isfinite(atoms.arrays.get(name, 0.0)).all():
            raise StructureError(f"Its {name} must be finite numbers.")
    if takes is Takes.closed_shell:
        check_molecule(atoms, f"only {takes} can be computed", not any_distance)
    elif takes is Takes.molecules:
        if atoms.pbc.any():
            raise StructureError(
                "The structure is periodic, and only molecules can be computed: if it is one in a box, set atoms.pbc = "
                "False (pbc='F F F' in extended XYZ); for crystals use --ase with a program that knows them."
            )
        if not any_distance and len(atoms) > 1:
            check_distances(atoms)


def _electrons(atoms: Atoms, given: Mapping[str, int | None], molecule: bool) -> dict[str, int]:
    """Return charge and spin as far as they are stated."""
    found: dict[str, int] = {}
    for key, value in stated_electrons(atoms).items():
        name = "charge" if str(key).lower() in CANDIDATES["charge"] else "spin"
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not number.is_integer():
            raise StructureError(f"The structure says {key} {value}, which must be a whole number.")
        if found.setdefault(name, int(number)) != int(number):
            raise StructureError(f"The structure says {name} {found[name]}, and {key} {value}: which one is right?")
    for name, value in given.items():
        if value is not None and found.setdefault(name, value) != value:
            raise StructureError(f"The structure says {name} {found[name]}, and --{name} {value}: which one is right?")
    if found.get("spin", 1) < 1:
        raise StructureError(f"The multiplicity 2S + 1 must be 1 or more, got spin {found['spin']}.")
    if molecule:
        _check_parity(atoms, found)
    return found


def _check_parity(atoms: Atoms, found: Mapping[str, int]) -> None:
    for name, array in (("charge", "initial_charges"), ("spin", "initial_magmoms")):
        total = float(np.sum(atoms.arrays.get(array, 0.0)))
        if name not in found and not abs(total) <= 0.5:
            raise StructureError(f"The structure's {array} add up to {total:g}, and it states no {name} in its info.")
    electrons = int(atoms.numbers.sum()) - found.get("charge", 0)
    if electrons % 2 and "spin" not in found:
        raise StructureError(
            f"{atoms.get_chemical_formula()} with charge {found.get('charge', 0)} has an odd number of electrons, "
            f"{electrons}: state its charge, or the multiplicity (spin=2), in its info, or with --charge and --spin."
        )


def _carried(atoms: Atoms) -> dict[str, np.ndarray]:
    found = {name: np.array(atoms.arrays[name]) for name in CARRIED if name in atoms.arrays}
    return {name: values for name, values in found.items() if values.any()}


def _kept(info: Mapping[str, Any]) -> dict[str, Any]:
    plain = {str(key): value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
    return {
        key: value
        for key, value in plain.items()
        if isinstance(value, bool | int | float | str) and value == value and key.lower() not in _LABEL_KEYS
    }
