"""What a relaxation is asked for, and what it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate.ensembles import require_positive
from mlip.simulate.relax_optimizers import optimizer_name
from mlip.simulate.relax_symmetry import SYMPREC, SpaceGroup


@dataclass(frozen=True)
class RelaxOptions:
    """How structures are relaxed.

    Attributes:
        optimizer: a name out of :data:`mlip.simulate.relax_optimizers.OPTIMIZERS`, in any case.
        fmax: eV/Å; converged when the largest force is below. The force on the cell is the virial per atom.
        max_steps: give up after this many steps.
        relax_cell: relax the cell as well.
        fix_volume: its shape only, at the volume it has.
        pressure: target, GPa; for cells that are periodic along all axes.
        keep_symmetry: refine the symmetry, and keep it.
        refine_symmetry: refine the symmetry of the starting structure.
        symprec: Å by which atoms may be off the places that symmetry gives them.

    Raises:
        ConfigError: unknown optimizer.
        SimulationError: numbers that make no sense, or options that exclude each other.
    """

    optimizer: str = "FIRE"
    fmax: float = 0.05
    max_steps: int = 500
    relax_cell: bool = False
    fix_volume: bool = False
    pressure: float = 0.0
    keep_symmetry: bool = False
    refine_symmetry: bool = False
    symprec: float = SYMPREC

    def __post_init__(self) -> None:
        require_positive(fmax=self.fmax, number_of_steps=self.max_steps, symprec=self.symprec)
        object.__setattr__(self, "optimizer", optimizer_name(self.optimizer))
        if not math.isfinite(self.pressure):
            raise SimulationError(f"The pressure must be a finite number of GPa, got {self.pressure}.")
        if self.fix_volume and not self.relax_cell:
            raise ConfigError("A fixed volume is about a cell that is relaxed: add --cell (in Python: relax it).")
        if self.fix_volume and self.pressure != 0:
            raise SimulationError(
                f"At fixed volume the pressure cannot be chosen, got {self.pressure} GPa: leave one of them out."
            )


@dataclass(frozen=True)
class RelaxationStep:
    """One line of a relaxation's history.

    Attributes:
        step: 0 is the starting structure.
        energy: eV.
        fmax: largest force on a free atom, eV/Å.
        stress_max: largest deviation of a relaxed stress component from the target, eV/Å³; None if the cell
            is fixed.
        volume: Å³; None unless periodic along all axes.
        energy_std: eV, spread of a committee; None for a single model.
        forces_std: eV/Å, its largest spread of the forces on an atom.
    """

    step: int
    energy: float
    fmax: float
    stress_max: float | None
    volume: float | None
    energy_std: float | None = None
    forces_std: float | None = None


@dataclass(frozen=True)
class RelaxationResult:
    """How a relaxation went.

    Attributes:
        atoms: the relaxed structure, with the calculator attached.
        history: one entry a step, the starting structure included.
        converged: whether all forces (and the scaled stress) came below the limit.
        fmax: the limit, eV/Å.
        optimizer: its name.
        warnings: sentences about what looks wrong.
        space_groups: before and after; None for what is no crystal, or without spglib, or where nobody asked.
    """

    atoms: Atoms
    history: tuple[RelaxationStep, ...]
    converged: bool
    fmax: float
    optimizer: str
    warnings: tuple[str, ...]
    space_groups: tuple[SpaceGroup | None, SpaceGroup | None] = (None, None)

    @property
    def before(self) -> RelaxationStep:
        """The starting structure."""
        return self.history[0]

    @property
    def after(self) -> RelaxationStep:
        """The relaxed structure."""
        return self.history[-1]

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.after.step

    @property
    def volume_change(self) -> float | None:
        """Relative change of the volume, or None."""
        if self.before.volume is None or self.after.volume is None:
            return None
        return self.after.volume / self.before.volume - 1

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "formula": self.atoms.get_chemical_formula(),
            "num_atoms": len(self.atoms),
            "optimizer": self.optimizer,
            "converged": self.converged,
            "steps": self.steps,
            "energy_before_eV": self.before.energy,
            "energy_after_eV": self.after.energy,
            "fmax_before_eV_per_A": self.before.fmax,
            "fmax_after_eV_per_A": self.after.fmax,
            "fmax_limit_eV_per_A": self.fmax,
            "stress_max_before_eV_per_A3": self.before.stress_max,
            "stress_max_after_eV_per_A3": self.after.stress_max,
            "volume_before_A3": self.before.volume,
            "volume_after_A3": self.after.volume,
            "volume_change": self.volume_change,
            "space_group_before": _text(self.space_groups[0]),
            "space_group_after": _text(self.space_groups[1]),
            "energy_std_before_eV": self.before.energy_std,
            "energy_std_after_eV": self.after.energy_std,
            "forces_std_before_eV_per_A": self.before.forces_std,
            "forces_std_after_eV_per_A": self.after.forces_std,
            "warnings": list(self.warnings),
        }


def _text(group: SpaceGroup | None) -> str | None:
    return None if group is None else str(group)
