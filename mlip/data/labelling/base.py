"""The interface of a program that computes labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlip.core.errors import ConfigError, MlipError, did_you_mean
from mlip.data.labelling.structures import Structure, Takes

FIELDS = ("energy", "forces", "hamiltonian")
"""What can be computed."""


@dataclass(frozen=True)
class Labels:
    """What was computed for one structure, in atomic units.

    Attributes:
        energy: Hartree.
        forces: (atoms, 3) Hartree/Bohr, None if they were not asked for.
        hamiltonian: (orbitals, orbitals) Hartree in the order `mlip` of :mod:`mlip.data.orbitals`, likewise.
        cycles: of the self-consistent field, 0 where there is none.
        stress: (3, 3) Hartree/Bohr³, tension positive; None for what is not periodic, or has none.
    """

    energy: float
    forces: np.ndarray | None
    hamiltonian: np.ndarray | None
    cycles: int
    stress: np.ndarray | None = None


class NotLabelled(MlipError):
    """The calculation of one structure has failed; the message says why."""


class SetupFailed(ConfigError):
    """No structure can be computed: a program is missing, or not set up; the message says what."""


class Labeller(ABC):
    """Computes labels of structures.

    Subclasses are chosen by ``mlip data label --method NAME``, which is ``configs/label/NAME.yaml``; they get
    ``fields`` besides their own options, hold plain values only, and pickle: every process has a copy.

    Attributes:
        fields: what is computed, out of `FIELDS`; ``energy`` always.
        level_of_theory: ``functional`` by our name, ``basis``, and every setting that changes the labels, as plain JSON
            values: all structures of a file agree in it.
        program: name and version of the code.
        takes: which structures can be computed; others are refused before anything begins.
    """

    fields: tuple[str, ...]
    level_of_theory: Mapping[str, Any]
    program: str
    takes: Takes = Takes.closed_shell

    @abstractmethod
    def check(self, numbers: np.ndarray) -> None:
        """Refuse molecules that can never be computed.

        Args:
            numbers: atomic numbers.

        Raises:
            DataError: the basis lacks an element, an odd number of electrons, ….
        """

    @abstractmethod
    def label(self, numbers: np.ndarray, positions: np.ndarray) -> Labels:
        """Compute one structure.

        Args:
            numbers: (atoms,).
            positions: (atoms, 3) Å.

        Raises:
            NotLabelled: it did not converge.
        """

    def check_structure(self, structure: Structure) -> None:
        """Refuse a structure by all that it is, its places apart; `check` where only its elements matter.

        Raises:
            DataError: as `check`.
        """
        self.check(structure.numbers)

    def compute(self, structure: Structure) -> Labels:
        """Compute a structure with its cell, charge and multiplicity; `label` where there is none of these.

        Raises:
            NotLabelled: as `label`.
        """
        return self.label(structure.numbers, structure.positions)


def wanted_fields(fields: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Return fields in the order of `FIELDS`.

    Raises:
        ConfigError: one is unknown, or the energy is not among them.
    """
    for name in fields:
        if name not in FIELDS:
            raise ConfigError(f"What can be computed is {', '.join(FIELDS)}, got '{name}'.{did_you_mean(name, FIELDS)}")
    if "energy" not in fields:
        raise ConfigError(f"fields must have the energy among them, got {list(fields)}.")
    return tuple(name for name in FIELDS if name in fields)
