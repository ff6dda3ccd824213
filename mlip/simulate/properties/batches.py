"""Many evaluations or relaxations of a property at once: one batch with a model, one by one otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import StructureError
from mlip.simulate.relax import RelaxationResult, relax
from mlip.simulate.together import run_together
from mlip.simulate.trajectory import snapshot

Result = TypeVar("Result")


@dataclass(frozen=True)
class Evaluation:
    """What a calculator says about one structure, constraints aside.

    Attributes:
        energy: eV.
        forces: (atoms, 3) eV/Å.
        stress: (6,) eV/Å³ in the order xx yy zz yz xz xy, tension positive; None if it was not asked for.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None

    def attached_to(self, atoms: Atoms) -> Atoms:
        """Return a copy of the structure that holds these results."""
        copy = atoms.copy()
        results = {"energy": self.energy, "forces": self.forces}
        copy.calc = SinglePointCalculator(copy, **results, **({} if self.stress is None else {"stress": self.stress}))
        return copy


def run_all(tasks: Sequence[Callable[[Calculator], Result]], calculator: Calculator) -> list[Result]:
    """Run functions of a calculator, with a model's as one batch, and return what they give, in their order.

    Raises:
        Exception: what the first task that failed raised.
    """
    if not isinstance(calculator, MLIPCalculator):
        return [task(calculator) for task in tasks]
    found: list[Result | None] = [None] * len(tasks)
    for outcome in run_together(tasks, calculator):
        if outcome.error is not None:
            raise outcome.error
        found[outcome.number] = outcome.value
    return found


def evaluate_all(structures: Sequence[Atoms], calculator: Calculator, stress: bool = False) -> list[Evaluation]:
    """Evaluate structures, which are not changed; with ``stress`` their stresses as well.

    Raises:
        StructureError: an energy or a force that is not a number, or a structure that the calculator refuses.
    """
    return run_all([partial(_evaluate, atoms, stress) for atoms in structures], calculator)


def _evaluate(atoms: Atoms, stress: bool, calculator: Calculator) -> Evaluation:
    atoms = atoms.copy()
    atoms.set_constraint()
    atoms.calc = calculator
    # The stress first: a model then computes forces and stress in one pass.
    found = np.array(atoms.get_stress()) if stress else None
    forces, energy = np.array(atoms.get_forces()), float(atoms.get_potential_energy())
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise StructureError(f"The energy ({energy} eV) or a force of a structure of {len(atoms)} atoms is no number.")
    return Evaluation(energy, forces, found)


def relax_all(
    structures: Sequence[Atoms],
    calculator: Calculator,
    fmax: float,
    max_steps: int,
    optimizer: str = "FIRE",
    **cell: bool,
) -> list[RelaxationResult]:
    """Relax structures, which are not changed.

    Energies, forces and the stress of the results do not need the calculator any more.

    Args:
        structures: positions, cells, constraints.
        calculator: of energies and forces, and of the stress if cells are relaxed.
        fmax: eV/Å, limit of the relaxations.
        max_steps: of each.
        optimizer: a name out of :data:`mlip.simulate.relax_optimizers.OPTIMIZERS`.
        cell: ``relax_cell`` and ``fix_volume`` of :func:`mlip.simulate.relax.relax`; only positions without them.

    Raises:
        SimulationError, StructureError: see :func:`mlip.simulate.relax.relax`.
    """
    tasks = [partial(_relax, atoms, fmax, max_steps, optimizer, cell) for atoms in structures]
    return run_all(tasks, calculator)


def _relax(
    atoms: Atoms, fmax: float, max_steps: int, optimizer: str, cell: Mapping[str, bool], calculator: Calculator
) -> RelaxationResult:
    result = relax(atoms, calculator, optimizer=optimizer, fmax=fmax, max_steps=max_steps, **cell)
    # The next structure may get the same calculator.
    return replace(result, atoms=snapshot(result.atoms))


def count_unconverged(results: Sequence[RelaxationResult], what: str) -> tuple[str, ...]:
    """Return a warning if relaxations did not come to their limit."""
    bad = sum(not result.converged for result in results)
    if not bad:
        return ()
    worst = max(result.after.fmax for result in results)
    return (
        f"{bad} of {len(results)} {what} were not converged to {results[0].fmax:g} eV/Å (largest force {worst:.3g}): "
        "allow more steps.",
    )
