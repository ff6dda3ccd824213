"""The ASE calculator against closed forms, finite differences, and itself without memory."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.test import gradient_test
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.calculators.ase import MLIPCalculator
from tests.calculators.structures import MODEL, crystal, slab, wire, with_calculator
from tests.simulate.pair_model import PairModel


def numerical_stress(atoms: Atoms, step: float = 1e-4) -> np.ndarray:
    """Fourth-order central differences with strains along periodic directions, over the volume."""
    periodic = atoms.cell.array[atoms.pbc]
    projector = np.linalg.pinv(periodic) @ periodic
    stress = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            direction = np.zeros((3, 3))
            direction[a, b] = 1
            direction = projector @ (direction + direction.T) / 2 @ projector

            def energy(amount: float, direction: np.ndarray = direction) -> float:
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ (np.eye(3) + amount * direction), scale_atoms=False)
                strained.positions = atoms.positions @ (np.eye(3) + amount * direction)
                strained.calc = MLIPCalculator(MODEL, skin=0)
                return strained.get_potential_energy()

            slope = 8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))
            stress[a, b] = slope / (12 * step)
    return stress / atoms.get_volume()


def test_dimer_energy_is_the_closed_form() -> None:
    for r in (1.8, 2.5, 3.3, 3.999, 4.0, 5.0):
        atoms = with_calculator(Atoms("HCu", [[0, 0, 0], [0, 0, r]]))
        expected = MODEL.pair_energy(np.array(r), "H", "Cu") - 1.01 - 1.29
        assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-12)
        assert atoms.get_potential_energies().sum() == pytest.approx(expected, abs=1e-12)
        assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


@pytest.mark.parametrize("atoms", [crystal(), slab(), wire(), molecule("CH4")], ids=["bulk", "slab", "wire", "CH4"])
def test_forces_are_the_gradient(atoms: Atoms) -> None:
    atoms = with_calculator(atoms)
    analytic, numeric = gradient_test(atoms, range(len(atoms)))
    assert np.abs(analytic - numeric).max() < 1e-6 * max(1.0, np.abs(analytic).max())


@pytest.mark.parametrize(
    "atoms", [crystal(), slab(), slab(tilted=True), wire()], ids=["bulk", "slab", "tilted", "wire"]
)
def test_stress_is_the_strain_derivative(atoms: Atoms) -> None:
    # Turned, so that periodic directions do not lie along the Cartesian axes.
    atoms.rotate(35, (1, 2, 3), rotate_cell=True)
    expected = numerical_stress(atoms)
    found = with_calculator(atoms).get_stress(voigt=False)
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_stress_of_a_slab_has_no_component_along_the_vacuum() -> None:
    stress = with_calculator(slab()).get_stress()
    assert np.abs(stress[:2]).min() > 1e-4
    np.testing.assert_allclose(stress[[2, 3, 4]], 0, atol=1e-15)


def test_voigt_order_and_sign() -> None:
    """A crystal stretched along z pulls back along z: tension is positive."""
    atoms = bulk("Cu", "fcc", a=3.1, cubic=True)
    atoms.set_cell(atoms.cell.array @ np.diag([1, 1, 1.02]), scale_atoms=True)
    relaxed = with_calculator(bulk("Cu", "fcc", a=3.1, cubic=True)).get_stress()
    stress = with_calculator(atoms).get_stress() - relaxed
    assert stress[2] > 1.3 * max(abs(stress[0]), abs(stress[1]))
    sheared = bulk("Cu", "fcc", a=3.1, cubic=True)
    sheared.set_cell(sheared.cell.array @ (np.eye(3) + 0.01 * np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]])), True)
    assert np.argmax(np.abs(with_calculator(sheared).get_stress()[3:])) == 0


def test_wrapped_atoms_are_the_same_structure() -> None:
    atoms = with_calculator(crystal())
    wrapped = atoms.copy()
    wrapped.wrap()
    wrapped = with_calculator(wrapped)
    assert wrapped.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(wrapped.get_forces(), atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(wrapped.get_stress(), atoms.get_stress(), atol=1e-12)


def test_supercell_is_extensive() -> None:
    atoms, large = with_calculator(crystal()), with_calculator(crystal() * (2, 1, 3))
    assert large.get_potential_energy() == pytest.approx(6 * atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(large.get_forces(), np.tile(atoms.get_forces(), (6, 1)), atol=1e-10)
    np.testing.assert_allclose(large.get_stress(), atoms.get_stress(), atol=1e-12)


CHANGES = (
    "small move",
    "large move",
    "strain",
    "pbc",
    "swap species",
    "swap atoms",
    "new structure",
    "less atoms",
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    skin=st.sampled_from([0.0, 0.3, 1.0]),
    changes=st.lists(st.sampled_from(CHANGES), min_size=3, max_size=8),
)
def test_reused_calculator_equals_fresh_ones(seed: int, skin: float, changes: list[str]) -> None:
    """Whatever happens between two calls, no neighbour list and no cached result is stale."""
    rng = np.random.default_rng(seed)
    reused = MLIPCalculator(MODEL, skin=skin)
    atoms = crystal(seed) * (1, 2, 1)
    for change in changes:
        atoms = change_structure(atoms, change, rng)
        atoms.calc = reused
        fresh = with_calculator(atoms, skin=0)
        if rng.random() < 0.5:
            assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-10)
        if rng.random() < 0.7 and atoms.pbc.any():
            np.testing.assert_allclose(atoms.get_stress(), fresh.get_stress(), atol=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-9)
        np.testing.assert_allclose(atoms.get_potential_energies(), fresh.get_potential_energies(), atol=1e-10)


def change_structure(atoms: Atoms, change: str, rng: np.random.Generator) -> Atoms:
    atoms = atoms.copy()
    if change == "small move":
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
    elif change == "large move":
        atoms.positions[rng.integers(len(atoms))] += rng.normal(0, 2, 3)
    elif change == "strain":
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.03, (3, 3))), bool(rng.random() < 0.7))
    elif change == "pbc":
        atoms.pbc = rng.random(3) < 0.5
    elif change == "swap species":
        atoms.symbols[rng.integers(len(atoms))] = str(rng.choice(["H", "C", "Cu"]))
    elif change == "swap atoms":
        atoms = atoms[rng.permutation(len(atoms))]
    elif change == "new structure":
        atoms = crystal(int(rng.integers(1000)))
    elif len(atoms) > 1:
        del atoms[int(rng.integers(len(atoms)))]
    return atoms


def test_only_what_is_asked_for_is_computed() -> None:
    atoms = with_calculator(crystal())
    calls = atoms.calc.model.calls
    atoms.get_potential_energy()
    assert calls == [False]
    assert set(atoms.calc.results) == {"energy", "free_energy", "energies"}
    atoms.get_forces()
    assert calls == [False, True]
    assert "stress" not in atoms.calc.results
    atoms.set_initial_charges([1, -1])
    atoms.get_forces()
    assert len(calls) == 2


def test_a_step_with_forces_and_stress_is_one_evaluation() -> None:
    atoms = with_calculator(crystal())
    for step in range(4):
        atoms.positions += 0.01
        atoms.get_forces()
        atoms.get_stress()
        atoms.get_potential_energy()
        assert len(atoms.calc.model.calls) == 2 + step
    # Who stops asking for the stress soon stops paying for it.
    for _ in range(2):
        atoms.positions += 0.01
        atoms.get_forces()
    assert "stress" not in atoms.calc.results


def test_neighbour_list_is_reused_within_the_skin() -> None:
    atoms = with_calculator(crystal(), skin=0.5)
    for _ in range(5):
        atoms.positions += 0.01
        atoms.get_forces()
    assert atoms.calc.neighbours.num_builds == 1


def test_the_model_passed_in_is_not_touched() -> None:
    model = PairModel()
    calculator = MLIPCalculator(model, dtype="float32")
    assert model.dtype == torch.float64
    assert calculator.model.dtype == torch.float32
    assert model.weights.requires_grad
    atoms = crystal()
    atoms.calc = calculator
    single, double = atoms.get_forces(), with_calculator(atoms).get_forces()
    assert single.dtype == np.float64
    assert 0 < np.abs(single - double).max() < 1e-4


@pytest.mark.parametrize("atoms", [Atoms("Cu"), Atoms("Cu", cell=[20, 20, 20], pbc=True)], ids=["atom", "cell"])
def test_an_atom_without_neighbours(atoms: Atoms) -> None:
    atoms = with_calculator(atoms)
    assert atoms.get_potential_energy() == pytest.approx(-1.29)
    np.testing.assert_array_equal(atoms.get_forces(), np.zeros((1, 3)))
    if atoms.pbc.all():
        np.testing.assert_array_equal(atoms.get_stress(), np.zeros(6))
