"""Adsorption of a molecule on a slab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError
from mlip.simulate.contacts import closest_contact
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import count_unconverged, relax_all
from mlip.simulate.properties.molecules import make_whole
from mlip.simulate.properties.slabs import MIN_VACUUM, gap, in_one_piece, normal_of


@dataclass(frozen=True)
class AdsorptionResult:
    """Adsorption of a molecule on a slab.

    Attributes:
        energies: eV, ``E(both) − E(slab) − E(molecule)`` of each start; negative binds.
        structures: relaxed, with their results, in the same order.
        energy_slab, energy_molecule: eV, relaxed by themselves.
        warnings: sentences about what looks wrong.
    """

    energies: tuple[float, ...]
    structures: tuple[Atoms, ...]
    energy_slab: float
    energy_molecule: float
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "adsorption_energies_eV": list(self.energies),
            "energy_slab_eV": self.energy_slab,
            "energy_molecule_eV": self.energy_molecule,
            "warnings": list(self.warnings),
        }


def adsorption_energies(
    slab: Atoms,
    molecule: Atoms,
    calculator: Calculator,
    positions: Sequence[Sequence[float]],
    *,
    height: float = 2.0,
    spin: int | None = None,
    fmax: float = 0.03,
    max_steps: int = 500,
) -> AdsorptionResult:
    """Put a molecule over points of a slab, relax all, and compare with slab and molecule alone.

    Slab and molecule state their charges and multiplicities in ``info``, for a model that reads them; the charge of
    both together is the sum.

    Args:
        slab: periodic in a and b, with vacuum along c; its constraints are kept. Layers that are wrapped to the other
            side of the vacuum come back.
        molecule: oriented as it is to stand; its lowest atom comes to stand over the point. One that is wrapped in a
            periodic box is made whole.
        calculator: of energies and forces.
        positions: fractional coordinates (along a and b) of the points.
        height: Å of the lowest atom of the molecule over the highest one of the slab.
        spin: multiplicity 2S + 1 of both together; None: that of the one whose shells are not closed.
        fmax: eV/Å, limit of the relaxations.
        max_steps: of each relaxation.

    Raises:
        SimulationError: a slab without vacuum, no positions, parameters that make no sense, a molecule that is bonded
            to its own periodic images, two open shells and no ``spin``, or a charge or multiplicity that was given to
            the calculator, for all.
        StructureError: the calculator refuses a structure, or atoms lie on each other.
    """
    require_positive(height=height, fmax=fmax, max_steps=max_steps)
    if len(positions) == 0 or any(len(place) != 2 or not np.isfinite(place).all() for place in positions):
        raise SimulationError("Adsorption takes at least one position of two fractional coordinates, such as 0.5 0.5.")
    if not slab.pbc[:2].all():
        raise SimulationError("A slab is periodic along its first two axes, with the vacuum along the third.")
    molecule, warnings = make_whole(molecule)
    normal = normal_of(slab)
    tall = float(np.ptp(molecule.positions @ normal)) + height
    if slab.pbc[2] and gap(slab) < tall + MIN_VACUUM:
        raise SimulationError(
            f"The slab has {gap(slab):.1f} Å of vacuum along its third axis; this molecule needs "
            f"{tall + MIN_VACUUM:.1f} Å: center it with more vacuum."
        )
    if slab.pbc[2]:
        slab = in_one_piece(slab)
    together = _electrons(slab, molecule, spin, calculator)
    starts = [_placed(slab, molecule, place, normal, height, together) for place in positions]
    bare, free, *relaxed = relax_all([slab, molecule, *starts], calculator, fmax, max_steps)
    warnings += count_unconverged([bare, free, *relaxed], "structures")
    warnings += sorted({text for result in relaxed for text in result.warnings if "fell apart" in text})
    apart = bare.after.energy + free.after.energy
    return AdsorptionResult(
        tuple(result.after.energy - apart for result in relaxed), tuple(result.atoms for result in relaxed),
        bare.after.energy, free.after.energy, tuple(warnings),
    )  # fmt: skip


def _electrons(slab: Atoms, molecule: Atoms, spin: int | None, calculator: Calculator) -> dict[str, int]:
    """Return charge and multiplicity of both together, as far as one of them states them."""
    for name, usual in (("charge", 0), ("spin", 1)):
        value = getattr(calculator, "given", {}).get(name, usual)
        if value != usual:
            raise SimulationError(
                f"Slab and molecule cannot both have the {name} {value} that was given for all structures: state it in "
                f"atoms.info['{name}'] of each."
            )
    found: dict[str, int] = {}
    if "charge" in slab.info or "charge" in molecule.info:
        found["charge"] = sum(_whole(atoms, "charge", 0) for atoms in (slab, molecule))
    if spin is not None:
        require_positive(spin=spin)
        found["spin"] = spin
    elif "spin" in slab.info or "spin" in molecule.info:
        multiplicities = [_whole(atoms, "spin", 1) for atoms in (slab, molecule)]
        if min(multiplicities) > 1:
            raise SimulationError(
                f"Slab (spin {multiplicities[0]}) and molecule (spin {multiplicities[1]}) have open shells, which can "
                "couple in several ways: give the multiplicity of both together (spin, or the third number of --spin)."
            )
        found["spin"] = max(multiplicities)
    return found


def _whole(atoms: Atoms, name: str, missing: int) -> int:
    value = atoms.info.get(name, missing)
    try:
        if int(value) == float(value):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise SimulationError(f"{atoms.get_chemical_formula()} says {name} {value!r}, which must be a whole number.")


def _placed(
    slab: Atoms,
    molecule: Atoms,
    place: Sequence[float],
    normal: np.ndarray,
    height: float,
    together: Mapping[str, int],
) -> Atoms:
    heights = slab.positions @ normal
    lowest = molecule.positions[int(np.argmin(molecule.positions @ normal))]
    point = np.array(place) @ slab.cell.array[:2]
    point = point - (point @ normal) * normal + (heights.max() + height) * normal
    guest = molecule.copy()
    guest.positions += point - lowest
    guest.set_constraint()
    guest.set_tags(0)
    both = slab + guest
    both.info.update(together)
    contact = closest_contact(both)
    if contact is not None:
        raise SimulationError(f"Over {list(place)} {contact.describe(both)}: give a larger height.")
    return both
