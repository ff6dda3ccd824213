"""Minimum-energy paths between two minima: ASE's nudged elastic band, all images evaluated as one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.geometry import find_mic
from ase.mep import NEB, idpp_interpolate
from ase.optimize import FIRE
from ase.utils.forcecurve import fit_raw

from mlip.core.errors import SimulationError, StructureError
from mlip.simulate.contacts import closest_contact, require_apart
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import count_unconverged, evaluate_all, relax_all
from mlip.simulate.properties.vibrations import Vibrations, vibrations

SAME = 0.05
"""Å; end points that no atom's place tells apart by more are one."""

BEFORE_CLIMBING = 5.0
"""The band is relaxed to this many times the limit before its highest image climbs."""


OVERLAP = 0.3
"""Fraction of the sum of covalent radii below which atoms on the path lie on each other."""

HEAD_ON = 0.05
"""The same on the straight line between the end points."""


@dataclass(frozen=True)
class NebResult:
    """A minimum-energy path.

    Attributes:
        images: the path with energies and forces, end points included.
        energies: (images,) eV, relative to the first one.
        coordinate: (images,) Å, length of the path up to each image in the space of all atoms.
        curve: (points, 2) coordinate and energy of a smooth line through energies and slopes.
        converged: whether forces across the path came below the limit.
        steps: of the optimizer.
        fmax: the limit, eV/Å.
        climbed: whether the highest image climbed to the saddle point.
        vibrations: at the highest image; None if they were not asked for.
        warnings: sentences about what looks wrong.
    """

    images: tuple[Atoms, ...]
    energies: np.ndarray
    coordinate: np.ndarray
    curve: np.ndarray
    converged: bool
    steps: int
    fmax: float
    climbed: bool
    vibrations: Vibrations | None
    warnings: tuple[str, ...]

    @property
    def highest(self) -> int:
        """Number of the highest image."""
        return int(np.argmax(self.energies))

    @property
    def forward(self) -> float:
        """Barrier from the first image, eV: to the image that climbed, else to the top of the curve between images."""
        highest = float(self.energies.max())
        return highest if self.climbed else max(highest, float(self.curve[:, 1].max()))

    @property
    def backward(self) -> float:
        """Barrier from the last image, eV, likewise."""
        return self.forward - float(self.energies[-1])

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "formula": self.images[0].get_chemical_formula(),
            "num_images": len(self.images),
            "barrier_forward_eV": self.forward,
            "barrier_backward_eV": self.backward,
            "energy_difference_eV": float(self.energies[-1]),
            "saddle_image": self.highest,
            "climbing": self.climbed,
            "converged": self.converged,
            "steps": self.steps,
            "fmax_limit_eV_per_A": self.fmax,
            "energies_eV": self.energies.tolist(),
            "coordinate_A": self.coordinate.tolist(),
            "vibrations": None if self.vibrations is None else self.vibrations.as_dict(),
            "warnings": list(self.warnings),
        }


class BatchedBand(NEB):
    """ASE's band, whose inner images are evaluated together before ASE asks for their forces.

    Attributes:
        largest: eV/Å, force across the band, that on the climbing image included.
    """

    def __init__(self, images: Sequence[Atoms], calculator: Calculator, spring: float) -> None:
        super().__init__(list(images), k=spring, climb=False, method="improvedtangent")
        self.calculator = calculator
        self.largest = np.nan

    def get_forces(self) -> np.ndarray:
        """Return the forces on the band, (inner images · atoms, 3) eV/Å."""
        moved = [image for image in self.images[1:-1] if image.calc is None or image.calc.check_state(image)]
        for image, found in zip(moved, evaluate_all(moved, self.calculator)):
            image.calc = found.attached_to(image).calc
        forces = super().get_forces()
        self.largest = float(np.linalg.norm(forces, axis=1).max())
        return forces


def nudged_elastic_band(
    initial: Atoms,
    final: Atoms,
    calculator: Calculator,
    *,
    images: int = 7,
    climb: bool = True,
    relax_ends: bool = False,
    saddle_vibrations: bool = False,
    spring: float = 0.1,
    fmax: float = 0.05,
    max_steps: int = 500,
    callback: Callable[[int, float, float], None] | None = None,
) -> NebResult:
    """Find the path of least energy from one minimum to another (Henkelman, Uberuaga, Jónsson, J. Chem. Phys. 113, 9901
    and 9978 (2000)), in its first guess interpolated by image-dependent pair potentials.

    Args:
        initial, final: the same atoms in the same order and cell; not changed. Constraints of the first one hold.
        calculator: of energies and forces.
        images: between the end points.
        climb: let the highest image climb to the saddle point.
        relax_ends: relax the positions of both end points first.
        saddle_vibrations: compute the vibrations of the highest image, of which one should be imaginary.
        spring: eV/Å², between images.
        fmax: eV/Å; converged when all forces across the band are below.
        max_steps: of the relaxations and of the band.
        callback: called with step, highest energy (eV) and largest force (eV/Å).

    Raises:
        SimulationError: end points that do not fit together, or parameters that make no sense.
        StructureError: the calculator refuses a structure, or two atoms come to lie on each other.
    """
    require_positive(images=images, spring=spring, fmax=fmax, max_steps=max_steps)
    _require_same_electrons(initial, final, calculator)
    initial, final = _checked(initial, final)
    warnings: list[str] = []
    if relax_ends:
        results = relax_all([initial, final], calculator, fmax, max_steps)
        warnings += count_unconverged(results, "end points")
        initial, final = (result.atoms for result in results)
    ends = evaluate_all([initial, final], calculator)
    initial, final = (found.attached_to(atoms) for found, atoms in zip(ends, (initial, final)))
    if not relax_ends:
        warnings += _force_at_ends((initial, final), fmax)
    _require_different(initial, final)
    band = BatchedBand(_interpolated(initial, final, images), calculator, spring)
    optimizer = FIRE(band, logfile=None)
    if callback is not None:
        optimizer.attach(lambda: callback(optimizer.nsteps, float(np.max(band.energies)), band.largest))
    converged = _run(band, optimizer, climb, fmax, max_steps)
    if not converged:
        warnings.append(
            f"The band was not converged to {fmax:g} eV/Å within {max_steps} steps (largest force "
            f"{band.largest:.3g}): allow more steps."
        )
    path = tuple(band.images)
    absolute = np.array([image.get_potential_energy() for image in path])
    curve = _curve(path, absolute)
    energies = absolute - absolute[0]
    if int(np.argmax(energies)) in (0, len(path) - 1):
        warnings.append("The energy has no maximum between the end points: one of them is no minimum, or higher.")
    found = None
    if saddle_vibrations:
        found = vibrations(path[int(np.argmax(energies))], calculator)
        if found.num_imaginary != 1:
            warnings.append(
                f"The highest image has {found.num_imaginary} imaginary vibrations; a saddle point has one: converge "
                "further (smaller --fmax), or there is another path."
            )
    return NebResult(
        path, energies, _lengths(path), curve, converged, optimizer.nsteps, fmax, climb, found, tuple(warnings)
    )


def _require_same_electrons(initial: Atoms, final: Atoms, calculator: Calculator) -> None:
    for name, usual in (("charge", 0), ("spin", 1)):
        missing = getattr(calculator, "given", {}).get(name, usual)
        first, last = (atoms.info.get(name, missing) for atoms in (initial, final))
        if first != last:
            raise SimulationError(f"Both end points must have the same {name}; they have {first} and {last}.")


def _checked(initial: Atoms, final: Atoms) -> tuple[Atoms, Atoms]:
    """Return copies; the final atoms are the periodic images that are nearest to the initial ones."""
    if len(initial) != len(final):
        raise SimulationError(f"Both end points must have the same atoms; they have {len(initial)} and {len(final)}.")
    if len(initial) < 2:
        raise SimulationError("A path of a single atom leads through empty space: a band needs two atoms or more.")
    different = np.flatnonzero(initial.numbers != final.numbers)
    if len(different):
        first = int(different[0])
        same = sorted(initial.numbers) == sorted(final.numbers)
        raise SimulationError(
            f"Both end points must have the same atoms in the same order; atom {first} is {initial.symbols[first]} in "
            f"one and {final.symbols[first]} in the other"
            + (" (the composition is the same: reorder one of them)." if same else ".")
        )
    if (initial.pbc != final.pbc).any():
        raise SimulationError("Both end points must be periodic along the same axes.")
    if initial.pbc.any() and not np.allclose(initial.cell.array, final.cell.array, atol=1e-6):
        raise SimulationError("Both end points must have the same cell; relax them with a fixed one.")
    for end, atoms in (("first", initial), ("last", final)):
        if np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all():
            require_apart(atoms, f"In the {end} end point")
    initial, final = initial.copy(), final.copy()
    moved = final.positions - initial.positions
    if initial.pbc.any():
        moved, _ = find_mic(moved, initial.cell, initial.pbc)
    final.set_cell(initial.cell)
    final.set_constraint([constraint.copy() for constraint in initial.constraints] or None)
    final.set_positions(initial.positions + moved, apply_constraint=False)
    fixed = np.linalg.norm(_free(initial, moved) - moved, axis=1)
    if fixed.max() > SAME:
        atom = int(np.argmax(fixed))
        raise SimulationError(
            f"Atom {atom} ({initial.symbols[atom]}) is held by a constraint, but is {fixed[atom]:.2f} Å away in the "
            "other end point."
        )
    return initial, final


def _free(atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
    """Return displacements without what the constraints forbid."""
    probe = atoms.copy()
    before = probe.positions.copy()
    probe.set_positions(before + vectors)
    return probe.positions - before


def _require_different(initial: Atoms, final: Atoms) -> None:
    apart = float(np.linalg.norm(final.positions - initial.positions, axis=1).max())
    if apart < SAME:
        raise SimulationError(
            f"Both end points are the same structure (no atom is more than {apart:.2g} Å away): there is no path. Did "
            "both relax to one minimum?"
        )


def _force_at_ends(ends: Sequence[Atoms], fmax: float) -> list[str]:
    worst = max(float(np.linalg.norm(atoms.get_forces(), axis=1).max()) for atoms in ends)
    if worst <= 2 * fmax:
        return []
    return [f"The end points are not relaxed (forces up to {worst:.3g} eV/Å): barriers are off; use --relax."]


def _interpolated(initial: Atoms, final: Atoms, images: int) -> list[Atoms]:
    # With ASE's own band: its forces here are those of the pair potentials.
    band = NEB([initial, *(initial.copy() for _ in range(images)), final], method="improvedtangent")
    band.interpolate(method="linear", mic=False, apply_constraint=False)
    # The pair potentials push atoms past each other, unless they meet head-on.
    _require_apart(band.images, HEAD_ON)
    idpp_interpolate(band, traj=None, log=None, fmax=0.1, steps=100, mic=bool(initial.pbc.any()))
    _require_apart(band.images, OVERLAP)
    return band.images


def _require_apart(images: Sequence[Atoms], below: float) -> None:
    for image in images:
        contact = closest_contact(image, below)
        if contact is not None:
            raise StructureError(
                f"On the interpolated path {contact.describe(image)}: give the atoms of both end points in the same "
                "order, or a start with less in the way."
            )


def _run(band: BatchedBand, optimizer: FIRE, climb: bool, fmax: float, max_steps: int) -> bool:
    try:
        if climb:
            optimizer.run(fmax=BEFORE_CLIMBING * fmax, steps=max_steps)
            band.climb = True
        return optimizer.nsteps < max_steps and bool(optimizer.run(fmax=fmax, steps=max_steps - optimizer.nsteps))
    except StructureError as error:
        raise SimulationError(f"The band broke at step {optimizer.nsteps}: {str(error).rstrip('.')}.") from error


def _lengths(path: Sequence[Atoms]) -> np.ndarray:
    steps = [np.linalg.norm(after.positions - before.positions) for before, after in pairwise(path)]
    return np.concatenate([[0.0], np.cumsum(steps)])


def _curve(path: Sequence[Atoms], energies: np.ndarray) -> np.ndarray:
    positions = [image.positions.copy() for image in path]
    fitted = fit_raw(energies, [image.get_forces() for image in path], positions)
    return np.stack([fitted.fit_path, fitted.fit_energies], axis=1)
