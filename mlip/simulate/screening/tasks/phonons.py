"""The task phonons: what ``mlip phonons`` does, for every crystal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

from ase import Atoms

from mlip.calculators.ase import MLIPCalculator
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.phonons import phonons, require_phonopy
from mlip.simulate.screening.record import Column, ScreenRecord
from mlip.simulate.screening.task import Item, ScreeningTask
from mlip.simulate.screening.tasks.one_by_one import Found, one_by_one

_CELL = "of the primitive cell"
_MOLE = "of a mole of primitive cells"


@dataclass(frozen=True)
class PhononTask(ScreeningTask):
    """Phonons by finite displacements; options as of :func:`mlip.simulate.properties.phonons.phonons`."""

    min_length: float = 12.0
    displacement: float = 0.01
    mesh: float = 60.0
    relax_first: bool = False
    fmax: float = 1e-4
    max_steps: int = 500

    name = "phonons"
    dtype = "float64"
    columns = {  # noqa: RUF012
        "formula_primitive": Column(_CELL, "text"),
        "atoms_primitive": Column("in the primitive cell, which extensive quantities are of", "integer"),
        "spacegroup": Column("symbol and number", "text"),
        "supercell": Column("repetitions of the cell along its axes", "text"),
        "displacements": Column("supercells with a displaced atom", "integer"),
        "imaginary_modes": Column("whether there are any", "truth"),
        "lowest_frequency": Column("on path, mesh and the wave vectors that fit into the supercell", unit="THz"),
        "highest_frequency": Column("on the path", unit="THz"),
        "zero_point_energy": Column(_CELL, unit="eV"),
        "free_energy_300K": Column(_CELL, unit="eV"),
        "entropy_300K": Column(_MOLE, unit="J/K/mol"),
        "heat_capacity_300K": Column(_MOLE, unit="J/K/mol"),
        "residual_force": Column("largest force without a displacement; it was subtracted", unit="eV/A"),
        "sum_rule": Column("by which the acoustic sum rule was missed; it was corrected", unit="eV/A2"),
        "gamma_frequencies": Column("at the zone centre", "numbers", "THz"),
        "dos_frequencies": Column("of the density of states", "numbers", "THz"),
        "dos": Column(f"density of states {_CELL}", "numbers", "1/THz"),
        "temperatures": Column("of the thermodynamics", "numbers", "K"),
        "free_energy": Column(_CELL, "numbers", "eV"),
        "entropy": Column(_CELL, "numbers", "eV/K"),
        "heat_capacity": Column(_CELL, "numbers", "eV/K"),
    }
    highlights = ("lowest_frequency", "highest_frequency", "heat_capacity_300K")

    def __post_init__(self) -> None:
        require_positive(**{name: value for name, value in asdict(self).items() if name != "relax_first"})

    def check(self) -> None:
        """Raise `ConfigError` without phonopy."""
        require_phonopy()

    def run(self, items: Iterable[Item], calculator: MLIPCalculator, batch_atoms: int) -> Iterator[ScreenRecord]:
        """Compute phonons, the displacements of each crystal as batches; see :meth:`ScreeningTask.run`."""
        return one_by_one(items, partial(self._one, calculator))

    def _one(self, calculator: MLIPCalculator, atoms: Atoms) -> Found:
        result = phonons(atoms, calculator, **asdict(self))
        found, thermo = result.as_dict(), result.thermodynamics
        values = {
            "formula_primitive": result.formula,
            "atoms_primitive": found["atoms_primitive"],
            "spacegroup": result.spacegroup,
            "supercell": "x".join(map(str, result.repeats)),
            "displacements": result.num_displacements,
            "imaginary_modes": not result.stable,
            "lowest_frequency": result.lowest,
            "highest_frequency": result.highest,
            "zero_point_energy": found["zero_point_energy_eV"],
            "free_energy_300K": found["free_energy_eV"],
            "entropy_300K": found["entropy_J_per_K_mol"],
            "heat_capacity_300K": found["heat_capacity_J_per_K_mol"],
            "residual_force": result.residual_force,
            "sum_rule": result.sum_rule,
            "gamma_frequencies": found["gamma_frequencies_THz"],
            "dos_frequencies": result.dos[:, 0].tolist(),
            "dos": result.dos[:, 1].tolist(),
            "temperatures": [float(kelvin) for kelvin in thermo.temperatures],
            "free_energy": thermo.free_energy.tolist(),
            "entropy": thermo.entropy.tolist(),
            "heat_capacity": thermo.heat_capacity.tolist(),
        }
        return Found(values, result.structure, result.warnings)
