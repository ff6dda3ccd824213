"""Orbital energies and coefficients: closed formulas, made-up solutions, PySCF's own solver, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from mlip.core.errors import DataError
from mlip.data.molecular_orbitals import (
    closed_shells,
    density_matrix,
    molecular_orbitals,
    orbitals_in,
    orthogonal_combinations,
)
from mlip.data.quantum import molecule
from tests.data.fixtures.qh9 import BOHR_ANGSTROM, WATER, WATER_BOHR


def test_two_orbitals_by_hand():
    """ε = (a ± b) / (1 ± s), with the sum and the difference of the two functions."""
    a, b, s = -0.5, -0.4, 0.6
    found = molecular_orbitals(np.array([[a, b], [b, a]]), np.array([[1, s], [s, 1]]))
    assert found.energies == pytest.approx([(a + b) / (1 + s), (a - b) / (1 - s)], abs=1e-14)
    expected = np.array([[1, 1], [1, -1]]) / np.sqrt([2 * (1 + s), 2 * (1 - s)])
    assert np.allclose(np.abs(found.coefficients), np.abs(expected), atol=1e-14)
    assert np.prod(found.coefficients[:, 0]) > 0 > np.prod(found.coefficients[:, 1])


def test_solutions_that_were_put_in():
    rng = np.random.default_rng(0)
    transform = rng.normal(size=(6, 6)) + 3 * np.eye(6)
    energies = np.sort(rng.normal(size=6))
    overlap, hamiltonian = transform @ transform.T, transform @ np.diag(energies) @ transform.T
    found = molecular_orbitals(hamiltonian, overlap)
    assert np.allclose(found.energies, energies, atol=1e-12)
    assert np.allclose(found.coefficients.T @ overlap @ found.coefficients, np.eye(6), atol=1e-12)
    assert np.allclose(hamiltonian @ found.coefficients, overlap @ found.coefficients * found.energies, atol=1e-11)
    # The true ones are the columns of the inverse.
    assert np.allclose(np.abs(found.coefficients), np.abs(np.linalg.inv(transform).T), atol=1e-11)


def test_linearly_dependent_functions_are_left_out():
    """The third function is the sum of the first two: two orbitals, the same as without it."""
    build = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    two = np.array([[-1.0, 0.2], [0.2, 0.3]])
    found = molecular_orbitals(build @ two @ build.T, build @ build.T)
    assert found.coefficients.shape == (3, 2)
    assert np.allclose(found.energies, np.linalg.eigvalsh(two), atol=1e-12)
    functions = orthogonal_combinations(build @ build.T)
    assert np.allclose(orbitals_in(build @ two @ build.T, functions).energies, found.energies)


def test_pyscf_finds_the_same():
    """One-electron orbitals of water, whose levels are all apart."""
    scf = pytest.importorskip("pyscf.scf")
    mol = molecule(WATER, np.array(WATER_BOHR) * BOHR_ANGSTROM, "def2-svp")
    core, overlap = scf.hf.get_hcore(mol), mol.intor_symmetric("int1e_ovlp")
    energies, coefficients = scf.hf.eig(core, overlap)
    found = molecular_orbitals(core, overlap)
    assert np.allclose(found.energies, energies, atol=1e-10)
    assert np.allclose(np.abs(coefficients.T @ overlap @ found.coefficients), np.eye(24), atol=1e-8)


def test_electrons_and_density():
    assert closed_shells(3, 4).tolist() == [2, 2, 0]
    rng = np.random.default_rng(1)
    overlap = np.cov(rng.normal(size=(4, 30)))
    hamiltonian = np.cov(rng.normal(size=(4, 30)))
    orbitals = molecular_orbitals(hamiltonian, overlap)
    density = density_matrix(orbitals.coefficients, closed_shells(4, 6))
    assert np.trace(density @ overlap) == pytest.approx(6)
    assert np.trace(density @ hamiltonian) == pytest.approx(2 * orbitals.energies[:3].sum())
    assert np.allclose(density @ overlap @ density, 2 * density)
    for electrons in (5, 0, 10):
        with pytest.raises(DataError, match=f"2 to 8 in its 4 orbitals; there are {electrons}"):
            closed_shells(4, electrons)


@pytest.mark.parametrize(
    ("hamiltonian", "overlap", "message"),
    [
        (np.eye(2), np.diag([1.0, -1.0]), "must be positive definite, it has the eigenvalue -1:"),
        (np.eye(2), np.eye(3), "must be of one size, got 2 and 3"),
        (np.ones(4), np.eye(2), r"Hamiltonian of orbitals must be a square matrix, its shape is \(4,\)"),
        (np.eye(2), np.full((2, 2), np.nan), "overlap of orbitals must be finite"),
        (
            np.array([[1.0, 0.5], [0.4, 1.0]]),
            np.eye(2),
            "Hamiltonian of orbitals must be symmetric, it differs .* by 0.1",
        ),
    ],
)
def test_matrices_that_are_refused(hamiltonian, overlap, message):
    with pytest.raises(DataError, match=message):
        molecular_orbitals(hamiltonian, overlap)
