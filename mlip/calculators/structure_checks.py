"""What a calculator refuses to evaluate, each with one sentence on what to do about it."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from mlip.core.errors import ConfigError, StructureError
from mlip.models.base import AtomisticModel

SMALLEST_VOLUME = 1e-3
"""Å³. Below this a cell has no volume that a stress could be divided by."""


class StressUndefinedError(StructureError, PropertyNotImplementedError):
    """The stress was asked for where it has no meaning (ASE expects its own class, the command line ours)."""


def check_structure(atoms: Atoms, model: AtomisticModel) -> None:
    """Refuse a structure whose energy would be meaningless.

    Periodic axes without volume are refused by the neighbour list.

    Args:
        atoms: the structure.
        model: knows its elements.

    Raises:
        StructureError: no atoms, an element the model has not seen, or positions or a cell that are not
            finite.
    """
    if len(atoms) == 0:
        raise StructureError("A structure needs at least one atom, this one has none.")
    model.check_elements(atoms.numbers)
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if bad.size:
        atom = int(bad[0])
        raise StructureError(
            f"Positions must be finite, but {bad.size} of {len(atoms)} atoms have NaN or infinite ones, "
            "the first is "
            f"atom {atom} ({atoms.symbols[atom]}): check the input file, or the step before if this is a "
            "simulation."
        )
    if not np.isfinite(atoms.cell.array).all():
        raise StructureError(f"The cell must be finite, got {atoms.cell.array.tolist()}.")


def given_inputs(model: AtomisticModel, **given: int | None) -> dict[str, int]:
    """Return the inputs that the caller gives, such as the charge of all structures.

    Raises:
        ConfigError: the model does not read one of them: it would have no effect.
    """
    found = {name: value for name, value in given.items() if value is not None}
    for name in found:
        if name not in model.inputs:
            raise ConfigError(
                f"This model does not read the {name} of a structure, it would have no effect: leave it out."
            )
    return found


def unread_charge(atoms: Atoms, model: AtomisticModel) -> str | None:
    """Return what to tell of a charge that the structure states and the model does not read, or None."""
    stated = atoms.info.get("charge")
    if "charge" in model.inputs or stated is None or not np.any(stated):
        return None
    return (
        f"A structure states charge {stated}, which this model does not read: its energies are those of structures "
        "like the ones it was trained on, whatever their charge was."
    )


def stress_problem(atoms: Atoms) -> str | None:
    """Return why this structure has no stress, or None if it has one."""
    if not atoms.pbc.any():
        return (
            "The stress of a molecule is not defined: no axis is periodic. Set atoms.cell and atoms.pbc, "
            "or do not "
            "ask for the stress."
        )
    volume = float(abs(np.linalg.det(atoms.cell.array)))
    if volume < SMALLEST_VOLUME:
        axes = "".join("T" if axis else "F" for axis in atoms.pbc)
        return (
            f"The stress needs a cell with volume, this one has {volume:.3g} Å³ (pbc {axes}). Give the "
            "non-periodic "
            "axes lattice vectors too, for example atoms.center(vacuum=10, axis=2) for a slab."
        )
    return None


def check_stress_defined(atoms: Atoms) -> None:
    """Refuse to give a stress to a molecule or to a cell without volume.

    Raises:
        StressUndefinedError: no periodic axis, or lattice vectors that span no volume.
    """
    problem = stress_problem(atoms)
    if problem is not None:
        raise StressUndefinedError(problem)
