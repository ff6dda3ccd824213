"""The crystal a property is computed for: checked, right-handed, without constraints, relaxed on request."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError
from mlip.core.units import GPA
from mlip.simulate.contacts import require_apart
from mlip.simulate.relax import RelaxationResult, relax

SMALL_STRESS = 0.05 * GPA
"""eV/Å³ up to which a crystal counts as free of stress."""

MIN_VOLUME = 1.0
"""Å³ per atom below which a cell is no crystal's."""


def as_crystal(atoms: Atoms, what: str) -> Atoms:
    """Return a copy with the same atoms, a right-handed cell and no constraints or calculator.

    Args:
        atoms: not changed.
        what: is to be computed, for the message, such as ``"An elastic tensor"``.

    Raises:
        SimulationError: not periodic along all axes, no volume, or numbers that are not finite.
        StructureError: atoms overlap.
    """
    if not atoms.pbc.all():
        kind = "a molecule (no axis is periodic)" if not atoms.pbc.any() else f"of pbc {atoms.pbc.tolist()}"
        raise SimulationError(f"{what} is a property of a crystal, periodic along all axes; this structure is {kind}.")
    if not (np.isfinite(atoms.cell.array).all() and np.isfinite(atoms.positions).all()):
        raise SimulationError("Positions or cell of the structure are not finite numbers: is the file damaged?")
    if len(atoms) == 0 or abs(np.linalg.det(atoms.cell.array)) < MIN_VOLUME * len(atoms):
        raise SimulationError(
            f"{what} needs a cell of at least {MIN_VOLUME:g} Å³ per atom; this one of {len(atoms)} atoms has "
            f"{abs(np.linalg.det(atoms.cell.array)):.3g} Å³."
        )
    require_apart(atoms, "In the structure")
    copy = atoms.copy()
    copy.calc = None
    copy.set_constraint()
    if np.linalg.det(copy.cell.array) < 0:
        # The same lattice: with −a also a is a lattice vector. The positions stay where they are.
        copy.set_cell(-copy.cell.array, scale_atoms=False)
    return copy


def require_neutral(atoms: Atoms, calculator: Calculator, what: str) -> None:
    """Refuse a cell with a charge or an open shell, which a repeated one would have several times.

    Models know total charges and multiplicities of cells, mostly of one cell only; what those of a supercell are, and
    what the homogeneous background of a charged one costs, is not for a potential to say.

    Args:
        atoms: states them in ``info``, or does not.
        calculator: may have been given them, as `MLIPCalculator`.
        what: is to be computed, for the message, such as ``"A vacancy"``.

    Raises:
        SimulationError: a charge other than 0, or a multiplicity other than 1.
    """
    given = getattr(calculator, "given", {})
    for name, usual, meaning in (("charge", 0, "neutral"), ("spin", 1, "closed-shell (spin 1)")):
        value = atoms.info.get(name, given.get(name))
        if value is not None and bool(np.any(value != usual)):
            raise SimulationError(
                f"{what} is computed in cells of another size, which is defined for {meaning} crystals only; this one "
                f"has {name} {value}."
            )


def without_constraints(atoms: Atoms) -> tuple[str, ...]:
    """Return the warning that constraints do not count here, if there are any."""
    return ("The constraints of the structure are left out.",) if atoms.constraints else ()


def relaxed_crystal(atoms: Atoms, calculator: Calculator, fmax: float, max_steps: int) -> RelaxationResult:
    """Relax positions and cell.

    Raises:
        SimulationError: not converged; a property at a point that is no minimum would mean nothing.
    """
    result = relax(atoms, calculator, optimizer="LBFGS", fmax=fmax, max_steps=max_steps, relax_cell=True)
    if not result.converged:
        raise SimulationError(
            f"The structure was not relaxed to {fmax:g} eV/Å within {max_steps} steps (largest force "
            f"{result.after.fmax:.3g} eV/Å, stress {result.after.stress_max / GPA:.3g} GPa): allow more steps, or "
            "relax it first with mlip relax --cell."
        )
    return result


def reference_state(
    atoms: Atoms, calculator: Calculator, relax_first: bool, fmax: float, max_steps: int, what: str
) -> Atoms:
    """Return the crystal at its minimum: relaxed on request, otherwise refused unless it is there.

    Args:
        atoms: checked by :func:`as_crystal`.
        calculator: of energies, forces and stress.
        relax_first: relax positions and cell.
        fmax: eV/Å, limit of the relaxation.
        max_steps: of the relaxation.
        what: for the message.

    Raises:
        SimulationError: not relaxed, and not asked to be.
    """
    if relax_first:
        relaxed = relaxed_crystal(atoms, calculator, fmax, max_steps).atoms
        return as_crystal(relaxed, what)
    probe = atoms.copy()
    probe.calc = calculator
    stress, force = np.abs(probe.get_stress()).max(), np.linalg.norm(probe.get_forces(), axis=1).max()
    if stress > SMALL_STRESS or force > max(0.01, 10 * fmax):
        raise SimulationError(
            f"{what} needs a relaxed crystal; in this one stress reaches {stress / GPA:.3g} GPa and forces "
            f"{force:.3g} eV/Å (limits {SMALL_STRESS / GPA:g} GPa, {max(0.01, 10 * fmax):g} eV/Å). Relax it with "
            "--relax."
        )
    return atoms
