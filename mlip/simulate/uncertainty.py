"""How sure a committee is of the structure that a simulation has come to."""

from __future__ import annotations

import math

from ase import Atoms

from mlip.core.fields import SPREADS


def spreads(atoms: Atoms) -> tuple[float, float]:
    """Return the spread of the energy (eV) and the largest one of the forces on an atom (eV/Å).

    The calculator then has the spreads of all atoms in its results. NaN if it is no committee.
    """
    energy, forces = SPREADS["energy"], SPREADS["forces"]
    if not {energy, forces} <= set(getattr(atoms.calc, "implemented_properties", ())):
        return math.nan, math.nan
    largest = float(atoms.calc.get_property(forces, atoms).max())
    return float(atoms.calc.get_property(energy, atoms)), largest
