"""What ``mlip hamiltonian`` was asked for: checked as a whole, then done structure by structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip.calculators.hamiltonian import HamiltonianCalculator
from mlip.calculators.orbital_cubes import cube_paths, write_cubes
from mlip.calculators.orbital_plot import plot_orbitals
from mlip.calculators.orbital_result import OrbitalResult
from mlip.calculators.pyscf_guess import ENERGY_TOLERANCE, PREDICTION, ScfRun, scf_cycles
from mlip.core.errors import ConfigError, DataError, MlipError, StructureError
from mlip.data.orbitals import permutation
from mlip.data.pyscf_extra import has_pyscf, require_pyscf
from mlip.data.quantum import pyscf_functional


@dataclass(frozen=True)
class Scf:
    """What ``--scf`` runs: the functional, None for that of the model's data, and the tolerance in Hartree."""

    functional: str | None
    conv_tol: float | None


@dataclass(frozen=True)
class Row:
    """What the table says of a structure; levels in Hartree, None where orbitals were not asked for."""

    formula: str
    orbitals: int
    electrons: int | None
    homo: float | None
    lumo: float | None


@dataclass
class Task:
    """Structures, what to do with each, and what came of it.

    Attributes:
        structures: Å.
        calculator: predicts.
        output: the HDF5 or npz file.
        order: of orbitals in the file.
        orbitals: whether to diagonalise.
        scf: None for no self-consistent calculations.
        plot: picture of the only structure.
        cubes: whether to write cube files.
        rows: of the table, one a structure.
        runs: by guess, one dict a structure.
        written: files beside the output.
    """

    structures: list[Atoms]
    calculator: HamiltonianCalculator
    output: Path
    order: str
    orbitals: bool
    scf: Scf | None
    plot: Path | None
    cubes: bool
    rows: list[Row] = field(default_factory=list)
    runs: list[dict[str, ScfRun]] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def check(self, overwrite: bool) -> None:
        """Refuse what cannot be done, before anything is computed or written.

        Args:
            overwrite: whether files that are there may be replaced.

        Raises:
            MlipError: a file is there, or one that is meant for one structure was asked for several; and as
                `HamiltonianCalculator.check` and `scf_cycles`, naming the structure.
        """
        if self.plot is not None and len(self.structures) > 1:
            raise MlipError(
                f"--plot draws one structure and the file has {len(self.structures)}: choose one with --frame."
            )
        if self.plot is not None and self.plot.suffix != ".png":
            raise MlipError(f"--plot writes .png files, '{self.plot}' is none.")
        files = [self.output, *([self.plot] if self.plot else [])]
        if self.cubes:
            files += [path for k in range(len(self.structures)) for path in cube_paths(self._stem(k)).values()]
        there = [path for path in files if path.exists()]
        if there and not overwrite:
            raise MlipError(
                f"'{there[0]}' is there already: choose another --output (--plot), or replace it with --overwrite."
            )
        if self.orbitals:
            require_pyscf("orbitals")
        if self.scf is not None:
            self._check_scf(self.scf)
        for number, atoms in enumerate(self.structures):
            try:
                self.calculator.check(atoms)
                permutation(atoms.numbers, self.calculator.model.basis, "mlip", self.order)
            except (StructureError, DataError) as error:
                if len(self.structures) == 1:
                    raise
                raise type(error)(f"Structure {number} (counted from 0): {error}") from error

    def _check_scf(self, scf: Scf) -> None:
        require_pyscf("self-consistent calculations")
        functional = scf.functional or self.calculator.model.functional
        if functional is None:
            raise ConfigError("The training data of this model name no functional: give one with --functional b3lyp5.")
        pyscf_functional(functional)
        if scf.conv_tol is not None and not 0 < scf.conv_tol < 1:
            raise ConfigError(f"--conv-tol must be a small positive energy in Hartree, got {scf.conv_tol}.")

    def results(self, report: Callable[[float, int], None]) -> Iterator[tuple[OrbitalResult, dict[str, Any]]]:
        """Yield what goes into the file, structure by structure; rows, runs, pictures and cubes are made on the way.

        Args:
            report: called with the part that is done and the number of structures.
        """
        overlap = has_pyscf()
        for number, atoms in enumerate(self.structures):
            result = self.calculator.predict(atoms, overlap=overlap, orbitals=self.orbitals)
            self.rows.append(_row(atoms, result))
            facts: dict[str, Any] = {"formula": atoms.get_chemical_formula()}
            if self.scf is not None:
                tolerance = ENERGY_TOLERANCE if self.scf.conv_tol is None else self.scf.conv_tol
                runs = scf_cycles(atoms, self.calculator, self.scf.functional, conv_tol=tolerance)
                self.runs.append(runs)
                facts |= {f"scf_cycles_{guess}": run.cycles for guess, run in runs.items()}
                facts |= {"scf_energy_Hartree": runs[PREDICTION].energy, "scf_conv_tol_Hartree": tolerance}
            if self.plot is not None:
                plot_orbitals(self.plot, result, atoms.get_chemical_formula())
                self.written.append(self.plot)
            if self.cubes:
                self.written += write_cubes(self._stem(number), result)
            yield result.in_order(self.order), facts
            report((number + 1) / len(self.structures), number + 1)

    def _stem(self, number: int) -> str:
        """Return the beginning of the names of a structure's cube files."""
        stem = str(self.output.with_suffix(""))
        return stem if len(self.structures) == 1 else f"{stem}_{number}"


def _row(atoms: Atoms, result: OrbitalResult) -> Row:
    if result.occupations is None:
        return Row(atoms.get_chemical_formula(), result.num_orbitals, None, None, None)
    return Row(atoms.get_chemical_formula(), result.num_orbitals, result.num_electrons, result.homo, result.lumo)
