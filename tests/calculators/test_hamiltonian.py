"""Predicted Hamiltonians: they turn with the molecule, their orbitals solve the equation, the order is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from scipy.linalg import eigh
from scipy.spatial.transform import Rotation

from mlip import HamiltonianCalculator
from mlip.core.errors import DataError
from mlip.core.units import BOHR, HARTREE
from mlip.data.orbital_rotation import orbital_rotation
from mlip.data.orbitals import permutation
from mlip.data.quantum import initial_hamiltonian
from tests.calculators.hamiltonian_models import StoredHamiltonian, random_hamiltonian_model, water


def symmetric(size: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(size, size))
    return (values + values.T) / 2


@pytest.mark.parametrize("determinant", [1, -1])
def test_a_turned_molecule_has_the_turned_matrix(determinant: int) -> None:
    """Also when it was reflected and moved."""
    calculator = HamiltonianCalculator(random_hamiltonian_model())
    atoms = water()
    atoms.rattle(0.1, seed=1)
    rotation = determinant * Rotation.random(random_state=2).as_matrix()
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation.T + [0.3, -2.0, 5.0]
    before, after = calculator.predict(atoms), calculator.predict(turned)
    matrix = orbital_rotation(atoms.numbers, before.basis, rotation)
    assert np.abs(before.hamiltonian).max() > 1
    assert np.abs(after.hamiltonian - matrix @ before.hamiltonian @ matrix.T).max() < 1e-9
    assert np.abs(after.hamiltonian - before.hamiltonian).max() > 1e-3
    assert np.array_equal(before.hamiltonian, before.hamiltonian.T)
    assert (before.order, before.basis, before.functional) == ("mlip", "def2-svp", "b3lyp5")
    assert np.array_equal(before.positions, atoms.positions)


def test_turned_orbitals() -> None:
    """Energies and the density's dipole, which are what a user sees, turn with it, through PySCF's overlaps."""
    pytest.importorskip("pyscf")
    calculator = HamiltonianCalculator(random_hamiltonian_model())
    atoms, rotation = water(), Rotation.random(random_state=3).as_matrix()
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation.T
    before, after = (calculator.predict(one, orbitals=True) for one in (atoms, turned))
    assert np.allclose(before.orbital_energies, after.orbital_energies, atol=1e-8)
    assert np.allclose(after.dipole(), rotation @ before.dipole(), atol=1e-7)
    assert np.linalg.norm(before.dipole()) > 0.01


def test_orbitals_against_scipy_and_pyscf() -> None:
    """In every order: H C = S C ε, and S is PySCF's own for rows of that order."""
    pytest.importorskip("pyscf")
    result = HamiltonianCalculator(StoredHamiltonian(symmetric(24))).predict(water(), orbitals=True)
    in_pyscf = result.in_order("pyscf")
    assert np.allclose(in_pyscf.overlap, result.mol().intor("int1e_ovlp"), atol=1e-12)
    for order in ("mlip", "pyscf", "orca"):
        found = result.in_order(order)
        assert np.allclose(eigh(found.hamiltonian, found.overlap, eigvals_only=True), found.orbital_energies)
        left = found.hamiltonian @ found.coefficients
        assert np.allclose(left, found.overlap @ found.coefficients * found.orbital_energies, atol=1e-10)
        assert np.allclose(found.coefficients.T @ found.overlap @ found.coefficients, np.eye(24), atol=1e-10)
        assert np.trace(found.density @ found.overlap) == pytest.approx(10)
        index = permutation(water().numbers, "def2-svp", "mlip", order)
        assert np.array_equal(found.hamiltonian, symmetric(24)[index][:, index])
        assert np.array_equal(found.in_order("mlip").coefficients, result.coefficients)
    assert (result.num_electrons, result.num_orbitals, result.homo_index) == (10, 24, 4)
    assert result.gap == result.orbital_energies[5] - result.orbital_energies[4]


def test_without_a_virtual_orbital() -> None:
    """Helium in a minimal basis has one orbital."""
    pytest.importorskip("pyscf")
    from ase import Atoms

    model = StoredHamiltonian(np.array([[-0.9]]), basis="sto-3g", elements=("He",))
    result = HamiltonianCalculator(model).predict(Atoms("He"), orbitals=True)
    assert result.homo == pytest.approx(-0.9)
    assert result.lumo is result.gap is None


def test_it_is_an_ase_calculator_without_energy() -> None:
    scf = pytest.importorskip("pyscf.scf")
    atoms = water()
    calculator = HamiltonianCalculator(StoredHamiltonian(symmetric(24)))
    atoms.calc = calculator
    result = calculator.predict(atoms, orbitals=True)
    dipole = scf.hf.dip_moment(result.mol(), result.in_order("pyscf").density, unit="AU", verbose=0)
    assert np.allclose(atoms.get_dipole_moment(), dipole * BOHR, atol=1e-10)
    assert calculator.get_property("gap", atoms) == pytest.approx(result.gap * HARTREE)
    with pytest.raises(PropertyNotImplementedError, match="has no energy: it has dipole, homo, lumo, gap"):
        atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="has no forces"):
        atoms.get_forces()
    atoms.positions[1, 0] += 0.1
    moved = calculator.predict(atoms, orbitals=True)
    assert calculator.get_property("homo", atoms) == pytest.approx(moved.homo * HARTREE), "the overlap has changed"


def test_only_what_was_asked_for() -> None:
    result = HamiltonianCalculator(random_hamiltonian_model()).predict(water())
    assert result.overlap is result.coefficients is None
    with pytest.raises(DataError, match=r"not asked for: use predict\(atoms, orbitals=True\)"):
        _ = result.homo
    with pytest.raises(DataError, match="coefficients were not asked for"):
        _ = result.density


def test_a_model_of_the_difference_gets_its_initial_guess() -> None:
    """The same weights, with and without: the difference is PySCF's Fock matrix of the minao guess."""
    pytest.importorskip("pyscf")
    overrides = ("model/target=difference", "model.onsite=null")
    whole, difference = (random_hamiltonian_model(*words) for words in (("model.onsite=null",), overrides))
    assert difference.needs == ("initial_hamiltonian",)
    atoms = water()
    found = [HamiltonianCalculator(model).predict(atoms).hamiltonian for model in (whole, difference)]
    guess = initial_hamiltonian(atoms.numbers, atoms.positions, "def2-svp", "b3lyp5")
    assert np.allclose(found[1] - found[0], guess, atol=1e-10)


def test_precision_can_be_chosen() -> None:
    model = random_hamiltonian_model()
    exact, single = (HamiltonianCalculator(model, dtype=name).predict(water()) for name in ("float64", "float32"))
    assert single.hamiltonian.dtype == np.float64
    error = np.abs(exact.hamiltonian - single.hamiltonian).max()
    assert 0 < error < 1e-3
