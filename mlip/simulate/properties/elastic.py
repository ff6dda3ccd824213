"""Elastic constants from stresses of strained crystals with relaxed ions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.stress import voigt_6_to_full_3x3_stress

from mlip.core.errors import SimulationError
from mlip.core.units import GPA
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import count_unconverged, evaluate_all, relax_all
from mlip.simulate.properties.crystals import as_crystal, reference_state, without_constraints
from mlip.simulate.properties.elastic_moduli import Moduli, moduli
from mlip.simulate.properties.sites import site_kinds
from mlip.simulate.properties.symmetry import Symmetry, find_symmetry, invariant_tensor, require_spglib, standard_frame

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components in the order xx yy zz yz xz xy."""

STEPS = (-1.0, -0.5, 0.5, 1.0)
"""Strains of each component, as parts of the largest one: the slope at zero is then exact to fourth order."""

LARGE_ASYMMETRY = 0.03
"""Share of the largest constant by which the raw tensor may miss C_ij = C_ji."""


@dataclass(frozen=True)
class ElasticResult:
    """Elastic constants, in eV/Å³ and in the order xx yy zz yz xz xy, for engineering shear strains.

    Attributes:
        formula: of the cell.
        spacegroup: symbol and number.
        ieee: (6, 6) symmetrised by the crystal's symmetry, in the standard orientation of its crystal system (IEEE Std
            176-1987).
        as_given: (6, 6) the same in the axes of the structure as given.
        raw: (6, 6) as computed, in the standard orientation; column j belongs to strain j.
        moduli: averages over orientations, stability and anisotropy.
        structure: the relaxed crystal the strains start from.
        strain: largest one.
        num_strained: structures that were evaluated, of 24 that symmetry does not relate.
        relaxed_ions: whether positions were relaxed in each.
        warnings: sentences about what looks wrong.
    """

    formula: str
    spacegroup: str
    ieee: np.ndarray
    as_given: np.ndarray
    raw: np.ndarray
    moduli: Moduli
    structure: Atoms
    strain: float
    num_strained: int
    relaxed_ions: bool
    warnings: tuple[str, ...]

    @property
    def asymmetry(self) -> float:
        """Largest difference of raw and symmetrised constants, eV/Å³: an estimate of the error."""
        return float(np.abs(self.raw - self.ieee).max())

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "formula": self.formula,
            "spacegroup": self.spacegroup,
            "voigt_order": "xx yy zz yz xz xy",
            "tensor_ieee_GPa": (self.ieee / GPA).tolist(),
            "tensor_as_given_GPa": (self.as_given / GPA).tolist(),
            "tensor_raw_GPa": (self.raw / GPA).tolist(),
            "asymmetry_GPa": self.asymmetry / GPA,
            **self.moduli.as_dict(),
            "largest_strain": self.strain,
            "strained_structures": self.num_strained,
            "relaxed_ions": self.relaxed_ions,
            "volume_A3": float(self.structure.get_volume()),
            "warnings": list(self.warnings),
        }


def elastic_constants(
    atoms: Atoms,
    calculator: Calculator,
    *,
    strain: float = 0.005,
    relax_first: bool = False,
    relax_ions: bool = True,
    fmax: float = 1e-4,
    max_steps: int = 500,
    symprec: float = 0.01,
) -> ElasticResult:
    """Compute ``C_ij = ∂S_i/∂E_j``: second Piola–Kirchhoff stress by Lagrangian strain, at zero strain.

    Each of the six strains is applied at ± half and ± the full ``strain``; those that a symmetry of the crystal
    turns into one another are computed once. Both measures of stress and strain do not change under rotations, so
    the slope at zero is the second derivative of the energy by the strain over the volume (Wallace, Thermodynamics of
    Crystals (1972), §2). Stresses must be exact to about 1e-3 GPa: use a calculator in float64.

    Args:
        atoms: the crystal; not changed.
        calculator: of energies, forces and stress.
        strain: largest strain.
        relax_first: relax positions and cell first; without it a crystal under stress is refused.
        relax_ions: relax the positions in each strained cell; without it "clamped-ion" constants.
        fmax: eV/Å, limit of the relaxations.
        max_steps: of each relaxation.
        symprec: Å, within which the crystal is symmetric.

    Raises:
        SimulationError: no crystal, one that is not relaxed or has non-collinear moments, or parameters that make no
            sense.
        StructureError: the calculator refuses the structure.
    """
    require_positive(strain=strain, fmax=fmax, max_steps=max_steps, symprec=symprec)
    if strain > 0.05:
        raise SimulationError(f"The strain must be small, at most 0.05, got {strain}.")
    require_spglib("An elastic tensor")
    crystal = as_crystal(atoms, "An elastic tensor")
    kinds = site_kinds(crystal, calculator, "An elastic tensor")
    warnings = list(without_constraints(atoms))
    crystal = reference_state(crystal, calculator, relax_first, fmax, max_steps, "An elastic tensor")
    symmetry = find_symmetry(crystal, symprec, kinds)
    # In the standard axes symmetry relates the most strains.
    frame = standard_frame(symmetry)
    strains = [part * strain * frame.T @ _unit(component) @ frame for component in range(6) for part in STEPS]
    needed, origin = _distinct(strains, symmetry.rotations)
    strained = [_strained(crystal, strains[number]) for number in needed]
    if relax_ions:
        results = relax_all(strained, calculator, fmax, max_steps, "LBFGS")
        warnings += count_unconverged(results, "strained structures")
        strained = [result.atoms for result in results]
    cauchy = [voigt_6_to_full_3x3_stress(found.stress) for found in evaluate_all(strained, calculator, stress=True)]
    lagrangian = {number: _second_piola(stress, strains[number]) for number, stress in zip(needed, cauchy)}
    stresses = [frame @ rotation @ lagrangian[number] @ rotation.T @ frame.T for number, rotation in origin]
    raw = _slopes(np.reshape([[s[c] for c in VOIGT] for s in stresses], (6, len(STEPS), 6)), strain)
    ieee = invariant_tensor(raw, [frame @ rotation @ frame.T for rotation in symmetry.rotations])
    result = ElasticResult(
        crystal.get_chemical_formula(), symmetry.spacegroup, ieee, invariant_tensor(ieee, [frame.T]), raw,
        moduli(ieee), crystal, strain, len(needed), relax_ions, tuple(warnings),
    )  # fmt: skip
    return _with_warnings(result, symmetry)


def _unit(component: int) -> np.ndarray:
    """Return the strain with this Voigt component 1; shears are engineering strains."""
    found = np.zeros((3, 3))
    i, j = VOIGT[component]
    found[i, j] += 0.5
    found[j, i] += 0.5
    return found


def _deformation(strain: np.ndarray) -> np.ndarray:
    """Return the symmetric F with ``FᵀF = 1 + 2E``."""
    values, vectors = np.linalg.eigh(np.eye(3) + 2 * strain)
    return (vectors * np.sqrt(values)) @ vectors.T


def _strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ _deformation(strain).T, scale_atoms=True)
    return copy


def _second_piola(cauchy: np.ndarray, strain: np.ndarray) -> np.ndarray:
    """Return ``det(F) F⁻¹ σ F⁻ᵀ``."""
    deformation = _deformation(strain)
    inverse = np.linalg.inv(deformation)
    return np.linalg.det(deformation) * inverse @ cauchy @ inverse.T


def _distinct(
    strains: Sequence[np.ndarray], rotations: Sequence[np.ndarray]
) -> tuple[list[int], list[tuple[int, np.ndarray]]]:
    """Return the strains to compute, and for each one where it comes from: ``R E Rᵀ`` of which, by which R."""
    needed: list[int] = []
    origin = []
    for number, strain in enumerate(strains):
        related = (
            (earlier, rotation)
            for earlier in needed
            for rotation in rotations
            if np.allclose(rotation @ strains[earlier] @ rotation.T, strain, atol=1e-6 * np.abs(strain).max())
        )
        found = next(related, None)
        if found is None:
            needed.append(number)
            found = number, np.eye(3)
        origin.append(found)
    return needed, origin


def _slopes(stresses: np.ndarray, strain: float) -> np.ndarray:
    """Return ``C[i, j]`` from stresses (strain j, step, stress i): slope of the cubic through the four steps."""
    powers = np.vander(np.array(STEPS) * strain, 4, increasing=True)
    return np.linalg.solve(powers, stresses)[:, 1].T


def _with_warnings(result: ElasticResult, symmetry: Symmetry) -> ElasticResult:
    found = list(result.warnings)
    if not result.moduli.stable:
        found.append(
            f"The crystal is mechanically unstable (Born): the smallest eigenvalue of its tensor is "
            f"{result.moduli.smallest_eigenvalue / GPA:.3g} GPa."
        )
    if result.asymmetry > LARGE_ASYMMETRY * np.abs(result.raw).max():
        found.append(
            f"Raw and symmetrised constants differ by up to {result.asymmetry / GPA:.3g} GPa: the stresses are noisy "
            f"(float32?), the relaxations too loose, or the symmetry {symmetry.spacegroup} is broken on the way."
        )
    return ElasticResult(**{**vars(result), "warnings": tuple(found)})
