"""Surface energies of all terminations of planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.units import J, m

from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import count_unconverged, relax_all
from mlip.simulate.properties.crystals import as_crystal, reference_state, require_neutral, without_constraints
from mlip.simulate.properties.miller import PlaneCell, plane_cell
from mlip.simulate.properties.sites import site_kinds
from mlip.simulate.properties.slabs import MIN_VACUUM, check_miller, cut_slabs
from mlip.simulate.properties.symmetry import require_spglib


@dataclass(frozen=True)
class Surface:
    """One termination of a surface.

    Attributes:
        miller: indices.
        shift: where the crystal was cut, as a part of the repeat along the normal.
        energy: eV/Å², mean over both sides.
        unrelaxed: eV/Å², before the atoms moved.
        area: Å² of one side.
        symmetric: whether both sides are equivalent, so that ``energy`` is that of each.
        structure: relaxed slab, with its results.
    """

    miller: tuple[int, int, int]
    shift: float
    energy: float
    unrelaxed: float
    area: float
    symmetric: bool
    structure: Atoms

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "miller": list(self.miller),
            "shift": self.shift,
            "energy_eV_per_A2": self.energy,
            "energy_J_per_m2": self.energy / (J / m**2),
            "unrelaxed_J_per_m2": self.unrelaxed / (J / m**2),
            "area_A2": self.area,
            "symmetric": self.symmetric,
            "num_atoms": len(self.structure),
        }


@dataclass(frozen=True)
class SurfaceResult:
    """Energies of the terminations of surfaces, ascending.

    Attributes:
        formula: of the cell.
        cell: that Miller indices refer to.
        surfaces: stoichiometric ones.
        warnings: sentences about what looks wrong.
    """

    formula: str
    cell: PlaneCell
    surfaces: tuple[Surface, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        found = [surface.as_dict() for surface in self.surfaces]
        return {
            "formula": self.formula,
            "miller_indices_refer_to": self.cell.as_dict(),
            "surfaces": found,
            "warnings": list(self.warnings),
        }


def surface_energies(
    atoms: Atoms,
    calculator: Calculator,
    millers: Sequence[Sequence[int]],
    *,
    thickness: float = 12.0,
    vacuum: float = 12.0,
    relax_first: bool = False,
    fmax: float = 0.01,
    max_steps: int = 500,
) -> SurfaceResult:
    """Compute ``γ = (E(slab) − N E(bulk)) / 2A`` of all stoichiometric terminations (slabs of pymatgen).

    Args:
        atoms: the crystal; not changed. Its magnetic moments and charges go with the atoms into the slabs.
        calculator: of energies, forces and stress.
        millers: of three indices each, or four of a hexagonal cell. They refer to the cell given if it is a
            conventional one, else to the conventional cell; see :func:`mlip.simulate.properties.miller.plane_cell`.
        thickness: Å, at least.
        vacuum: Å, at least.
        relax_first: relax positions and cell of the crystal first.
        fmax: eV/Å, limit of the relaxations.
        max_steps: of each relaxation.

    Raises:
        SimulationError: no crystal, one with a charge, an open shell or non-collinear moments, or that is not relaxed,
            indices that name no plane, or too little vacuum.
        StructureError: the calculator refuses a structure.
    """
    require_positive(thickness=thickness, fmax=fmax, max_steps=max_steps)
    if not vacuum >= MIN_VACUUM:
        raise SimulationError(f"A slab needs {MIN_VACUUM:g} Å of vacuum at least, got {vacuum:g}.")
    planes = [check_miller(indices) for indices in millers]
    if not planes:
        raise SimulationError("Name at least one plane by its Miller indices, such as 1 1 1.")
    require_spglib("A surface energy")
    crystal = as_crystal(atoms, "A surface energy")
    require_neutral(crystal, calculator, "A surface energy")
    kinds = site_kinds(crystal, calculator, "A surface energy", masses=True)
    warnings = list(without_constraints(atoms))
    crystal = reference_state(crystal, calculator, relax_first, fmax, max_steps, "A surface energy")
    cell = plane_cell(crystal)
    if any(len(tuple(indices)) == 4 for indices in millers) and not cell.hexagonal:
        raise SimulationError(f"Four Miller indices are for hexagonal axes; here they refer to {cell}: give three.")
    slabs = []
    for plane in planes:
        cut, dropped = cut_slabs(crystal, plane, thickness, vacuum, cell=cell.vectors, kinds=kinds)
        if dropped:
            warnings.append(
                f"{dropped} termination(s) of {plane} have another composition than the crystal and are left out."
            )
        slabs += cut
    bulk, *relaxed = relax_all([crystal, *(slab.atoms for slab in slabs)], calculator, fmax, max_steps)
    warnings += count_unconverged([bulk, *relaxed], "structures")
    found = []
    for slab, result in zip(slabs, relaxed):
        whole = bulk.after.energy * len(slab.atoms) / len(crystal)
        area = float(np.linalg.norm(np.cross(*slab.atoms.cell.array[:2])))
        energies = [(energy - whole) / (2 * area) for energy in (result.after.energy, result.before.energy)]
        found.append(Surface(slab.miller, slab.shift, *energies, area, slab.symmetric, result.atoms))
    if not all(surface.symmetric for surface in found):
        warnings.append(
            "Both sides of a slab differ (see symmetric): its energy is their mean, and that of a polar one grows with "
            "the thickness."
        )
    found.sort(key=lambda surface: surface.energy)
    return SurfaceResult(crystal.get_chemical_formula(), cell, tuple(found), tuple(warnings))
