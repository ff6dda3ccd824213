"""Phonons of a crystal by finite displacements, with phonopy: bands, density of states, thermodynamics."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.units import kJ, mol

from mlip.core.errors import ConfigError, SimulationError
from mlip.core.files import write_atomically
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import Evaluation, evaluate_all
from mlip.simulate.properties.crystals import as_crystal, reference_state, require_neutral, without_constraints
from mlip.simulate.properties.phonon_spectrum import (
    IMAGINARY,
    BandSegment,
    Thermodynamics,
    bands_along_path,
    density_and_thermodynamics,
    frequencies_at,
    lowest_frequency,
)
from mlip.simulate.properties.sites import arranged, kind_numbers, site_kinds
from mlip.simulate.properties.supercells import check_repeats, repeats_for, small_supercell_warning

LARGE_SUM = 0.05
"""eV/Å² by which forces on all atoms may fail to add up to zero."""

MANY_LEFT_OUT = 0.03
"""Share of the modes that the thermodynamics may leave out: the acoustic ones at Γ, among the many of a dense mesh."""


@dataclass(frozen=True)
class PhononResult:
    """Phonons of a crystal.

    Attributes:
        formula: of the primitive cell.
        spacegroup: symbol and number.
        repeats: (3,) how often the cell given is repeated along its axes.
        num_displacements: supercells with a displaced atom.
        displacement: Å.
        bands: segments of the path of seekpath.
        dos: (points, 2) THz and states per THz and primitive cell.
        thermodynamics: against temperature.
        lowest: THz, the lowest frequency on path, mesh and the wave vectors that fit into the supercell.
        lowest_qpoint: (3,) where it is.
        exact: whether the lowest frequency is at a wave vector that fits into the supercell.
        residual_force: eV/Å, largest force in the supercell without a displacement; it was subtracted.
        sum_rule: eV/Å², largest ``|Σ_j Φ_ij|`` or ``|Σ_i Φ_ij|``, which should be zero; it was
            then corrected.
        phonopy: the object of phonopy, with forces and force constants.
        structure: crystal the displacements start from.
        warnings: sentences about what looks wrong.
    """

    formula: str
    spacegroup: str
    repeats: tuple[int, int, int]
    num_displacements: int
    displacement: float
    bands: tuple[BandSegment, ...]
    dos: np.ndarray
    thermodynamics: Thermodynamics
    lowest: float
    lowest_qpoint: np.ndarray
    exact: bool
    residual_force: float
    sum_rule: float
    phonopy: Any
    structure: Atoms
    warnings: tuple[str, ...]

    @property
    def stable(self) -> bool:
        """Whether no mode is imaginary."""
        return self.lowest > -IMAGINARY

    @property
    def highest(self) -> float:
        """THz, the highest frequency on the path."""
        return max(float(segment.frequencies.max()) for segment in self.bands)

    def gamma(self) -> np.ndarray:
        """Return the frequencies (bands,) at Γ, THz, without the splitting of longitudinal optical modes."""
        return frequencies_at(self.phonopy, np.zeros((1, 3)))[0]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        thermo = self.thermodynamics
        room = int(np.argmin(np.abs(thermo.temperatures - 300)))
        return {
            "formula_primitive": self.formula,
            "atoms_primitive": len(self.phonopy.primitive),
            "spacegroup": self.spacegroup,
            "supercell": list(self.repeats),
            "atoms_in_supercell": len(self.phonopy.supercell),
            "displacements": self.num_displacements,
            "displacement_A": self.displacement,
            "lowest_frequency_THz": self.lowest,
            "lowest_at_qpoint": self.lowest_qpoint.tolist(),
            "lowest_is_exact_in_this_supercell": self.exact,
            "highest_frequency_THz": self.highest,
            "gamma_frequencies_THz": self.gamma().tolist(),
            "imaginary_modes": not self.stable,
            "zero_point_energy_eV": float(thermo.free_energy[0]) if thermo.temperatures[0] == 0 else None,
            "temperature_K": float(thermo.temperatures[room]),
            "free_energy_eV": float(thermo.free_energy[room]),
            "entropy_J_per_K_mol": float(thermo.entropy[room] * mol * 1000 / kJ),
            "heat_capacity_J_per_K_mol": float(thermo.heat_capacity[room] * mol * 1000 / kJ),
            "modes_left_out": thermo.left_out,
            "residual_force_eV_per_A": self.residual_force,
            "acoustic_sum_rule_violation_eV_per_A2": self.sum_rule,
            "warnings": list(self.warnings),
        }


def phonons(
    atoms: Atoms,
    calculator: Calculator,
    *,
    supercell: Sequence[int] | None = None,
    min_length: float = 12.0,
    displacement: float = 0.01,
    mesh: float = 60.0,
    temperatures: Sequence[float] = tuple(range(0, 1001, 10)),
    path_points: int = 51,
    relax_first: bool = False,
    fmax: float = 1e-4,
    max_steps: int = 500,
    symprec: float = 1e-4,
) -> PhononResult:
    """Compute phonons from the forces on displaced atoms; all displacements are evaluated as one batch.

    Each displaced cell has the magnetic moments, charges, tags and masses of the crystal. Sites that differ in mass, or
    in a moment or charge that the calculator may read, are not symmetric to one another, nor is the primitive cell
    smaller than their order.

    Forces must be exact to about 1e-4 eV/Å: use a calculator in float64. Long-range fields of ionic crystals (LO–TO
    splitting) are left out, since a potential gives no Born charges.

    Args:
        atoms: the crystal; not changed.
        calculator: of energies, forces and stress.
        supercell: how often to repeat the cell along each axis; None: so that it is ``min_length`` wide.
        min_length: Å, smallest distance of opposite faces of the supercell.
        displacement: Å.
        mesh: length in Å that sets the density of wave vectors for density of states and thermodynamics.
        temperatures: K, of the thermodynamics.
        path_points: wave vectors of each segment of the path.
        relax_first: relax positions and cell first; without it a crystal with forces or stress is refused.
        fmax: eV/Å, limit of the relaxation.
        max_steps: of the relaxation.
        symprec: Å, within which the crystal is symmetric.

    Raises:
        ConfigError: phonopy or seekpath is not installed.
        SimulationError: no crystal, one with a charge, an open shell or non-collinear moments, or that is not relaxed,
            or parameters that make no sense.
        StructureError: the calculator refuses the structure.
    """
    require_positive(displacement=displacement, mesh=mesh, fmax=fmax, max_steps=max_steps, symprec=symprec)
    if path_points < 2 or len(temperatures) == 0 or min(temperatures) < 0:
        raise SimulationError("Phonons take at least 2 points on a segment, and temperatures of 0 K or more.")
    phonopy = require_phonopy()
    crystal = as_crystal(atoms, "A phonon spectrum")
    require_neutral(crystal, calculator, "A phonon spectrum")
    kinds = site_kinds(crystal, calculator, "A phonon spectrum", masses=True)
    found = list(without_constraints(atoms))
    repeats = repeats_for(crystal, min_length) if supercell is None else check_repeats(supercell)
    if len(crystal) * math.prod(repeats) == 1:
        raise SimulationError("A supercell of a single atom has no vibrations: give a larger --supercell.")
    crystal = reference_state(crystal, calculator, relax_first, fmax, max_steps, "A phonon spectrum")
    found += small_supercell_warning(crystal, repeats, calculator)
    with _without_notices():
        phonon = phonopy.Phonopy(
            _described(phonopy, crystal, kinds), np.diag(repeats), "auto", symprec=symprec,
            distinguish_symbol_index=True, log_level=0,
        )  # fmt: skip
        phonon.generate_displacements(distance=displacement)
    residual, forces = _forces(phonon, crystal, calculator)
    with _without_notices():
        sum_rule = _force_constants(phonon, forces)
        bands = bands_along_path(phonon, path_points)
        dos, thermodynamics = density_and_thermodynamics(phonon, mesh, temperatures)
        lowest, qpoint, exact = lowest_frequency(phonon, bands)
        spacegroup = phonon.primitive_symmetry.dataset
    if len(phonon.symmetry.pointgroup_operations) < len(phonon.primitive_symmetry.pointgroup_operations):
        found.append("The supercell has less symmetry than the crystal: repeat equivalent axes equally often.")
    found += _warnings(lowest, qpoint, exact, residual, sum_rule, thermodynamics)
    formula = Atoms(phonon.primitive.numbers).get_chemical_formula("metal")
    return PhononResult(
        formula, f"{spacegroup.international} ({spacegroup.number})", repeats, len(forces),
        displacement, bands, dos, thermodynamics, lowest, qpoint, exact, residual, sum_rule, phonon, crystal,
        tuple(found),
    )  # fmt: skip


def save_phonopy(path: str | os.PathLike[str], result: PhononResult) -> None:
    """Write what ``phonopy.load`` reads: cells, displacements, forces and force constants.

    Raises:
        MlipError: the file cannot be written.
    """
    settings = {"force_sets": True, "displacements": True, "force_constants": True}
    write_atomically(path, lambda part: result.phonopy.save(str(part), settings=settings) and None)


def require_phonopy() -> ModuleType:
    """Return the module.

    Raises:
        ConfigError: it, or seekpath, is not installed.
    """
    try:
        import phonopy
        import seekpath  # noqa: F401 - phonopy imports it where it finds the path.
        from phonopy.structure import atoms  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Phonons need phonopy and seekpath ({error}): pip install 'mlip-kit[crystal]', or pip install phonopy "
            "seekpath."
        ) from error
    return phonopy


@contextmanager
def _without_notices() -> Iterator[None]:
    """Silence what phonopy, seekpath and spglib say about each other's and their own versions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="primitive_matrix defaulted to 'auto'")
        warnings.filterwarnings("ignore", message="Warning: Point group symmetries")
        yield


def _described(phonopy: ModuleType, atoms: Atoms, kinds: np.ndarray) -> Any:
    # phonopy tells kinds of an element apart by numbers behind the symbol.
    return phonopy.structure.atoms.PhonopyAtoms(
        symbols=[f"{symbol}{number or ''}" for symbol, number in zip(atoms.symbols, kind_numbers(atoms, kinds))],
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )


def _forces(phonon: Any, crystal: Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    """Return the largest force of the perfect supercell, and the forces (displacements, atoms, 3) without it."""
    cells = [phonon.supercell, *phonon.supercells_with_displacements]
    # Atoms of the supercell to those of the crystal, by way of the first copy of each in the supercell.
    sources = np.array([phonon.supercell.u2u_map[copy] for copy in phonon.supercell.s2u_map])
    structures = [arranged(crystal, sources, cell.cell, cell.scaled_positions) for cell in cells]
    perfect, *displaced = evaluate_all(structures, calculator)
    residual = float(np.linalg.norm(perfect.forces, axis=1).max())
    return residual, np.array([_net(found, perfect) for found in displaced])


def _net(found: Evaluation, perfect: Evaluation) -> np.ndarray:
    return found.forces - perfect.forces


def _force_constants(phonon: Any, forces: np.ndarray) -> float:
    """Fit the constants, correct them, and return by how much they missed the acoustic sum rule."""
    phonon.produce_force_constants(forces=forces, show_drift=False)
    constants = np.asarray(phonon.force_constants)
    # Over the atoms that feel a force, and over those that move.
    violation = max(float(np.abs(constants.sum(axis=axis)).max()) for axis in (0, 1))
    phonon.symmetrize_force_constants(show_drift=False)
    return violation


def _warnings(
    lowest: float, qpoint: np.ndarray, exact: bool, residual: float, sum_rule: float, thermodynamics: Thermodynamics
) -> list[str]:
    found = []
    if lowest < -IMAGINARY:
        where = "(" + ", ".join(f"{value:.3g}" for value in qpoint) + ")"
        what = (
            "a wave vector that fits into the supercell: the crystal is no minimum of this potential"
            if exact
            else "a wave vector that does not fit into the supercell, where it is interpolated: try a larger supercell"
        )
        found.append(
            f"Imaginary modes, down to {-lowest:.3g}i THz at q = {where}, {what}; the thermodynamics leaves out "
            f"{100 * thermodynamics.left_out:.2g} % of the modes."
        )
    elif thermodynamics.left_out > MANY_LEFT_OUT:
        found.append(
            f"The thermodynamics leaves out {100 * thermodynamics.left_out:.0f} % of the modes, which have no "
            "frequency on this mesh of wave vectors, such as the acoustic ones at Γ, so that heat capacity and "
            "zero-point energy are too small: use a denser one (larger --mesh)."
        )
    if residual > 0.01:
        found.append(
            f"Without a displacement forces reach {residual:.3g} eV/Å; they were subtracted; relax the crystal first."
        )
    if sum_rule > LARGE_SUM:
        found.append(
            f"Forces on all atoms add up to {sum_rule:.3g} eV/Å² instead of zero (acoustic sum rule): they are noisy; "
            "use float64 or a larger displacement."
        )
    return found
