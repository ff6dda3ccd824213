"""Constraints that hold nothing but pull: energies and forces that are not the model's."""

from __future__ import annotations

from ase import Atoms
from ase.constraints import ExternalForce, FixConstraint, Hookean, MirrorForce, MirrorTorque

from mlip.core.errors import SimulationError

PULLING = (Hookean, ExternalForce, MirrorForce, MirrorTorque)
"""Constraints of ASE that add forces, or turn them round; the first two add an energy as well."""


def require_no_pull(atoms: Atoms) -> None:
    """Refuse constraints that pull, for a cell that is relaxed: ASE has no stress of them, so no minimum is found.

    Raises:
        SimulationError: names the constraints.
    """
    pulling = [constraint for constraint in atoms.constraints if isinstance(constraint, PULLING)]
    if pulling:
        raise SimulationError(
            f"The cell cannot be relaxed with {_names(pulling)}, whose forces have no stress: take this constraint out "
            "of the structure, or relax the positions only."
        )


def describe_pull(atoms: Atoms) -> str | None:
    """Return a sentence about the energy that constraints add to the model's; None if none of them adds any."""
    adding = [constraint for constraint in atoms.constraints if hasattr(constraint, "adjust_potential_energy")]
    if not adding:
        return None
    energy = sum(float(constraint.adjust_potential_energy(atoms)) for constraint in adding)
    return (
        f"{_names(adding)} adds {energy:.4g} eV to the final structure, which the energies here leave out: they are "
        "the model's, though the relaxation follows the sum, and the largest forces are of the sum."
    )


def _names(constraints: list[FixConstraint]) -> str:
    return " and ".join(dict.fromkeys(type(constraint).__name__ for constraint in constraints))
