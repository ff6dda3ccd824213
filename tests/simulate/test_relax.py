"""Relaxations end in minima that are known from elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms
from ase.io import read
from scipy.optimize import minimize_scalar

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, SimulationError, StructureError
from mlip.core.units import GPA
from mlip.simulate.relax import cell_mask, relax
from tests.simulate.pair_model import PairModel, fcc_energy

MODEL = PairModel()


def calculator() -> MLIPCalculator:
    return MLIPCalculator(MODEL)


def distorted_crystal() -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.25, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.array([[0.02, 0.03, 0], [0, -0.02, 0.01], [0, 0, 0.01]])), True)
    atoms.rattle(0.05, seed=3)
    return atoms


@pytest.mark.parametrize("optimizer", ["FIRE", "lbfgs", "BFGS"])
def test_distorted_crystal_returns_to_the_known_minimum(optimizer: str) -> None:
    best = minimize_scalar(lambda a: fcc_energy(MODEL, a), bounds=(2.8, 4.0), method="bounded", options={"xatol": 1e-8})
    start = distorted_crystal()
    before = start.copy()
    result = relax(start, calculator(), optimizer=optimizer, fmax=1e-4, relax_cell=True)
    assert result.converged
    assert not result.warnings
    assert result.after.energy / 4 == pytest.approx(best.fun, abs=1e-6)
    assert result.after.volume == pytest.approx(best.x**3, rel=1e-4)
    assert result.volume_change == pytest.approx(best.x**3 / before.get_volume() - 1, abs=1e-4)
    assert result.after.fmax < 1e-4 < result.before.fmax
    assert result.after.stress_max < 1e-4 < result.before.stress_max
    assert result.steps == len(result.history) - 1 > 3
    assert start == before


def test_dimer_finds_its_bond_length() -> None:
    best = minimize_scalar(lambda r: MODEL.pair_energy(r, "H", "C"), bounds=(1.5, 3.5), method="bounded")
    result = relax(Atoms("HC", [[0, 0, 0], [0.3, 0, 2.2]]), calculator(), fmax=1e-5)
    assert result.atoms.get_distance(0, 1) == pytest.approx(best.x, abs=1e-4)
    assert result.after.stress_max is None
    assert result.after.volume is None


def test_cell_relaxes_to_a_pressure() -> None:
    result = relax(distorted_crystal(), calculator(), relax_cell=True, pressure=5.0, fmax=1e-4)
    stress = result.atoms.get_stress() / GPA
    np.testing.assert_allclose(stress, [-5, -5, -5, 0, 0, 0], atol=0.02)
    assert result.after.stress_max < 1e-4


def test_slab_relaxes_in_its_plane_only() -> None:
    slab = fcc111("Cu", (1, 1, 3), a=3.4, vacuum=5.0)
    slab.pbc = (True, True, False)
    assert cell_mask(slab).tolist() == [1, 1, 0, 0, 0, 1]
    result = relax(slab, calculator(), relax_cell=True, fmax=1e-3)
    assert result.converged
    np.testing.assert_array_equal(result.atoms.cell.array[2], slab.cell.array[2])
    assert np.abs(result.atoms.cell.array[:2] - slab.cell.array[:2]).max() > 0.01
    # The true in-plane stress, per volume of the slab rather than of the vacuum, is small as well.
    assert np.abs(result.atoms.get_stress()).max() < 1e-3


def test_constraints_and_the_input_are_kept() -> None:
    atoms = distorted_crystal()
    atoms.set_constraint(FixAtoms([0]))
    result = relax(atoms, calculator(), fmax=0.01)
    np.testing.assert_array_equal(result.atoms.positions[0], atoms.positions[0])
    assert np.linalg.norm(result.atoms.positions[1:] - atoms.positions[1:], axis=1).min() > 1e-3
    np.testing.assert_array_equal(result.atoms.cell.array, atoms.cell.array)


def test_trajectory_has_every_step(tmp_path: Path) -> None:
    result = relax(distorted_crystal(), calculator(), trajectory=tmp_path / "t.traj", fmax=0.01)
    frames = read(tmp_path / "t.traj", ":")
    assert [frame.info["step"] for frame in frames] == list(range(result.steps + 1))
    assert [frame.get_potential_energy() for frame in frames] == [entry.energy for entry in result.history]
    np.testing.assert_array_equal(frames[-1].get_forces(), result.atoms.get_forces())


class TestWarnings:
    def test_not_converged(self) -> None:
        result = relax(distorted_crystal(), calculator(), fmax=1e-6, max_steps=2)
        assert not result.converged
        assert "Not converged within 2 steps" in result.warnings[0]

    def test_touching_atoms(self) -> None:
        soft = MLIPCalculator(PairModel(distance=0.8))
        result = relax(Atoms("Cu2", [[0, 0, 0], [0, 0, 1.0]]), soft, fmax=0.01)
        assert "In the final structure atoms 0 (Cu) and 1 (Cu) are 0." in result.warnings[0]

    def test_falling_apart(self) -> None:
        far = MLIPCalculator(PairModel(distance=6.0, cutoff=9.0, width=0.5))
        result = relax(Atoms("CH", [[0, 0, 0], [0, 0, 1.1]]), far, fmax=0.01)
        assert any("fell apart" in warning for warning in result.warnings)


class TestRefusals:
    def test_cell_of_a_molecule(self) -> None:
        with pytest.raises(SimulationError, match="molecule has no cell"):
            relax(molecule("CH4"), calculator(), relax_cell=True)

    def test_cell_of_a_turned_slab(self) -> None:
        slab = fcc111("Cu", (1, 1, 3), a=3.4, vacuum=5.0)
        slab.pbc = (True, True, False)
        slab.rotate(20, "x", rotate_cell=True)
        with pytest.raises(SimulationError, match="Rotate the structure"):
            relax(slab, calculator(), relax_cell=True)

    def test_cell_of_a_slab_without_vacuum_vector(self) -> None:
        slab = fcc111("Cu", (1, 1, 3), a=3.4)
        slab.pbc = (True, True, False)
        slab.cell[2] = 0
        with pytest.raises(SimulationError, match="no volume"):
            relax(slab, calculator(), relax_cell=True)

    def test_pressure_on_a_fixed_cell(self) -> None:
        with pytest.raises(SimulationError, match="cell is fixed"):
            relax(distorted_crystal(), calculator(), pressure=1.0)

    def test_unknown_optimizer(self) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'LBFGS'"):
            relax(distorted_crystal(), calculator(), optimizer="lbfg")

    @pytest.mark.parametrize("options", [{"fmax": 0.0}, {"fmax": float("nan")}, {"max_steps": 0}])
    def test_numbers_that_make_no_sense(self, options: dict[str, float]) -> None:
        with pytest.raises(SimulationError, match="positive"):
            relax(distorted_crystal(), calculator(), **options)

    def test_a_refused_structure_leaves_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(StructureError, match="contains O"):
            relax(molecule("H2O"), calculator(), trajectory=tmp_path / "t.traj")
        assert not list(tmp_path.iterdir())

    def test_ctrl_c_keeps_the_frames(self, tmp_path: Path) -> None:
        def interrupt(entry) -> None:
            if entry.step == 3:
                raise KeyboardInterrupt

        with pytest.raises(SimulationError, match=r"step 3: stopped by the user; 4 frames"):
            relax(distorted_crystal(), calculator(), trajectory=tmp_path / "t.traj", callback=interrupt)
        assert len(read(tmp_path / "t.traj", ":")) == 4


@pytest.mark.parametrize("relax_cell", [False, True])
def test_a_cell_that_is_no_number_is_said_without_a_warning(relax_cell: bool) -> None:
    atoms = bulk("Cu")
    atoms.cell[0, 0] = np.nan
    with pytest.raises(StructureError, match="not finite numbers"):
        relax(atoms, MLIPCalculator(PairModel()), relax_cell=relax_cell)


def test_numbers_are_named_in_words() -> None:
    with pytest.raises(SimulationError, match="number of steps must be a positive"):
        relax(bulk("Cu"), MLIPCalculator(PairModel()), max_steps=0)
