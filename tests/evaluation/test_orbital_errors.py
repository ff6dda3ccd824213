"""Errors of one molecule's Hamiltonian: closed formulas, symmetries, degenerate levels, and real matrices."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mlip.core.errors import DataError
from mlip.data.datasets.qh9 import QH9Dataset
from mlip.data.molecular_orbitals import MolecularOrbitals, molecular_orbitals
from mlip.data.orbital_rotation import orbital_rotation
from mlip.data.orbitals import orbital_table, reorder
from mlip.evaluation.orbital_density import density_errors, total_energy_and_dipole
from mlip.evaluation.orbital_errors import OrbitalErrors, levels, matrix_errors, orbital_errors

BASIS = "def2-svp"
MOLECULE = [8, 6, 1, 1]


def rotated(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def matrices(size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an overlap, a Hamiltonian and a slightly different one."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(3, size, size))
    noise = noise + noise.transpose(0, 2, 1)
    overlap = np.eye(size) + 0.2 / math.sqrt(size) * noise[0]
    return overlap, noise[1], noise[1] + 1e-3 * noise[2]


def compare(overlap: np.ndarray, true: np.ndarray, predicted: np.ndarray, electrons: int) -> OrbitalErrors:
    orbitals = [molecular_orbitals(matrix, overlap) for matrix in (predicted, true)]
    return orbital_errors(*orbitals, overlap, electrons)


def assert_same(found: OrbitalErrors, expected: OrbitalErrors, tolerance: float = 1e-10) -> None:
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value, abs=tolerance, nan_ok=True), name


def test_entries_by_hand():
    true = np.zeros((3, 3))
    predicted = np.array([[1.0, 2.0, -3.0], [2.0, 4.0, 5.0], [-3.0, 5.0, -6.0]])
    found = matrix_errors(predicted, true, np.array([0, 0, 1]))
    assert found.diagonal == pytest.approx((1 + 2 + 2 + 4 + 6) / 5)
    assert found.off_diagonal == pytest.approx((3 + 5) / 2)
    assert found.all == pytest.approx(31 / 9)
    alone = matrix_errors(predicted, true, np.zeros(3, dtype=int))
    assert alone.all == alone.diagonal
    assert math.isnan(alone.off_diagonal)
    with pytest.raises(DataError, match=r"over 2 orbitals must be compared, got matrices \(3, 3\) and \(3, 3\)"):
        matrix_errors(predicted, true, np.array([0, 1]))


def test_two_orbitals_by_hand():
    """Prediction: the true orbitals turned by an angle, and energies moved, in orthogonal functions."""
    angle, true = 0.1, np.diag([-0.5, 0.2])
    predicted = rotated(angle) @ np.diag([-0.53, 0.21]) @ rotated(angle).T
    found = compare(np.eye(2), true, predicted, 2)
    expected = OrbitalErrors(0.03, -0.03, 0.01, 0.04, *[math.cos(angle)] * 3)
    assert_same(found, expected, 1e-14)
    both = compare(np.eye(2), true, predicted, 4)
    assert_same(both, OrbitalErrors(0.02, 0.01, math.nan, math.nan, *[math.cos(angle)] * 3), 1e-14)


def test_the_two_similarities_by_hand():
    """Two functions that overlap by s: each is similar to the other by s, as lists of numbers not at all."""
    s = 0.6
    overlap = np.array([[1.0, s], [s, 1.0]])
    first = np.array([[1.0, -s], [0.0, 1.0]]) / np.sqrt([1, 1 - s**2])
    second = first[::-1]
    orbitals = [MolecularOrbitals(np.array([-1.0, 1.0]), columns) for columns in (first, second)]
    assert np.allclose(first.T @ overlap @ first, np.eye(2))
    found = orbital_errors(*orbitals, overlap, 2)
    assert (found.similarity, found.cosine, found.subspace) == pytest.approx((s, 0.0, s))


def test_levels():
    energies = np.array([-20.0, -20.0 + 9e-4, -20.0 + 1.8e-3, -1.0, -0.5, -0.5])
    assert [(level.start, level.stop) for level in levels(energies)] == [(0, 3), (3, 4), (4, 6)]
    assert [(level.start, level.stop) for level in levels(energies, 1e-4)] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6)]
    assert list(levels(energies[:0])) == []


def test_a_perfect_prediction():
    overlap, true, _ = matrices(12, seed=0)
    found = compare(overlap, true, true, 8)
    assert_same(found, OrbitalErrors(0, 0, 0, 0, 1, 1, 1), 1e-12)
    shifted = compare(overlap, true, true + 0.01 * overlap, 8)
    # A multiple of the overlap moves all levels and turns no orbital.
    assert_same(shifted, OrbitalErrors(0.01, 0.01, 0.01, 0, 1, 1, 1), 1e-12)


@pytest.mark.parametrize("reflected", [1, -1])
def test_rotations_change_nothing_but_mean_absolute_entries(reflected: int):
    size = len(orbital_table(MOLECULE, BASIS))
    overlap, true, predicted = matrices(size, seed=1)
    turn = orbital_rotation(MOLECULE, BASIS, reflected * Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix())
    turned = [turn @ matrix @ turn.T for matrix in (overlap, true, predicted)]
    assert_same(compare(*turned, 16), compare(overlap, true, predicted, 16))
    atom = orbital_table(MOLECULE, BASIS).atom
    before, after = matrix_errors(predicted, true, atom), matrix_errors(turned[2], turned[1], atom)
    assert np.linalg.norm(predicted - true) == pytest.approx(np.linalg.norm(turned[2] - turned[1]), rel=1e-12)
    assert 1e-4 < abs(after.all / before.all - 1) < 0.1
    # A quarter turn about z only exchanges orbitals and changes signs.
    quarter = orbital_rotation(MOLECULE, BASIS, np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    again = matrix_errors(quarter @ predicted @ quarter.T, quarter @ true @ quarter.T, atom)
    assert vars(again) == pytest.approx(vars(before), rel=1e-9)


def test_the_order_of_atoms_changes_nothing():
    table = orbital_table(MOLECULE, BASIS)
    overlap, true, predicted = matrices(len(table), seed=2)
    order = [2, 0, 3, 1]
    rows = np.concatenate([np.flatnonzero(table.atom == atom) for atom in order])
    moved = [matrix[rows[:, None], rows] for matrix in (overlap, true, predicted)]
    assert_same(compare(*moved, 16), compare(overlap, true, predicted, 16))
    found = matrix_errors(moved[2], moved[1], orbital_table([MOLECULE[k] for k in order], BASIS).atom)
    assert vars(found) == pytest.approx(vars(matrix_errors(predicted, true, table.atom)), rel=1e-12)


def test_electrons_that_do_not_fit():
    overlap, true, predicted = matrices(4, seed=3)
    for electrons in (3, 0, 10):
        with pytest.raises(DataError, match=f"there are {electrons}"):
            compare(overlap, true, predicted, electrons)


@pytest.fixture(scope="module")
def molecules(reference_data):
    """Atoms, Hamiltonian, overlap and what PySCF found, of molecules of the Stable sample by name."""
    path = reference_data / "qh9" / "QH9Stable_sample.db"
    data, found = QH9Dataset(path), {}
    with h5py.File(path.with_name("QH9Stable_sample_extras.h5")) as extras:
        for index, sample in enumerate(data):
            stored = extras[str(index)]
            overlap = reorder(stored["overlap"][:], sample.atoms.numbers, BASIS, "pyscf", "mlip")
            rest = {name: stored[name][:] for name in ("mo_energy", "dipole_au")} | dict(stored.attrs)
            found[str(stored.attrs["name"])] = (sample.atoms, sample.labels["hamiltonian"], overlap, rest)
    return found


@pytest.mark.reference
@pytest.mark.parametrize(("name", "level", "plain"), [("NH3", slice(2, 4), 0.85), ("CH4", slice(2, 5), 0.85)])
def test_rotations_in_a_degenerate_level_cost_nothing_by_level(molecules, name: str, level: slice, plain: float):
    atoms, hamiltonian, overlap, stored = molecules[name]
    true = molecular_orbitals(hamiltonian, overlap)
    assert np.abs(true.energies - stored["mo_energy"]).max() < 4e-6
    assert np.ptp(true.energies[level]) < 4e-6
    turned = true.coefficients.copy()
    turned[:, level.start : level.start + 2] = turned[:, level.start : level.start + 2] @ rotated(math.pi / 3)
    found = orbital_errors(MolecularOrbitals(true.energies, turned), true, overlap, int(atoms.numbers.sum()))
    # Of five orbitals two are turned by 60°: (3 + 2 cos 60°) / 5.
    assert found.similarity == pytest.approx(0.8, abs=1e-9)
    assert found.cosine < plain
    assert found.subspace == pytest.approx(1.0, abs=1e-9)
    assert found.occupied == 0


@pytest.mark.reference
def test_random_errors_of_entries(molecules):
    """The numbers in docs/evaluate.md: 57 µEh in the entries mix what is degenerate or nearly so, and nothing else."""
    found, sizes = {}, []
    for name, (atoms, hamiltonian, overlap, _) in molecules.items():
        noise = 1e-4 * np.random.default_rng(0).normal(size=hamiltonian.shape)
        noise = (noise + noise.T) / 2
        sizes.append(np.abs(noise).mean())
        found[name] = compare(overlap, hamiltonian, hamiltonian + noise, int(atoms.numbers.sum()))
    assert np.mean(sizes) == pytest.approx(57e-6, abs=1e-6)
    similarity = {name: found[name].similarity for name in ("NH3", "F2", "CH4", "H2O")}
    assert list(similarity.values()) == pytest.approx([0.69, 0.77, 0.83, 1.0], abs=0.005)
    means = {key: np.mean([abs(getattr(one, key)) for one in found.values()]) for key in vars(found["H2O"])}
    assert means["similarity"] == pytest.approx(0.915, abs=0.001)
    assert means["cosine"] == pytest.approx(0.915, abs=0.001)
    assert means["subspace"] > 0.9999
    assert means["lumo"] / means["homo"] == pytest.approx(3.4, abs=0.1)


@pytest.mark.reference
@pytest.mark.slow
def test_total_energy_and_dipole_of_the_true_density_are_those_of_the_scf(molecules):
    pytest.importorskip("pyscf")
    atoms, hamiltonian, overlap, stored = molecules["H2O"]
    true = molecular_orbitals(hamiltonian, overlap)
    density = 2 * true.coefficients[:, :5] @ true.coefficients[:, :5].T
    place = (atoms.numbers, atoms.positions, BASIS, "b3lyp5")
    ((energy, dipole),) = total_energy_and_dipole(*place, [density])
    assert energy == pytest.approx(stored["energy_Ha"], abs=1e-8)
    assert dipole == pytest.approx(2.541746473 * stored["dipole_au"], abs=1e-6)
    # The energy is stationary: errors of the orbitals count by their squares.
    step = 2e-4 * np.random.default_rng(0).normal(size=hamiltonian.shape)
    errors = [
        density_errors(*place, molecular_orbitals(hamiltonian + size * (step + step.T), overlap), true, 10)
        for size in (0.0, 1.0, 2.0)
    ]
    assert errors[0].energy == errors[0].dipole == 0
    assert errors[1].energy > 1e-8
    assert errors[2].energy / errors[1].energy == pytest.approx(4, rel=0.05)
    assert errors[2].dipole / errors[1].dipole == pytest.approx(2, rel=0.05)
