"""Vacancies of a crystal, one for each inequivalent site, relaxed as one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import count_unconverged, relax_all
from mlip.simulate.properties.crystals import as_crystal, reference_state, require_neutral, without_constraints
from mlip.simulate.properties.sites import site_kinds
from mlip.simulate.properties.supercells import check_repeats, repeats_for, widths
from mlip.simulate.properties.symmetry import find_symmetry, require_spglib

NARROW = 9.0
"""Å of width below which a vacancy feels its images."""


@dataclass(frozen=True)
class Vacancy:
    """One kind of vacancy.

    Attributes:
        element: that was removed.
        site: number of the atom in the cell given.
        wyckoff: letter of the site.
        multiplicity: equivalent sites in the cell given.
        removal_energy: eV, supercell with the vacancy less the perfect one.
        formation_energy: eV, with the atom put into its reference; None where there is no chemical potential.
        structure: relaxed supercell, with its results.
    """

    element: str
    site: int
    wyckoff: str
    multiplicity: int
    removal_energy: float
    formation_energy: float | None
    structure: Atoms


@dataclass(frozen=True)
class VacancyResult:
    """All kinds of vacancies of a crystal.

    Attributes:
        formula: of the cell.
        repeats: (3,) of the supercell.
        chemical_potentials: eV by element, as given, or of an elemental crystal its energy per atom.
        vacancies: one for each inequivalent site.
        warnings: sentences about what looks wrong.
    """

    formula: str
    repeats: tuple[int, int, int]
    chemical_potentials: dict[str, float]
    vacancies: tuple[Vacancy, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "formula": self.formula,
            "supercell": list(self.repeats),
            "chemical_potentials_eV": self.chemical_potentials,
            "vacancies": [
                {
                    "element": found.element,
                    "site": found.site,
                    "wyckoff": found.wyckoff,
                    "multiplicity": found.multiplicity,
                    "removal_energy_eV": found.removal_energy,
                    "formation_energy_eV": found.formation_energy,
                }
                for found in self.vacancies
            ],
            "warnings": list(self.warnings),
        }


def vacancies(
    atoms: Atoms,
    calculator: Calculator,
    *,
    supercell: Sequence[int] | None = None,
    min_length: float = 10.0,
    chemical_potentials: Mapping[str, float] | None = None,
    relax_first: bool = False,
    fmax: float = 0.01,
    max_steps: int = 500,
    symprec: float = 0.01,
) -> VacancyResult:
    """Remove each inequivalent atom of a crystal in turn: ``E_f = E(vacancy) + μ − E(perfect)``, in the fixed cell.

    Args:
        atoms: the crystal; not changed.
        calculator: of energies, forces and stress.
        supercell: how often to repeat the cell; None: so that it is ``min_length`` Å wide.
        min_length: Å.
        chemical_potentials: eV by element; that of an elemental crystal is its energy per atom.
        relax_first: relax positions and cell first.
        fmax: eV/Å, limit of the relaxations.
        max_steps: of each relaxation.
        symprec: Å, within which sites are equivalent.

    Raises:
        SimulationError: no crystal, one with a charge, an open shell or non-collinear moments, or that is not relaxed,
            or parameters that make no sense.
        StructureError: the calculator refuses a structure.
    """
    require_positive(fmax=fmax, max_steps=max_steps, symprec=symprec)
    require_spglib("A vacancy")
    crystal = as_crystal(atoms, "A vacancy")
    require_neutral(crystal, calculator, "A vacancy")
    warnings = list(without_constraints(atoms))
    repeats = repeats_for(crystal, min_length) if supercell is None else check_repeats(supercell)
    if len(crystal) * math.prod(repeats) < 2:
        raise SimulationError("A supercell of a single atom leaves nothing around a vacancy: give a larger one.")
    crystal = reference_state(crystal, calculator, relax_first, fmax, max_steps, "A vacancy")
    symmetry = find_symmetry(crystal, symprec, site_kinds(crystal, calculator, "A vacancy"))
    perfect = crystal.repeat(repeats)
    if widths(perfect).min() < NARROW:
        warnings.append(
            f"The supercell is only {widths(perfect).min():.1f} Å wide: the vacancy feels its images; use a larger one."
        )
    sites = np.unique(symmetry.equivalent)
    # Repeating puts the copies behind: the first ones are the atoms of the cell.
    holed = [perfect[[number for number in range(len(perfect)) if number != site]] for site in sites]
    _refuse_odd(holed, calculator)
    whole, *relaxed = relax_all([perfect, *holed], calculator, fmax, max_steps)
    warnings += count_unconverged([whole, *relaxed], "supercells")
    known = dict(chemical_potentials or {})
    elements = set(crystal.get_chemical_symbols())
    if len(elements) == 1:
        known.setdefault(next(iter(elements)), whole.after.energy / len(perfect))
    missing = sorted(elements - set(known))
    if missing:
        warnings.append(
            f"No chemical potential of {', '.join(missing)} is given: their vacancies have a removal energy only."
        )
    found = []
    for site, result in zip(sites, relaxed):
        element, removal = crystal.symbols[site], result.after.energy - whole.after.energy
        formation = removal + known[element] if element in known else None
        count = int((symmetry.equivalent == site).sum())
        found.append(Vacancy(element, int(site), symmetry.wyckoffs[site], count, removal, formation, result.atoms))
    return VacancyResult(crystal.get_chemical_formula(), repeats, known, tuple(found), tuple(warnings))


def _refuse_odd(holed: Sequence[Atoms], calculator: Calculator) -> None:
    """Refuse supercells with an odd number of electrons if the model is told that all of them are paired."""
    if "spin" not in getattr(getattr(calculator, "model", None), "inputs", ()):
        return
    odd = [atoms for atoms in holed if int(atoms.numbers.sum()) % 2]
    if odd:
        raise SimulationError(
            f"{odd[0].get_chemical_formula()} with its vacancy has an odd number of electrons, which the spin 1 of the "
            "crystal cannot be: use a supercell of another size, or a model that does not read a spin."
        )
