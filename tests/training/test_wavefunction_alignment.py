"""WALoss against the orbital energies and mixings that perturbation theory expects of it."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.linalg import eigh
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError, DataError
from mlip.data.build_graph import build_graph
from mlip.data.graph import AtomGraph
from mlip.data.quantum import initial_hamiltonian
from mlip.data.quantum import overlap as overlap_of
from mlip.training.losses.penalties import L1, L2
from mlip.training.losses.wavefunction_alignment import WavefunctionAlignment


def case(name: str, size: int, seed: int) -> tuple[AtomGraph, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix, mixing = rng.normal(size=(2, size, size))
    matrix, overlap = matrix + matrix.T, np.eye(size) + 0.05 * (mixing + mixing.T)
    # A 1s orbital.
    matrix[0, 0] -= 20
    graph = build_graph(molecule(name), 3.0, {"hamiltonian": matrix, "overlap": overlap})
    return graph, matrix, overlap


def perturbation(size: int, scale: float = 1e-6) -> np.ndarray:
    change = np.random.default_rng(size).normal(scale=scale, size=(size, size))
    return change + change.T


def squared(matrix: np.ndarray, overlap: np.ndarray, change: np.ndarray, occupied: int, virtual: float) -> np.ndarray:
    """Weighted errors from SciPy's orbitals."""
    coefficients = eigh(matrix, overlap)[1]
    errors = coefficients.T @ change @ coefficients
    errors[occupied:, occupied:] *= virtual
    return errors**2


def test_a_batch_of_molecules_of_two_sizes() -> None:
    (first, h1, s1), (second, h2, s2) = case("H2O", 9, 0), case("CH4", 12, 1)
    changes = [perturbation(9), perturbation(12)]
    batch = Batch.from_data_list([first, second])
    shift = torch.from_numpy(np.concatenate([change.ravel() for change in changes]))
    predictions = {"hamiltonian": (batch.hamiltonian + shift).requires_grad_()}
    loss = WavefunctionAlignment(1.0, L2(), virtual=0.3)(predictions, batch)
    every = [squared(h1, s1, changes[0], 5, 0.3).ravel(), squared(h2, s2, changes[1], 5, 0.3).ravel()]
    assert float(loss.detach()) == pytest.approx(np.concatenate(every).mean(), rel=1e-8)
    loss.backward()
    assert torch.isfinite(predictions["hamiltonian"].grad).all()
    assert predictions["hamiltonian"].grad.abs().max() > 0


def test_its_diagonal_is_the_error_of_the_orbital_energies() -> None:
    graph, matrix, overlap = case("H2O", 9, 2)
    change = perturbation(9)
    predictions = {"hamiltonian": graph.hamiltonian + torch.from_numpy(change.ravel())}
    errors = WavefunctionAlignment(1.0, L1(), virtual=1.0).errors(predictions, graph).view(9, 9).numpy()
    shifts = eigh(matrix + change, overlap, eigvals_only=True) - eigh(matrix, overlap, eigvals_only=True)
    np.testing.assert_allclose(np.diag(errors), shifts, atol=1e-10)


def test_orbitals_that_the_overlap_rules_out_have_no_error() -> None:
    graph, matrix, overlap = case("H2O", 9, 3)
    overlap[8], overlap[:, 8] = overlap[7], overlap[:, 7]
    matrix[8], matrix[:, 8] = matrix[7], matrix[:, 7]
    overlap[8, 8], matrix[8, 8] = overlap[7, 7], matrix[7, 7]
    graph = build_graph(molecule("H2O"), 3.0, {"hamiltonian": matrix, "overlap": overlap})
    predictions = {"hamiltonian": graph.hamiltonian + torch.from_numpy(perturbation(9).ravel())}
    errors = WavefunctionAlignment(1.0, L1()).errors(predictions, graph).view(9, 9)
    assert errors[8].abs().max() == 0
    assert errors[:8, :8].abs().min() > 0


def test_molecules_that_are_no_closed_shells_are_refused() -> None:
    graph, _, _ = case("OH", 9, 4)
    with pytest.raises(DataError, match="even number of electrons"):
        WavefunctionAlignment(1.0, L1())({"hamiltonian": graph.hamiltonian}, graph)


@pytest.mark.parametrize(("basis", "potential"), [("lanl2dz", True), ("sto-3g", False)])
def test_electrons_of_core_potentials_would_be_counted_as_valence(basis: str, potential: bool) -> None:
    """In LANL2DZ chlorine has 7 electrons, not 17: nine of the ten orbitals of HCl would be weighted as occupied."""
    pytest.importorskip("pyscf")
    atoms = molecule("HCl")
    matrix = initial_hamiltonian(atoms.numbers, atoms.positions, basis, "pbe", grid_level=0)
    overlap = overlap_of(atoms.numbers, atoms.positions, basis)
    graph = build_graph(atoms, 3.0, {"hamiltonian": matrix, "overlap": overlap})
    loss = WavefunctionAlignment(1.0, L1())
    if potential:
        with pytest.raises(DataError, match=r"lowest orbital is at -0\.\d+ Hartree, too high for the 1s orbital of Cl"):
            loss({"hamiltonian": graph.hamiltonian}, graph)
    else:
        assert float(loss({"hamiltonian": graph.hamiltonian}, graph)) == 0.0


@pytest.mark.parametrize("options", [{"occupied": -1.0}, {"virtual": "0.1"}, {"virtual": float("nan")}])
def test_bad_factors(options) -> None:
    with pytest.raises(ConfigError, match="factor of errors"):
        WavefunctionAlignment(1.0, L1(), **options)
