"""When a simulation has left the range in which its numbers mean anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mlip.simulate.contacts import TOUCHING, closest_contact


@dataclass(frozen=True)
class Limits:
    """Where an MD run is stopped.

    Attributes:
        max_temperature: K.
        closest: fraction of the sum of covalent radii under which two atoms are on top of each other.
    """

    max_temperature: float = 10_000.0
    closest: float = TOUCHING

    def problem(self, atoms: Atoms, temperature: float) -> str | None:
        """Return which limit was passed, or None; costs nothing, for every step."""
        if not (np.isfinite(atoms.positions).all() and np.isfinite(temperature)):
            return "positions or velocities are not finite any more"
        if temperature > self.max_temperature:
            return f"the temperature is {temperature:.0f} K, above the limit of {self.max_temperature:.0f} K"
        return None

    def contact_problem(self, atoms: Atoms) -> str | None:
        """Return which two atoms are on top of each other, or None; makes a neighbour list."""
        contact = closest_contact(atoms, self.closest)
        return None if contact is None else contact.describe(atoms)
