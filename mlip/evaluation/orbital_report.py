"""What an evaluation of a Hamiltonian model collects, molecule by molecule: rows, means, points, pictures."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.core.files import write_atomically
from mlip.data.molecular_orbitals import orbitals_in, orthogonal_combinations
from mlip.data.orbitals import basis_key, orbital_table
from mlip.data.pyscf_extra import has_pyscf
from mlip.data.quantum import num_electrons, overlap
from mlip.data.sample import Sample
from mlip.evaluation.orbital_density import density_errors
from mlip.evaluation.orbital_errors import DEGENERATE, matrix_errors, orbital_errors
from mlip.evaluation.orbital_plots import MatrixPicture, matrix_plot
from mlip.evaluation.parity_points import Panel, Points
from mlip.evaluation.predict import Prediction

MICRO = 1e6
PERCENT = 100.0

TABLE, MATRICES = FILES = ("orbitals.csv", "matrices.png")
"""What `OrbitalReport.write` writes into its folder."""

CORE = -3.0
"""Hartree; orbitals below are drawn as core orbitals."""


@dataclass(frozen=True)
class Column:
    """One number of every molecule.

    Attributes:
        name: in the CSV, after which comes the unit.
        key: of its mean over the molecules in ``metrics.json``; of energies the mean of the absolute values.
        title: in the table.
        unit: of the values.
    """

    name: str
    key: str
    title: str
    unit: str

    @property
    def heading(self) -> str:
        """Name in the first line of the CSV."""
        return f"{self.name}_{self.unit.replace('µ', 'u').replace('%', 'percent')}"


COLUMNS = (
    Column("hamiltonian_mae", "hamiltonian_mae_uEh", "Hamiltonian", "µEh"),
    Column("diagonal_mae", "hamiltonian_diagonal_mae_uEh", "  diagonal blocks", "µEh"),
    Column("off_diagonal_mae", "hamiltonian_off_diagonal_mae_uEh", "  off-diagonal", "µEh"),
    Column("occupied_mae", "occupied_energies_mae_uEh", "occupied energies", "µEh"),
    Column("homo_error", "homo_mae_uEh", "HOMO", "µEh"),
    Column("lumo_error", "lumo_mae_uEh", "LUMO", "µEh"),
    Column("gap_error", "gap_mae_uEh", "gap", "µEh"),
    Column("energy_error", "total_energy_mae_uEh", "total energy", "µEh"),
    Column("dipole_error", "dipole_mae_Debye", "dipole", "Debye"),
    Column("similarity", "similarity_percent", "similarity", "%"),
    Column("similarity_cosine", "similarity_cosine_percent", "  without overlap", "%"),
    Column("similarity_subspace", "similarity_subspace_percent", "  by level", "%"),
)
"""What is reported, in order."""

_HEAD = ("structure", "source", "formula", "atoms", "orbitals", "electrons")
_FRONTIER = ("homo_Eh", "lumo_Eh", "homo_predicted_Eh", "lumo_predicted_Eh")


@dataclass
class Molecule:
    """One row.

    Attributes:
        head: what it is, see `_HEAD`.
        values: by the name of the column, in its unit; NaN or absent for none.
        frontier: true and predicted energies of HOMO and LUMO, Hartree.
        left_out: why it has no orbitals, "" where it has.
    """

    head: Mapping[str, Any]
    values: dict[str, float] = field(default_factory=dict)
    frontier: tuple[float, ...] = (math.nan,) * len(_FRONTIER)
    left_out: str = ""


class OrbitalReport:
    """Collects the errors of predicted Hamiltonians and of their orbitals.

    Overlaps are those of the data, or computed by PySCF; without either, errors of the matrices are all there is.

    Args:
        basis: of the model.
        functional: for ``energies``, where a sample does not say which one it was made with.
        energies: whether total energies and dipoles of the densities are compared, too; PySCF, seconds a molecule.
        degenerate: Hartree, see :data:`mlip.evaluation.orbital_errors.DEGENERATE`.
        look_again: returns the samples of some indices with their predictions once more, for the pictures of matrices,
            of which only two are kept in the end; None draws none.

    Attributes:
        molecules: a row for each structure, in order.
    """

    def __init__(
        self,
        basis: str,
        functional: str | None = None,
        energies: bool = False,
        degenerate: float = DEGENERATE,
        look_again: Callable[[Sequence[int]], Sequence[tuple[Sample, Prediction]]] | None = None,
    ) -> None:
        self._basis, self._functional = basis, functional
        self._energies, self._degenerate, self._look_again = energies, degenerate, look_again
        self._occupied, self._frontier = Points(), Points()
        self.molecules: list[Molecule] = []

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Add one molecule with its ``hamiltonian`` as label and as predicted.

        Raises:
            DataError: matrices in another basis, a damaged overlap, or PySCF fails; names the sample.
        """
        try:
            self._add(sample, prediction["hamiltonian"])
        except DataError as error:
            raise DataError(f"{sample.source}: {error}") from error

    def _add(self, sample: Sample, predicted: np.ndarray) -> None:
        check_basis(sample, self._basis)
        numbers, true = sample.atoms.numbers, sample.labels["hamiltonian"]
        errors = matrix_errors(predicted, true, orbital_table(numbers, self._basis).atom)
        electrons = num_electrons(numbers, self._basis, int(sample.labels.get("charge", 0)))
        formula = sample.atoms.get_chemical_formula()
        head = (len(self.molecules), sample.source, formula, len(numbers), len(true), electrons)
        row = Molecule(dict(zip(_HEAD, head)), left_out=why_no_orbitals(sample, electrons))
        mae = (errors.all, errors.diagonal, errors.off_diagonal)
        row.values |= {column.name: MICRO * value for column, value in zip(COLUMNS, mae)}
        self.molecules.append(row)
        if not row.left_out:
            self._add_orbitals(row, sample, predicted, electrons)

    def _add_orbitals(self, row: Molecule, sample: Sample, predicted: np.ndarray, electrons: int) -> None:
        numbers, positions = sample.atoms.numbers, sample.atoms.positions
        overlaps = sample.labels.get("overlap")
        if overlaps is None and not has_pyscf():
            row.left_out = "no overlap in the data, and PySCF is not installed"
            return
        if overlaps is None:
            overlaps = overlap(numbers, positions, self._basis)
        combinations = orthogonal_combinations(overlaps)
        ours, theirs = orbitals_in(predicted, combinations), orbitals_in(sample.labels["hamiltonian"], combinations)
        found = orbital_errors(ours, theirs, overlaps, electrons, self._degenerate)
        row.values |= {
            "occupied_mae": MICRO * found.occupied,
            "homo_error": MICRO * found.homo,
            "lumo_error": MICRO * found.lumo,
            "gap_error": MICRO * found.gap,
            "similarity": PERCENT * found.similarity,
            "similarity_cosine": PERCENT * found.cosine,
            "similarity_subspace": PERCENT * found.subspace,
        }
        if self._energies:
            functional = sample.info.get("functional") or self._functional
            if functional is None:
                raise DataError("total energies need the functional of the data, which they do not name.")
            density = density_errors(numbers, positions, self._basis, functional, ours, theirs, electrons)
            row.values |= {"energy_error": MICRO * density.energy, "dipole_error": density.dipole}
        count = electrons // 2
        # Every molecule counts the same, as in the table.
        mean = np.full(count, 1 / count)
        self._occupied.add(theirs.energies[:count], ours.energies[:count], theirs.energies[:count] < CORE, mean)
        frontier = [orbitals.energies[count - 1 : count + 1] for orbitals in (theirs, ours)]
        self._frontier.add(*frontier, np.arange(len(frontier[0])))
        # Where every orbital is occupied there is no LUMO.
        row.frontier = tuple(value for pair in frontier for value in [*pair.tolist(), math.nan][:2])

    def values(self, column: Column) -> np.ndarray:
        """Return a column of all molecules that have it; of signed errors their sizes."""
        found = np.array([abs(row.values.get(column.name, math.nan)) for row in self.molecules])
        return found[~np.isnan(found)]

    def errors(self) -> dict[str, float]:
        """Return the means over the molecules by key, for ``metrics.json``; what no molecule has is absent."""
        found = {column.key: self.values(column) for column in COLUMNS}
        return {key: float(values.mean()) for key, values in found.items() if len(values)}

    def left_out(self) -> dict[str, list[str]]:
        """Return the sources of the molecules without orbitals, by the reason."""
        found: dict[str, list[str]] = {}
        for row in self.molecules:
            if row.left_out:
                found.setdefault(row.left_out, []).append(str(row.head["source"]))
        return found

    def record(self) -> dict[str, Any]:
        """Return what `errors` are of, plain data for ``metrics.json``."""
        return {
            "molecules": len(self.molecules),
            "molecules_with_orbitals": sum(not row.left_out for row in self.molecules),
            "left_out": {reason: len(sources) for reason, sources in self.left_out().items()},
            "degenerate_within_uEh": MICRO * self._degenerate,
        }

    def panels(self) -> list[Panel]:
        """Return parity panels of the occupied orbitals' energies and of HOMO and LUMO."""
        found = []
        if self._occupied.count:
            found.append(self._occupied.panel("Occupied orbital energies", "Eh", ("valence", "core")))
        if self._frontier.count:
            found.append(self._frontier.panel("Frontier orbital energies", "Eh", ("HOMO", "LUMO")))
        return found

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``orbitals.csv`` and, if it may look again, ``matrices.png`` with the median and the worst molecule.

        Raises:
            MlipError: a file cannot be written.
        """
        write_atomically(Path(folder) / TABLE, self._write_rows)
        if self._look_again is not None and self.molecules:
            chosen = self.median_and_worst()
            pictures = []
            for (name, index), (sample, prediction) in zip(chosen, self._look_again([k for _, k in chosen])):
                row = self.molecules[index]
                title = f"{name} molecule: {row.head['formula']}, {Path(sample.source).name}"
                atom = orbital_table(sample.atoms.numbers, self._basis).atom
                true, predicted = sample.labels["hamiltonian"], prediction["hamiltonian"]
                pictures.append(MatrixPicture(title, sample.atoms.get_chemical_symbols(), atom, true, predicted))
            matrix_plot(Path(folder) / MATRICES, pictures)

    def median_and_worst(self) -> list[tuple[str, int]]:
        """Return names and indices of the two molecules by their error of the Hamiltonian; one if there is one only."""
        order = np.argsort([row.values["hamiltonian_mae"] for row in self.molecules], kind="stable")
        chosen = [("Median", int(order[(len(order) - 1) // 2])), ("Worst", int(order[-1]))]
        return chosen if chosen[0][1] != chosen[1][1] else [("Only", chosen[1][1])]

    def _write_rows(self, path: Path) -> None:
        columns = [column for column in COLUMNS if len(self.values(column))]
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow([*_HEAD, *(column.heading for column in columns), *_FRONTIER, "left_out"])
            for row in self.molecules:
                numbers = [row.values.get(column.name, math.nan) for column in columns]
                texts = [_text(value) for value in (*numbers, *row.frontier)]
                writer.writerow([*row.head.values(), *texts, row.left_out])


def check_basis(sample: Sample, basis: str) -> None:
    """Refuse matrices in another basis than the model's.

    Raises:
        DataError: names the two.
    """
    stated = sample.info.get("basis")
    if stated is not None and basis_key(str(stated)) != basis_key(basis):
        raise DataError(f"its matrices are in {stated}, the model predicts them in {basis}.")


def why_no_orbitals(sample: Sample, electrons: int) -> str:
    """Return why a molecule is none whose orbitals are compared: charged or open-shell; "" where it is one."""
    charge, spin = int(sample.labels.get("charge", 0)), int(sample.labels.get("spin", 1))
    if charge:
        return "charged"
    return "open-shell" if spin != 1 or electrons % 2 else ""


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"
