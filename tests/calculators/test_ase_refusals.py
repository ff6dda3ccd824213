"""What the calculator refuses, each with one sentence."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError

from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.structure_checks import StressUndefinedError
from mlip.core.errors import ConfigError, MlipError, ModelFileError, StructureError
from tests.calculators.structures import MODEL, crystal, slab, with_calculator


def test_unknown_element() -> None:
    with pytest.raises(StructureError, match=r"contains O, .* knows H, C, Cu"):
        with_calculator(molecule("H2O")).get_potential_energy()


def test_empty() -> None:
    with pytest.raises(StructureError, match="at least one atom"):
        with_calculator(Atoms()).get_potential_energy()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_not_finite(value: float) -> None:
    atoms = with_calculator(crystal())
    atoms.get_forces()
    atoms.positions[1, 2] = value
    for _ in range(2):
        with pytest.raises(StructureError, match=r"atom 1 \(Cu\)"):
            atoms.get_forces()
    atoms.positions[1, 2] = 0
    assert np.isfinite(atoms.get_forces()).all()


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([3.0, 3.0, 0.0]), np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_periodic_cell_without_volume(cell: np.ndarray) -> None:
    with pytest.raises(StructureError, match=r"lattice vectors|finite"):
        with_calculator(Atoms("Cu", cell=cell, pbc=True)).get_potential_energy()


def test_stress_of_a_molecule() -> None:
    atoms = with_calculator(molecule("CH4"))
    for kind in (StressUndefinedError, StructureError, PropertyNotImplementedError, MlipError):
        with pytest.raises(kind, match="molecule"):
            atoms.get_stress()
    assert atoms.get_forces().shape == (5, 3)


def test_slab_without_third_vector() -> None:
    atoms, flat = with_calculator(slab()), slab()
    flat.cell[2] = 0
    flat = with_calculator(flat)
    assert flat.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(flat.get_forces(), atoms.get_forces(), atol=1e-12)
    with pytest.raises(StressUndefinedError, match="needs a cell with volume"):
        flat.get_stress()


def test_stress_asked_before_does_not_break_a_molecule_after() -> None:
    calculator = MLIPCalculator(MODEL)
    atoms, methane = crystal(), molecule("CH4")
    atoms.calc = methane.calc = calculator
    atoms.get_stress()
    assert methane.get_forces().shape == (5, 3)


def test_coinciding_atoms_give_numbers_or_a_sentence() -> None:
    atoms = with_calculator(Atoms("Cu2", [[0, 0, 0], [0, 0, 0]]))
    assert np.isfinite(atoms.get_forces()).all()


def test_options(tmp_path) -> None:
    with pytest.raises(ConfigError, match="float32"):
        MLIPCalculator(MODEL, dtype="float63")
    with pytest.raises(ConfigError, match="device"):
        MLIPCalculator(MODEL, device="gpu")
    with pytest.raises(ConfigError, match="CUDA"):
        MLIPCalculator(MODEL, device="cuda:99")
    with pytest.raises(StructureError, match="skin"):
        MLIPCalculator(MODEL, skin=-1)
    with pytest.raises(ModelFileError, match="no model file"):
        MLIPCalculator(tmp_path / "nothing.safetensors")
