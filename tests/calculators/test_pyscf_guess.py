"""SCF from a prediction: with the true matrix it is over at once, and never ends elsewhere."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mlip import HamiltonianCalculator
from mlip.calculators.pyscf_guess import GUESSES, predicted_initial_guess, scf_cycles
from mlip.core.units import BOHR
from mlip.data.orbitals import reorder
from mlip.data.quantum import kohn_sham, molecule
from tests.calculators.hamiltonian_models import StoredHamiltonian, water

pytest.importorskip("pyscf")


def converged(atoms: Atoms, basis: str, functional: str) -> tuple[np.ndarray, float]:
    """Return PySCF's converged Fock matrix in the order `mlip`, and the energy."""
    calculation = kohn_sham(molecule(atoms.numbers, atoms.positions, basis), functional, grid_level=1)
    calculation.conv_tol = 1e-11
    energy = calculation.kernel()
    return reorder(calculation.get_fock(), atoms.numbers, basis, "pyscf", "mlip"), energy


@pytest.fixture(scope="module")
def minimal() -> tuple[Atoms, StoredHamiltonian, float]:
    """A turned water in STO-3G, a model that has its matrix by heart, and its energy."""
    atoms = water()
    atoms.rotate(40, (1, 2, 3))
    matrix, energy = converged(atoms, "sto-3g", "pbe")
    return atoms, StoredHamiltonian(matrix, "sto-3g", "pbe"), energy


def test_cycles_from_the_true_matrix(minimal) -> None:
    atoms, model, energy = minimal
    runs = scf_cycles(atoms, model, conv_tol=1e-9, grid_level=1)
    assert tuple(runs) == GUESSES
    assert all(run.converged and run.seconds > 0 for run in runs.values())
    assert runs["prediction"].cycles <= 3 < runs["minao"].cycles
    assert all(run.energy == pytest.approx(energy, abs=1e-8) for run in runs.values())


@pytest.mark.slow
def test_a_mole_in_bohr_and_one_in_angstrom(minimal) -> None:
    """The guess belongs to the rows of the user's own molecule, whose basis may go by another name."""
    from pyscf import dft, gto

    atoms, model, energy = minimal
    calculator = HamiltonianCalculator(model)
    symbols = atoms.get_chemical_symbols()
    named = gto.basis.load("sto-3g", "O")
    for unit, factor, basis in (("Ang", 1.0, "sto3g"), ("Bohr", 1 / BOHR, {"O": named, "H": "sto-3g"})):
        mol = gto.M(atom=list(zip(symbols, atoms.positions * factor)), unit=unit, basis=basis, verbose=0)
        calculation = dft.RKS(mol, xc="pbe")
        calculation.grids.level = 1
        guess = predicted_initial_guess(mol, calculator)
        assert np.trace(guess @ mol.intor("int1e_ovlp")) == pytest.approx(10)
        assert calculation.energy_tot(dm=guess) == pytest.approx(energy, abs=1e-8)
        assert scf_cycles(mol, calculator, conv_tol=1e-9, grid_level=1)["prediction"].cycles <= 3


def test_a_wrong_matrix_ends_in_the_same_energy(minimal) -> None:
    """The prediction is a start only: errors of 20 mEh cost cycles, not accuracy."""
    atoms, model, energy = minimal
    noise = np.random.default_rng(0).normal(scale=0.02, size=(7, 7))
    wrong = StoredHamiltonian(model.matrix.detach().numpy() + noise + noise.T, "sto-3g", "pbe")
    runs = scf_cycles(atoms, wrong, conv_tol=1e-10, grid_level=1)
    assert runs["prediction"].energy == pytest.approx(energy, abs=1e-9)
    assert runs["prediction"].cycles > 3


@pytest.mark.slow
def test_f_shells() -> None:
    """def2-TZVP: rows of the guess stand where PySCF has them."""
    atoms = water()
    matrix, energy = converged(atoms, "def2-tzvp", "pbe")
    run = scf_cycles(atoms, StoredHamiltonian(matrix, "def2-tzvp", "pbe"), conv_tol=1e-9, grid_level=1)["prediction"]
    assert run.cycles <= 3
    assert run.energy == pytest.approx(energy, abs=1e-8)


@pytest.mark.slow
def test_core_potentials() -> None:
    """Hydrogen iodide: 28 electrons are in the potential of def2-SVP, and are not in orbitals."""
    atoms = Atoms("IH", [[0, 0, 0], [0, 0, 1.61]])
    matrix, energy = converged(atoms, "def2-svp", "pbe")
    calculator = HamiltonianCalculator(StoredHamiltonian(matrix, functional="pbe", elements=("H", "I")))
    assert calculator.predict(atoms, orbitals=True).num_electrons == 26
    run = scf_cycles(atoms, calculator, conv_tol=1e-9, grid_level=1)["prediction"]
    assert run.cycles <= 3
    assert run.energy == pytest.approx(energy, abs=1e-8)


def stored(folder: Path, name: str, row: int) -> tuple[Atoms, np.ndarray, dict[str, np.ndarray | float]]:
    """Return molecule, Fock matrix (order `mlip`) and extras of a row of QH9's samples."""
    h5py = pytest.importorskip("h5py")
    connection = sqlite3.connect(f"{(folder / f'{name}.db').as_uri()}?mode=ro", uri=True)
    dynamic = "Dynamic" in name
    columns = "id, geo_id, Z, pos, Ham" if dynamic else "id, 0, Z, pos, Ham"
    rows = connection.execute(f"SELECT {columns} FROM data LIMIT 1 OFFSET {row}")
    key, frame, numbers, positions, fock = rows.fetchone()
    connection.close()
    numbers = np.frombuffer(numbers, "<i4")
    positions = np.frombuffer(positions, "<f8").reshape(-1, 3) * (BOHR if dynamic else 1.0)
    size = round((len(fock) / 8) ** 0.5)
    matrix = np.frombuffer(fock, "<f8").reshape(size, size)
    group = f"{int.from_bytes(key, 'little')}_{frame}" if dynamic else str(key)
    with h5py.File(folder / f"{name}_extras.h5") as file:
        extras = {name: file[group][name][:] for name in ("dipole_au", "mo_energy", "mo_occ")} | dict(file[group].attrs)
    return Atoms(numbers, positions), reorder(matrix, numbers, "def2-svp", "pyscf", "mlip"), extras


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "row"),
    [("QH9Dynamic_sample_water", 7), ("QH9Dynamic_sample_water", 150), ("QH9Stable_sample", 11)],
)
def test_stored_samples(reference_data: Path, name: str, row: int) -> None:
    """Energy, dipole, orbital energies and cycles against what was stored when the samples were computed."""
    atoms, matrix, extras = stored(reference_data / "qh9", name, row)
    elements = tuple(sorted(set(atoms.get_chemical_symbols())))
    calculator = HamiltonianCalculator(StoredHamiltonian(matrix, elements=elements))
    result = calculator.predict(atoms, orbitals=True)
    assert np.abs(result.orbital_energies - extras["mo_energy"]).max() < 1e-5
    assert np.array_equal(result.occupations, extras["mo_occ"])
    assert np.abs(result.dipole() / BOHR - extras["dipole_au"]).max() < 1e-5
    runs = scf_cycles(atoms, calculator, conv_tol=1e-9)
    assert runs["minao"].cycles == extras["scf_cycles_to_1e-9"]
    assert runs["prediction"].cycles <= 3
    for run in runs.values():
        assert run.energy == pytest.approx(extras["energy_Ha"], abs=1e-8)


@pytest.mark.reference
@pytest.mark.slow
def test_cycles_at_the_tolerance_of_qh9(reference_data: Path) -> None:
    atoms, matrix, extras = stored(reference_data / "qh9", "QH9Dynamic_sample_water", 0)
    runs = scf_cycles(atoms, StoredHamiltonian(matrix))
    assert runs["minao"].cycles == extras["scf_cycles"]
    assert runs["prediction"].cycles < runs["minao"].cycles
    assert abs(runs["prediction"].energy - extras["energy_Ha"]) < 1e-10
