"""Relaxation of positions and, for periodic structures, of the cell."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.optimize import BFGS, FIRE, LBFGS
from ase.optimize.optimize import Optimizer

from mlip.core.errors import ConfigError, SimulationError, StructureError, did_you_mean
from mlip.core.units import GPA
from mlip.simulate.cell_filter import CellFilter
from mlip.simulate.contacts import closest_contact, count_pieces
from mlip.simulate.ensembles import require_positive
from mlip.simulate.trajectory import FrameWriter
from mlip.simulate.uncertainty import spreads

OPTIMIZERS: dict[str, type[Optimizer]] = {"FIRE": FIRE, "LBFGS": LBFGS, "BFGS": BFGS}
"""Optimizers by name. FIRE is the most robust; LBFGS needs fewer steps near a minimum."""


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
    """

    atoms: Atoms
    history: tuple[RelaxationStep, ...]
    converged: bool
    fmax: float
    optimizer: str
    warnings: tuple[str, ...]

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
            "energy_std_before_eV": self.before.energy_std,
            "energy_std_after_eV": self.after.energy_std,
            "forces_std_before_eV_per_A": self.before.forces_std,
            "forces_std_after_eV_per_A": self.after.forces_std,
            "warnings": list(self.warnings),
        }


def relax(
    atoms: Atoms,
    calculator: Calculator,
    *,
    optimizer: str = "FIRE",
    fmax: float = 0.05,
    max_steps: int = 500,
    relax_cell: bool = False,
    pressure: float = 0.0,
    trajectory: str | os.PathLike[str] | None = None,
    callback: Callable[[RelaxationStep], None] | None = None,
) -> RelaxationResult:
    """Relax a structure; the atoms passed in are not changed, constraints are kept.

    With ``relax_cell`` positions and the logarithm of the deformation of the cell are relaxed together
    (ASE's ``FrechetCellFilter``). Of a slab or wire only strains along the periodic directions are relaxed.

    Args:
        atoms: the structure.
        calculator: gives energies and forces, and with ``relax_cell`` the stress.
        optimizer: a name out of `OPTIMIZERS`.
        fmax: eV/Å; converged when the largest force is below. The force on the cell is the virial per atom.
        max_steps: give up after this many steps.
        relax_cell: relax the cell as well.
        pressure: target, GPa; for cells that are periodic along all axes.
        trajectory: ASE ``.traj`` file that gets every step.
        callback: called after every step.

    Raises:
        ConfigError: unknown optimizer.
        SimulationError: parameters that make no sense, a cell that cannot be relaxed, or a calculation that
            fails on the way; the frames so far are kept.
        StructureError: the calculator refuses the starting structure.
    """
    require_positive(fmax=fmax, max_steps=max_steps)
    algorithm = OPTIMIZERS.get(optimizer.upper())
    if algorithm is None:
        raise ConfigError(
            f"There is no optimizer '{optimizer}'.{did_you_mean(optimizer.upper(), OPTIMIZERS)} "
            f"Known: {', '.join(OPTIMIZERS)}."
        )
    if pressure != 0 and not (relax_cell and atoms.pbc.all()):
        raise SimulationError(
            f"A pressure ({pressure} GPa) needs a cell that is relaxed and periodic along all axes; this "
            "structure has "
            f"pbc {atoms.pbc.tolist()} and its cell is {'relaxed' if relax_cell else 'fixed'}."
        )
    mask = cell_mask(atoms) if relax_cell else None
    atoms = atoms.copy()
    atoms.calc = calculator
    atoms.get_forces()  # A structure that the calculator refuses must leave no files.
    target = atoms if mask is None else CellFilter(atoms, mask=mask, scalar_pressure=pressure * GPA)
    pieces, history = count_pieces(atoms), []
    with ExitStack() as stack:
        frames = None if trajectory is None else stack.enter_context(FrameWriter(trajectory))

        def record() -> None:
            entry = _measure(atoms, len(history), mask, pressure * GPA)
            history.append(entry)
            if frames is not None:
                frames.write(atoms, step=entry.step)
            if callback is not None:
                callback(entry)

        converged = _optimise(algorithm(target, logfile=None), record, fmax, max_steps, frames)
    warnings = _warnings(atoms, pieces, converged, max_steps, history[-1])
    return RelaxationResult(atoms, tuple(history), converged, fmax, optimizer.upper(), warnings)


def cell_mask(atoms: Atoms) -> np.ndarray:
    """Return which strains (xx, yy, zz, yz, xz, xy) lie along periodic directions.

    Raises:
        SimulationError: a molecule, or a slab or wire that does not lie along the Cartesian axes.
    """
    if not atoms.pbc.any():
        raise SimulationError("A molecule has no cell to relax: no axis is periodic. Relax the positions only.")
    periodic = atoms.cell.array[atoms.pbc]
    along = np.linalg.pinv(periodic) @ periodic if not atoms.pbc.all() else np.eye(3)
    inside = np.diagonal(along).round(6)
    if not np.allclose(along, np.diag(inside), atol=1e-6) or not np.isin(inside, (0, 1)).all():
        raise SimulationError(
            "The cell of a slab or wire can be relaxed only if its periodic lattice vectors span Cartesian "
            "axes, such "
            f"as the xy plane; here they are {periodic.round(3).tolist()}. Rotate the structure, with its "
            "cell."
        )
    if abs(np.linalg.det(atoms.cell.array)) < 1e-3:
        raise SimulationError(
            "The cell has no volume. Give the non-periodic axes lattice vectors too, for example "
            "atoms.center(vacuum=10, axis=2) for a slab."
        )
    return np.array([inside[a] * inside[b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])


def _optimise(
    optimizer: Optimizer, record: Callable[[], None], fmax: float, max_steps: int, frames: FrameWriter | None
) -> bool:
    """Run the optimizer; turn failures on the way into one sentence."""
    optimizer.attach(record)
    try:
        return bool(optimizer.run(fmax=fmax, steps=max_steps))
    except (StructureError, np.linalg.LinAlgError) as error:
        reason = str(error).rstrip(".")
    except KeyboardInterrupt:
        reason = "stopped by the user"
    kept = "no trajectory was written" if frames is None else f"{frames.num_frames} frames are in '{frames.path}'"
    raise SimulationError(f"The relaxation ended at step {optimizer.nsteps}: {reason}; {kept}.")


def _measure(atoms: Atoms, step: int, mask: np.ndarray | None, pressure: float) -> RelaxationStep:
    energy = float(atoms.get_potential_energy())
    fmax = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    stress_max = None
    if mask is not None:
        stress_max = float(np.abs((atoms.get_stress() + pressure * np.array([1, 1, 1, 0, 0, 0])) * mask).max())
    if not np.isfinite([energy, fmax]).all():
        raise StructureError(f"the calculator returned an energy of {energy} eV and a largest force of {fmax} eV/Å")
    volume = float(atoms.get_volume()) if atoms.pbc.all() else None
    energy_std, forces_std = (None if math.isnan(value) else value for value in spreads(atoms))
    return RelaxationStep(step, energy, fmax, stress_max, volume, energy_std, forces_std)


def _warnings(atoms: Atoms, pieces: int, converged: bool, max_steps: int, last: RelaxationStep) -> tuple[str, ...]:
    found = []
    if not converged:
        stress = "" if last.stress_max is None else f", largest stress {last.stress_max / GPA:.3g} GPa"
        found.append(
            f"Not converged within {max_steps} steps (largest force {last.fmax:.3g} eV/Å{stress}): "
            "continue from the final structure or allow more steps."
        )
    contact = closest_contact(atoms)
    if contact is not None:
        found.append(
            f"In the final structure {contact.describe(atoms)}: the model is outside of what it was trained on."
        )
    after = count_pieces(atoms)
    if after > pieces:
        found.append(f"The structure fell apart: it had {pieces} connected piece(s) at the start and has {after} now.")
    return tuple(found)
