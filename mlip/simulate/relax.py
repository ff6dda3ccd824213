"""Relaxation of positions and, for periodic structures, of the cell."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError, SimulationInterrupted, StructureError
from mlip.core.units import GPA
from mlip.simulate.cell_filter import CellFilter
from mlip.simulate.contacts import closest_contact, count_pieces, require_apart
from mlip.simulate.relax_optimizers import OPTIMIZERS, failed_searches, make_optimizer
from mlip.simulate.relax_result import RelaxationResult, RelaxationStep, RelaxOptions
from mlip.simulate.relax_symmetry import SYMPREC, SpaceGroup, keep_symmetry, refined, require_crystal, space_group
from mlip.simulate.scaled_constraint import corrected
from mlip.simulate.springs import describe_pull, require_no_pull
from mlip.simulate.trajectory import FrameWriter
from mlip.simulate.uncertainty import spreads

__all__ = ["OPTIMIZERS", "RelaxOptions", "RelaxationResult", "RelaxationStep", "cell_mask", "relax", "relax_with"]

SWOLLEN = 2.0
"""Factor of the volume, or its inverse, from which a warning says so."""

LOST = 5.0
"""Factor of the volume, or its inverse, at which a relaxation has left all sense and is stopped."""

MOST_ATOMS = 1000
"""Space groups of larger structures take longer than they are worth."""


def relax(
    atoms: Atoms,
    calculator: Calculator,
    *,
    optimizer: str = "FIRE",
    fmax: float = 0.05,
    max_steps: int = 500,
    relax_cell: bool = False,
    fix_volume: bool = False,
    pressure: float = 0.0,
    keep_symmetry: bool = False,
    refine_symmetry: bool = False,
    symprec: float = SYMPREC,
    trajectory: str | os.PathLike[str] | None = None,
    callback: Callable[[RelaxationStep], None] | None = None,
) -> RelaxationResult:
    """Relax a structure; the atoms passed in are not changed, constraints are kept.

    With ``relax_cell`` positions and the logarithm of the deformation of the cell are relaxed together
    (ASE's ``FrechetCellFilter``). Of a slab or wire only strains along the periodic directions are relaxed.
    Constraints that pull, such as ``Hookean``, act on the way; energies are the model's without them.

    Args:
        atoms: the structure.
        calculator: gives energies and forces, and with ``relax_cell`` the stress.
        optimizer, fmax, max_steps, relax_cell, fix_volume, pressure, keep_symmetry, refine_symmetry, symprec: as
            `RelaxOptions`.
        trajectory: ASE ``.traj`` file that gets every step.
        callback: called after every step.

    Raises:
        ConfigError: unknown optimizer, options that do not fit together, or spglib is missing.
        SimulationError: parameters that make no sense, a cell that cannot be relaxed, or a calculation that
            fails on the way; the frames so far are kept.
        StructureError: the calculator refuses the starting structure, or atoms overlap in it.
    """
    options = RelaxOptions(
        optimizer, fmax, max_steps, relax_cell, fix_volume, pressure, keep_symmetry, refine_symmetry, symprec
    )
    progress = _Progress()
    try:
        return relax_with(atoms, calculator, options, trajectory, callback, progress)
    except KeyboardInterrupt as stop:
        if not progress.history:
            raise
        raise SimulationInterrupted(progress.ended("stopped by the user")) from stop


@dataclass
class _Progress:
    """How far a relaxation has come."""

    history: list[RelaxationStep] = field(default_factory=list)
    frames: FrameWriter | None = None

    def ended(self, reason: str) -> str:
        frames = self.frames
        kept = "no trajectory was written" if frames is None else f"{frames.num_frames} frames are in '{frames.path}'"
        return f"The relaxation ended at step {len(self.history) - 1}: {reason}; {kept}."


class _Stop(Exception):
    """The structure has left all sense; the message is a clause."""


def relax_with(
    atoms: Atoms,
    calculator: Calculator,
    options: RelaxOptions,
    trajectory: str | os.PathLike[str] | None = None,
    callback: Callable[[RelaxationStep], None] | None = None,
    progress: _Progress | None = None,
) -> RelaxationResult:
    """Relax a structure as `relax` does, except that Ctrl-C is not turned into an error."""
    mask = _checked(atoms, options)
    constraints, atoms = atoms.copy().constraints, atoms.copy()
    atoms.set_constraint(corrected(constraints))
    group = _group(atoms, options)
    if options.keep_symmetry:
        keep_symmetry(atoms, options.symprec)
    elif options.refine_symmetry:
        atoms = refined(atoms, options.symprec)
    atoms.calc = calculator
    atoms.get_forces()  # A structure that the calculator refuses must leave no files.
    target = atoms
    if mask is not None:
        pressure = options.pressure * GPA
        target = CellFilter(atoms, mask=mask, scalar_pressure=pressure, constant_volume=options.fix_volume)
    pieces, progress = count_pieces(atoms), progress or _Progress()
    with ExitStack() as stack:
        if trajectory is not None:
            progress.frames = stack.enter_context(FrameWriter(trajectory))

        def record() -> None:
            entry = _measure(atoms, len(progress.history), mask, options)
            progress.history.append(entry)
            if progress.frames is not None:
                progress.frames.write(_plain(atoms, constraints), step=entry.step)
            if callback is not None:
                callback(entry)
            _guard(progress.history)

        converged, reason = _optimise(options, target, record, progress)
    atoms.set_constraint(constraints)
    groups = group, _group(atoms, options)
    warnings = _warnings(atoms, pieces, options, progress.history, groups, reason if not converged else None)
    return RelaxationResult(
        atoms, tuple(progress.history), converged, options.fmax, options.optimizer, warnings, groups
    )


def _checked(atoms: Atoms, options: RelaxOptions) -> np.ndarray | None:
    """Refuse what cannot be relaxed as the options say; return the mask of the cell, None if it is fixed."""
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError("Positions or cell of the structure are not finite numbers: is the file damaged?")
    if options.pressure != 0 and not (options.relax_cell and atoms.pbc.all()):
        raise SimulationError(
            f"A pressure ({options.pressure} GPa) needs a cell that is relaxed and periodic along all axes; this "
            f"structure has pbc {atoms.pbc.tolist()} and its cell is {'relaxed' if options.relax_cell else 'fixed'}."
        )
    if options.fix_volume and not atoms.pbc.all():
        raise SimulationError(
            f"A fixed volume needs a cell that is periodic along all axes, this structure has pbc {atoms.pbc.tolist()}."
        )
    if options.keep_symmetry or options.refine_symmetry:
        require_crystal(atoms, "Keeping the symmetry" if options.keep_symmetry else "Refining the symmetry")
    mask = cell_mask(atoms) if options.relax_cell else None
    if options.relax_cell:
        require_no_pull(atoms)
    require_apart(atoms, "In the starting structure")
    return mask


def _group(atoms: Atoms, options: RelaxOptions) -> SpaceGroup | None:
    return space_group(atoms, options.symprec) if len(atoms) <= MOST_ATOMS else None


def _plain(atoms: Atoms, constraints: list) -> Atoms:
    """Return the structure with the constraints of its file, which the formats of files know."""
    plain = atoms.copy()
    plain.set_constraint(constraints)
    plain.calc = atoms.calc
    return plain


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
        if atoms.pbc.all():
            raise SimulationError(
                f"The cell has no volume: its lattice vectors {atoms.cell.array.round(3).tolist()} are zero or lie in "
                "a plane. Correct the input, or set pbc = False for a molecule."
            )
        raise SimulationError(
            "The cell has no volume. Give the non-periodic axes lattice vectors too, for example "
            "atoms.center(vacuum=10, axis=2) for a slab."
        )
    return np.array([inside[a] * inside[b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])


def _guard(history: list[RelaxationStep]) -> None:
    """Stop what collapses or flies apart before it fills the memory."""
    first, last = history[0].volume, history[-1].volume
    if first and last and not 1 / LOST < last / first < LOST:
        raise _Stop(f"the volume went from {first:.4g} to {last:.4g} Å³")


def _optimise(
    options: RelaxOptions, target: Atoms | CellFilter, record: Callable[[], None], progress: _Progress
) -> tuple[bool, str]:
    """Run the optimizer; return whether it converged, and if not why. Failures on the way become one sentence."""
    optimizer = make_optimizer(options.optimizer, target)
    optimizer.attach(record)
    try:
        converged = bool(optimizer.run(fmax=options.fmax, steps=options.max_steps))
        failed = failed_searches(optimizer)
        return converged, f"within {options.max_steps} steps" + (f", with {failed} failed line searches" * bool(failed))
    except _Stop as stop:
        return False, f"but stopped, because {stop}"
    except (StructureError, np.linalg.LinAlgError) as error:
        reason = str(error).rstrip(".")
    except RuntimeError as error:
        # ASE's line searches say no more than that they failed, and the structure so far is good.
        if "search" in str(error).lower() and len(progress.history) > 1:
            return False, f"but stopped at step {len(progress.history) - 1}, because the line search found no descent"
        raise
    raise SimulationError(progress.ended(reason))


def _measure(atoms: Atoms, step: int, mask: np.ndarray | None, options: RelaxOptions) -> RelaxationStep:
    # As in the files: a spring is no part of the model.
    energy = float(atoms.get_potential_energy(apply_constraint=False))
    fmax = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    stress_max = None
    if mask is not None:
        stress = (atoms.get_stress() + options.pressure * GPA * np.array([1, 1, 1, 0, 0, 0])) * mask
        if options.fix_volume:
            stress[:3] -= stress[:3].mean()
        stress_max = float(np.abs(stress).max())
    if not np.isfinite([energy, fmax]).all():
        raise StructureError(f"the calculator returned an energy of {energy} eV and a largest force of {fmax} eV/Å")
    volume = float(atoms.get_volume()) if atoms.pbc.all() else None
    energy_std, forces_std = (None if math.isnan(value) else value for value in spreads(atoms))
    return RelaxationStep(step, energy, fmax, stress_max, volume, energy_std, forces_std)


def _warnings(
    atoms: Atoms,
    pieces: int,
    options: RelaxOptions,
    history: list[RelaxationStep],
    groups: tuple[SpaceGroup | None, SpaceGroup | None],
    reason: str | None,
) -> tuple[str, ...]:
    found, last = [], history[-1]
    if reason is not None:
        stress = "" if last.stress_max is None else f", largest stress {last.stress_max / GPA:.3g} GPa"
        advice = "continue from the final structure or allow more steps"
        if "line search" in reason:
            advice = "continue with the optimizer FIRE, or with float64"
        elif "volume" in reason:
            advice = "the model is outside of what it was trained on"
        found.append(f"Not converged {reason} (largest force {last.fmax:.3g} eV/Å{stress}): {advice}.")
    first = history[0].volume
    if first and last.volume and not 1 / SWOLLEN <= last.volume / first <= SWOLLEN:
        found.append(
            f"The volume {'exploded' if last.volume > first else 'collapsed'}: it was {first:.4g} Å³ and is "
            f"{last.volume:.4g} Å³ now."
        )
    contact = closest_contact(atoms)
    if contact is not None:
        found.append(
            f"In the final structure {contact.describe(atoms)}: the model is outside of what it was trained on."
        )
    after = count_pieces(atoms)
    if after > pieces:
        found.append(f"The structure fell apart: it had {pieces} connected piece(s) at the start and has {after} now.")
    pull = describe_pull(atoms)
    if pull is not None:
        found.append(pull)
    kept = [0 if group is None else group.operations for group in groups]
    if options.keep_symmetry and kept[1] < kept[0]:
        found.append(f"The space group was {groups[0]} and is {groups[1]}, though it was to be kept.")
    return tuple(found)
