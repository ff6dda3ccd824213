"""The filter of the cell is ASE's; cells relax to what other codes and other routes find."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from scipy.linalg import logm
from scipy.optimize import minimize_scalar

from mlip.core.errors import ConfigError, SimulationError
from mlip.core.units import GPA
from mlip.simulate.cell_filter import CellFilter, _logarithm
from mlip.simulate.relax import OPTIMIZERS, relax


def crystal(strain: float = 0.03) -> Atoms:
    rng = np.random.default_rng(5)
    atoms = bulk("Cu", "fcc", a=3.5, cubic=True)
    atoms.symbols[1] = "Al"
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hydrostatic_strain": True},
        {"constant_volume": True},
        {"scalar_pressure": 10 * GPA},
        {"mask": [1, 1, 0, 0, 0, 1]},
        {"exp_cell_factor": 7.0},
    ],
)
def test_filter_equals_that_of_ase(options: dict) -> None:
    ours, theirs = CellFilter(crystal(), **options), FrechetCellFilter(crystal(), **options)
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.02, 0.1):
        step = scale * rng.normal(size=(7, 3))
        for one in (ours, theirs):
            one.set_positions(one.get_positions() + step)
        np.testing.assert_allclose(ours.get_positions(), theirs.get_positions(), atol=1e-10)
        np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), atol=1e-10)
        np.testing.assert_allclose(ours.stress, theirs.stress, atol=1e-10)
        assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-10)


def test_logarithm_near_one_and_far_away() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.0, 1e-12, 1e-6, 1e-3, 0.05, 0.09, 0.2):
        matrix = np.eye(3) + scale * rng.normal(size=(3, 3))
        np.testing.assert_allclose(_logarithm(matrix), logm(matrix), atol=1e-13)


@pytest.mark.parametrize(
    ("options", "filter_options"),
    [
        pytest.param({}, {}, marks=pytest.mark.slow),
        pytest.param({"fix_volume": True}, {"constant_volume": True}, marks=pytest.mark.slow),
        ({"pressure": 5.0}, {"scalar_pressure": 5 * GPA}),
    ],
)
def test_relaxation_equals_that_of_ase(options: dict, filter_options: dict) -> None:
    start, alone = crystal(), crystal()
    found = relax(start, EMT(), relax_cell=True, fmax=0.02, **options)
    optimizer = FIRE(FrechetCellFilter(alone, **filter_options), logfile=None)
    assert optimizer.run(fmax=0.02, steps=500)
    assert found.converged
    assert found.steps == optimizer.nsteps
    assert found.after.energy == pytest.approx(alone.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(found.atoms.cell.array, alone.cell.array, atol=1e-8)
    np.testing.assert_allclose(found.atoms.positions, alone.positions, atol=1e-8)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "bfgs-line-search"])
@pytest.mark.parametrize("symbol", ["Al", pytest.param("Cu", marks=pytest.mark.slow)])
def test_lattice_constants_of_emt(symbol: str, optimizer: str) -> None:
    def energy(a: float) -> float:
        atoms = bulk(symbol, "fcc", a=a)
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    best = minimize_scalar(energy, bounds=(3.4, 4.3), method="bounded", options={"xatol": 1e-9})
    found = relax(bulk(symbol, "fcc", a=best.x * 1.04), EMT(), relax_cell=True, fmax=2e-4, optimizer=optimizer)
    assert found.converged
    assert (4 * found.after.volume) ** (1 / 3) == pytest.approx(best.x, abs=2e-4)
    assert found.after.stress_max < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["PreconLBFGS", "PreconFIRE"])
def test_preconditioned_relaxation_of_many_atoms(optimizer: str) -> None:
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * 3
    atoms.rattle(0.1, seed=0)
    found, plain = (relax(atoms, EMT(), fmax=0.005, optimizer=name) for name in (optimizer, "FIRE"))
    assert found.converged
    assert found.after.fmax < 0.005
    assert found.after.energy == pytest.approx(plain.after.energy, abs=1e-3)


def test_fixed_volume_keeps_the_volume_and_relaxes_the_shape() -> None:
    start = crystal()
    found = relax(start, EMT(), relax_cell=True, fix_volume=True, fmax=0.005)
    assert found.converged
    assert found.volume_change == pytest.approx(0, abs=1e-10)
    stress = found.atoms.get_stress()
    # Hydrostatic, and not zero.
    assert np.abs(stress - stress[:3].mean() * np.array([1, 1, 1, 0, 0, 0])).max() < 1e-3 < abs(stress[:3].mean())
    assert found.after.stress_max < 1e-3


def test_fixed_atoms_keep_their_places_in_the_cell() -> None:
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0, 2]))
    found = relax(atoms, EMT(), relax_cell=True, fmax=0.02)
    moved = found.atoms.get_scaled_positions() - atoms.get_scaled_positions()
    np.testing.assert_allclose(moved[[0, 2]], 0, atol=1e-12)
    assert np.abs(moved[1]).max() > 1e-3
    assert [constraint.todict() for constraint in found.atoms.constraints] == [FixAtoms([0, 2]).todict()]


def test_left_handed_cells_relax_like_right_handed_ones() -> None:
    right, left = crystal(), crystal()
    left.cell[:] = left.cell.array[[1, 0, 2]]
    one, other = (relax(atoms, EMT(), relax_cell=True, fmax=0.02) for atoms in (right, left))
    assert np.linalg.det(other.atoms.cell.array) < 0
    assert other.steps == one.steps
    assert other.after.energy == pytest.approx(one.after.energy, abs=1e-9)


class TestRefusals:
    def test_fixed_volume_without_cell(self) -> None:
        with pytest.raises(ConfigError, match="add --cell"):
            relax(crystal(), EMT(), fix_volume=True)

    def test_fixed_volume_at_a_pressure(self) -> None:
        with pytest.raises(SimulationError, match="leave one of them out"):
            relax(crystal(), EMT(), relax_cell=True, fix_volume=True, pressure=3.0)

    def test_fixed_volume_of_a_slab(self) -> None:
        slab = crystal()
        slab.pbc = (True, True, False)
        with pytest.raises(SimulationError, match="periodic along all axes"):
            relax(slab, EMT(), relax_cell=True, fix_volume=True)

    def test_cells_without_volume(self) -> None:
        flat = crystal()
        flat.cell[2] = flat.cell[0]
        with pytest.raises(SimulationError, match="lie in a plane"):
            relax(flat, EMT(), relax_cell=True)


def test_a_cell_that_runs_away_is_stopped() -> None:
    class Pressing(EMT):
        """Pulls at every cell as if it were of rubber."""

        def calculate(self, *args, **kwargs) -> None:
            super().calculate(*args, **kwargs)
            self.results["stress"] = np.array([-0.5, -0.5, -0.5, 0, 0, 0])

    found = relax(crystal(), Pressing(), relax_cell=True)
    assert not found.converged
    assert "stopped, because the volume went from" in found.warnings[0]
    assert "exploded" in found.warnings[1]
