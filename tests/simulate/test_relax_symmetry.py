"""Space groups are kept and refined as ASE and spglib say."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixConstraint, FixScaled, FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.spacegroup import crystal

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate import relax_symmetry
from mlip.simulate.relax import relax
from mlip.simulate.relax_symmetry import KeptSymmetry, SpaceGroup, keep_symmetry, refined, space_group
from tests.simulate.pair_model import PairModel


def ordered_alloy() -> Atoms:
    """Cu3Al in a stretched, tetragonal cell, with inner coordinates that are free."""
    return crystal(
        ["Cu", "Cu", "Al"],
        basis=[(0, 0, 0), (0.5, 0.5, 0.02), (0, 0.5, 0.27)],
        spacegroup=99,
        cellpar=[3.6, 3.6, 4.1, 90, 90, 90],
    )


def test_known_space_groups() -> None:
    assert space_group(bulk("Cu")) == SpaceGroup(225, "Fm-3m")
    assert space_group(bulk("Mg")) == SpaceGroup(194, "P6_3/mmc")
    assert str(space_group(ordered_alloy())) == "P4mm (99)"
    assert space_group(molecule("CH4")) is None
    assert space_group(Atoms("Cu", cell=np.full((3, 3), np.nan), pbc=True)) is None


def test_constraint_equals_that_of_ase() -> None:
    ours, theirs = ordered_alloy(), ordered_alloy()
    one, other = KeptSymmetry(ours), FixSymmetry(theirs)
    np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-12)
    rng = np.random.default_rng(0)
    for shape, adjust in (((len(ours), 3), "adjust_forces"), ((6,), "adjust_stress")):
        values = rng.normal(size=shape)
        first, second = values.copy(), values.copy()
        getattr(one, adjust)(ours, first)
        getattr(other, adjust)(theirs, second)
        np.testing.assert_allclose(first, second, atol=1e-12)
        assert np.abs(first - values).max() > 0.1
    for start, adjust in ((ours.positions, "adjust_positions"), (ours.cell.array, "adjust_cell")):
        values = start + 0.01 * rng.normal(size=start.shape)
        first, second = values.copy(), values.copy()
        getattr(one, adjust)(ours, first)
        getattr(other, adjust)(theirs, second)
        np.testing.assert_allclose(first, second, atol=1e-12)


def test_relaxation_equals_that_of_ase() -> None:
    found = relax(ordered_alloy(), EMT(), relax_cell=True, keep_symmetry=True, fmax=0.03)
    alone = ordered_alloy()
    alone.calc = EMT()
    alone.set_constraint(FixSymmetry(alone))
    optimizer = FIRE(FrechetCellFilter(alone), logfile=None)
    assert optimizer.run(fmax=0.03, steps=500)
    assert found.steps == optimizer.nsteps
    assert found.after.energy == pytest.approx(alone.get_potential_energy(), abs=1e-8)
    # The atoms find a mirror plane more on their way.
    assert found.space_groups == (SpaceGroup(99, "P4mm"), SpaceGroup(123, "P4/mmm"))
    assert not found.warnings
    assert not found.atoms.constraints


def test_symmetry_is_kept_where_noise_would_break_it() -> None:
    class Noisy(EMT):
        """Forces with the noise of a model that is not exactly equivariant."""

        def calculate(self, *args, **kwargs) -> None:
            super().calculate(*args, **kwargs)
            noise = np.random.default_rng(3)
            self.results["forces"] = self.results["forces"] + noise.normal(size=(len(self.atoms), 3))
            self.results["stress"] = self.results["stress"] + 0.02 * noise.normal(size=6)

    options = {"relax_cell": True, "max_steps": 15, "fmax": 1e-3}
    broken = relax(ordered_alloy(), Noisy(), **options)
    kept = relax(ordered_alloy(), Noisy(), keep_symmetry=True, **options)
    assert broken.space_groups[1] != SpaceGroup(99, "P4mm")
    assert kept.space_groups[1] == SpaceGroup(99, "P4mm")
    assert space_group(kept.atoms, 1e-6) == SpaceGroup(99, "P4mm")


def test_refinement_restores_the_symmetry_and_keeps_the_rest() -> None:
    exact = ordered_alloy()
    rattled = exact.copy()
    rattled.rattle(0.003, seed=2)
    rattled.set_constraint(FixAtoms([1]))
    rattled.info["charge"] = 0
    assert space_group(rattled, 1e-5) == SpaceGroup(1, "P1")
    found = refined(rattled, 0.05)
    assert space_group(found, 1e-5) == SpaceGroup(99, "P4mm")
    assert found.constraints[0].index.tolist() == [1]
    assert found.info["charge"] == 0
    np.testing.assert_array_equal(found.numbers, rattled.numbers)
    assert np.abs(found.get_distances(0, range(1, len(found)), mic=True)).min() > 1
    assert np.abs(found.cell.array - exact.cell.array).max() < 0.05
    result = relax(rattled, EMT(), refine_symmetry=True, symprec=0.05, fmax=0.5)
    assert result.history[0].energy == pytest.approx(relax(found, EMT(), fmax=0.5).history[0].energy, abs=1e-10)


def test_other_constraints_stay() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    keep_symmetry(atoms)
    assert [type(constraint) for constraint in atoms.constraints] == [FixAtoms, KeptSymmetry]


def stacked() -> Atoms:
    """Layers with a mirror plane through the middle one, too far apart, and the outer ones too near to it."""
    atoms = Atoms("Cu5", cell=[2.5, 2.5, 22], pbc=True)
    atoms.positions[:, 2] = np.array([-4.8, -2.3, 0, 2.3, 4.8]) + 11
    atoms.positions[[1, 3], :2] = 1.25
    return atoms


@pytest.mark.parametrize("relax_cell", [False, True])
@pytest.mark.parametrize("fixed", [FixAtoms([2]), FixAtoms([0, 4]), FixScaled([0, 4]), FixCartesian([1, 3])])
def test_fixed_atoms_stay_where_they_are(fixed: FixConstraint, relax_cell: bool) -> None:
    """In a cell that is relaxed: their fractional coordinates."""
    atoms = stacked()
    atoms.set_constraint(fixed)
    found = relax(atoms, MLIPCalculator(PairModel()), keep_symmetry=True, relax_cell=relax_cell, max_steps=8)
    moved = np.abs(found.atoms.get_scaled_positions(wrap=False) - atoms.get_scaled_positions(wrap=False)).max(axis=1)
    assert moved[fixed.index].max() < 1e-12
    assert moved.max() > 1e-3
    assert found.atoms.constraints[0].todict() == fixed.todict()


def test_trajectory_of_a_kept_symmetry_can_be_read(tmp_path) -> None:
    from ase.io import read

    start = bulk("Cu", "fcc", a=3.3, cubic=True)
    found = relax(
        start, MLIPCalculator(PairModel()), relax_cell=True, keep_symmetry=True, trajectory=tmp_path / "t.traj"
    )
    frames = read(tmp_path / "t.traj", ":")
    assert len(frames) == found.steps + 1
    assert not frames[-1].constraints


class TestRefusals:
    def test_molecules(self) -> None:
        with pytest.raises(SimulationError, match="Keeping the symmetry needs a crystal"):
            relax(molecule("CO"), EMT(), keep_symmetry=True)

    def test_constraints_without_the_symmetry(self) -> None:
        """An atom that its mirror image would have moved, though it is fixed."""
        atoms = stacked()
        for fixed, match in (
            (FixAtoms([0]), "leave an equivalent one free"),
            ([FixAtoms([0]), FixCartesian(4, (True, True, False))], "leave an equivalent one free"),
            (FixBondLength(0, 1), "not with FixBondLengths"),
        ):
            atoms.set_constraint(fixed)
            with pytest.raises(SimulationError, match=match):
                relax(atoms, MLIPCalculator(PairModel()), keep_symmetry=True)

    def test_without_spglib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relax_symmetry, "find_spec", lambda name: None)
        assert space_group(bulk("Cu")) is None
        with pytest.raises(ConfigError, match="pip install spglib"):
            relax(bulk("Cu"), EMT(), refine_symmetry=True)

    def test_a_step_that_is_too_large(self) -> None:
        atoms = bulk("Cu", cubic=True)
        with pytest.raises(SimulationError, match="40 % in one step"):
            KeptSymmetry(atoms).adjust_cell(atoms, atoms.cell.array * 1.4)
