"""Committees as calculators: numpy over single calculators, and what is computed when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read, write

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, ModelFileError, StructureError
from mlip.models.model_file import save_model
from tests.calculators.structures import crystal, slab
from tests.components import small_facet
from tests.simulate.pair_model import PairModel

ALL = ("energy", "energies", "forces", "stress")
SPREADS = ("energy_std", "energies_std", "forces_std", "stress_std")
MODELS = [PairModel(depth=0.3), PairModel(depth=0.4, cutoff=3.6), PairModel(("C", "Cu"), width=1.1)]


def results_of(model: object, atoms: Atoms) -> dict[str, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = MLIPCalculator(model)
    atoms.get_stress()
    return atoms.calc.results


@pytest.mark.parametrize("atoms", [crystal(), slab()], ids=["crystal", "slab"])
def test_means_and_spreads_over_single_calculators(atoms: Atoms) -> None:
    each = [results_of(model, atoms) for model in MODELS]
    found = results_of(MODELS, atoms)
    values = {name: np.stack([one[name] for one in each]) for name in ALL}
    for name in ALL:
        np.testing.assert_allclose(found[name], values[name].mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["energy_std"], values["energy"].std(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["energies_std"], values["energies"].std(0), rtol=0, atol=1e-12)
    deviations = np.square(values["forces"] - values["forces"].mean(0)).sum(2)
    np.testing.assert_allclose(found["forces_std"], np.sqrt(deviations.mean(0)), rtol=0, atol=1e-12)
    # Off-diagonal components stand twice in the tensor.
    twice = np.array([1, 1, 1, 2, 2, 2])
    squares = (twice * np.square(values["stress"] - values["stress"].mean(0))).sum(1)
    np.testing.assert_allclose(found["stress_std"], np.sqrt(squares.mean()), rtol=0, atol=1e-12)
    assert found["energy_std"] > 0.01
    assert type(found["energy_std"]) is type(found["stress_std"]) is float


def test_forces_are_the_gradient_of_the_mean() -> None:
    atoms = crystal()
    atoms.calc = MLIPCalculator(MODELS)
    forces = atoms.get_forces()
    for axis in range(3):
        energies = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[1, axis] += step
            energies.append(moved.get_potential_energy())
        assert forces[1, axis] == pytest.approx(-(energies[0] - energies[1]) / 2e-4, abs=1e-6)


def test_spreads_of_whole_models_come_with_the_forces() -> None:
    atoms = crystal()
    atoms.calc = MLIPCalculator(MODELS)
    atoms.get_potential_energy()
    assert {"energy_std", "energies_std"} <= set(atoms.calc.results)
    assert "forces_std" not in atoms.calc.results
    atoms.get_forces()
    assert "forces_std" in atoms.calc.results
    assert "stress_std" not in atoms.calc.results
    assert [member.calls for member in atoms.calc.model.members] == [[False, True]] * 3


def test_spreads_of_readouts_are_computed_when_asked_for(tmp_path: Path) -> None:
    model = small_facet("model/head=[committee]")
    save_model(tmp_path / "model.safetensors", model)
    atoms = Atoms("OCH3", [[0, 0, 0], [1.4, 0, 0.1], [1.8, 1, 0], [1.9, -0.5, 0.9], [1.7, -0.5, -0.9]])
    atoms.calc = MLIPCalculator(tmp_path / "model.safetensors")
    mean = atoms.get_forces()
    assert {"energy_std", "energies_std"} <= set(atoms.calc.results)
    assert "forces_std" not in atoms.calc.results
    spread = atoms.calc.get_property("forces_std", atoms)
    assert spread.shape == (5,)
    assert spread.min() > 0
    np.testing.assert_allclose(atoms.calc.results["forces"], mean, rtol=0, atol=1e-12)
    # Asked for once, it is computed together with the rest of the next structure, and not with the one after.
    atoms.positions[0] += 0.01
    atoms.get_forces()
    assert "forces_std" in atoms.calc.results
    atoms.positions[0] += 0.01
    atoms.get_forces()
    assert "forces_std" not in atoms.calc.results


def test_a_molecule_has_no_stress_and_no_spread_of_it() -> None:
    atoms = Atoms("CCu", [[0, 0, 0], [0, 0, 2.0]])
    atoms.calc = MLIPCalculator(MODELS)
    with pytest.raises(PropertyNotImplementedError, match="no axis is periodic"):
        atoms.calc.get_property("stress_std", atoms)
    atoms.positions[1] += 0.1
    assert atoms.get_forces().shape == (2, 3)
    assert "stress_std" not in atoms.calc.results


def test_a_single_model_has_no_spread() -> None:
    for model in (MODELS[0], [MODELS[0]]):
        atoms = crystal()
        atoms.calc = MLIPCalculator(model)
        assert isinstance(atoms.calc.model, PairModel)
        with pytest.raises(PropertyNotImplementedError):
            atoms.calc.get_property("energy_std", atoms)
    assert "forces_std" not in MLIPCalculator.implemented_properties


def test_files_of_several_dtypes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    save_model(paths[0], small_facet(seed=0))
    save_model(paths[1], small_facet(seed=1).to(torch.float32))
    assert MLIPCalculator(paths).model.dtype == torch.float64
    assert MLIPCalculator([str(paths[1]), small_facet(seed=2)], dtype="float32").model.dtype == torch.float32
    with pytest.raises(ModelFileError, match=r"no model file .*c\.safetensors"):
        MLIPCalculator([paths[0], tmp_path / "c.safetensors"])
    with pytest.raises(ConfigError, match="the list of models is empty"):
        MLIPCalculator([])


def test_the_elements_of_all_members() -> None:
    atoms = Atoms("HCu", [[0, 0, 0], [0, 0, 2.0]])
    atoms.calc = MLIPCalculator(MODELS)
    with pytest.raises(StructureError, match=r"contains H, .* knows C, Cu"):
        atoms.get_potential_energy()


def test_files_that_ase_writes_hold_the_mean(tmp_path: Path) -> None:
    atoms = crystal()
    atoms.calc = MLIPCalculator(MODELS)
    forces = atoms.get_forces()
    write(tmp_path / "frame.xyz", atoms)
    np.testing.assert_allclose(read(tmp_path / "frame.xyz").get_forces(), forces, atol=1e-7)
