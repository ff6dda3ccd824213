"""What a Hamiltonian model refuses to predict, each with one sentence on what to do about it."""

from __future__ import annotations

from ase import Atoms

from mlip.calculators.structure_checks import check_structure
from mlip.data import closed_shell
from mlip.models.base import AtomisticModel


def check_molecule(atoms: Atoms, model: AtomisticModel, distances: bool = True) -> None:
    """Refuse what is no neutral closed-shell molecule of the model's elements, in Å.

    Args:
        atoms: the structure.
        model: knows its elements.
        distances: whether the closest atoms must be about a bond apart.

    Raises:
        StructureError: no atoms, an unknown element, positions that are not finite, or as
            :func:`mlip.data.closed_shell.check_molecule`.
    """
    check_structure(atoms, model)
    only = "the model knows neutral closed-shell molecules only"
    closed_shell.check_molecule(atoms, only, distances, "use check_distances=False (--any-distance)")
