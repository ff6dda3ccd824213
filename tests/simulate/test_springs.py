"""Springs: the energy that is reported is the model's, everywhere, and a cell is not relaxed with them."""

import math
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import ExternalForce, FixAtoms, FixConstraint, Hookean, MirrorForce
from ase.io import read

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.simulate.relax import RelaxOptions, relax
from mlip.simulate.relax_many import relax_many
from mlip.simulate.structures import write_final_structure
from tests.simulate.pair_model import PairModel


def crystal(*constraints: FixConstraint) -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.3)
    atoms.rattle(0.05, seed=3)
    atoms.set_constraint(list(constraints))
    return atoms


@pytest.mark.parametrize(
    ("constraint", "name"),
    [
        (Hookean(0, 1, k=8.0, rt=1.9), "Hookean"),
        # Slack at the start; it may be tight later.
        (Hookean(0, 1, k=8.0, rt=9.0), "Hookean"),
        (ExternalForce(0, 1, 0.5), "ExternalForce"),
        (MirrorForce(0, 1), "MirrorForce"),
    ],
)
def test_a_cell_is_not_relaxed_with_what_pulls(constraint: FixConstraint, name: str, tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=rf"cannot be relaxed with {name}, whose forces have no stress") as caught:
        relax(crystal(FixAtoms([2]), constraint), EMT(), relax_cell=True, trajectory=tmp_path / "t.traj")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_energy_is_the_models(tmp_path: Path) -> None:
    spring = Hookean(0, 1, k=8.0, rt=1.9)
    result = relax(crystal(spring), EMT(), fmax=1e-3, trajectory=tmp_path / "t.traj")
    assert result.converged
    bare = result.atoms.copy()
    bare.set_constraint()
    bare.calc = EMT()
    assert result.after.energy == pytest.approx(bare.get_potential_energy(), abs=1e-9)
    write_final_structure(tmp_path, result.atoms)
    for written in (read(tmp_path / "final.xyz"), *read(tmp_path / "t.traj", ":")[-1:]):
        assert written.calc.results["energy"] == pytest.approx(result.after.energy, abs=1e-7)
    # ½ k (r − r0)², stated apart, and at the minimum of the sum: the spring holds what the model pulls.
    stretched = bare.get_distance(0, 1) - 1.9
    (warning,) = result.warnings
    assert warning.startswith(f"Hookean adds {4 * stretched**2:.4g} eV")
    assert math.isclose(np.linalg.norm(bare.get_forces()[0]), 8 * stretched, rel_tol=0.01)
    assert result.after.fmax < 1e-3


def test_many_say_so_too() -> None:
    structures = [crystal(Hookean(0, 1, k=8.0, rt=1.9)), crystal()]
    first, second = sorted(relax_many(structures, MLIPCalculator(PairModel())), key=lambda one: one.number)
    assert "Hookean adds" in first.result.warnings[0]
    assert first.result.after.energy == first.result.atoms.calc.results["energy"]
    assert second.result.warnings == ()
    with_cell = list(relax_many(structures, MLIPCalculator(PairModel()), RelaxOptions(relax_cell=True)))
    assert sorted(one.error[:34] for one in with_cell) == ["", "The cell cannot be relaxed with Ho"]
