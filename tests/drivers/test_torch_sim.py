"""torch-sim: a batch gives ASE's numbers and the slopes of its own energies; its runs are ASE's."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, StructureError
from mlip.drivers.torch_sim import torch_sim_model
from tests.drivers.test_session import Charged
from tests.simulate.pair_model import PairModel

pytest.importorskip("torch_sim", reason="the extra 'torch-sim' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


def systems() -> list[Atoms]:
    skewed = bulk("Cu", "fcc", a=3.185) * (2, 1, 1)
    skewed.set_cell(skewed.cell.array @ [[1.02, 0.03, 0], [0.1, 0.99, 0], [0.05, -0.08, 1.03]], scale_atoms=True)
    mixed = bulk("Cu", "fcc", a=3.185, cubic=True)
    mixed.numbers[1] = 6
    for seed, atoms in enumerate((skewed, mixed)):
        atoms.rattle(0.1, seed=seed)
    return [skewed, mixed, bulk("Cu", "fcc", a=3.3)]


def state_of(atoms: list[Atoms]) -> object:
    from torch_sim.io import atoms_to_state

    return atoms_to_state(atoms, torch.device("cpu"), torch.float64)


def test_numbers_are_ases_and_the_state_is_not_changed() -> None:
    model, state = torch_sim_model(PairModel()), state_of(systems())
    before = state.positions.clone(), state.cell.clone()
    for _ in range(2):
        found = model(state)
    assert torch.equal(before[0], state.positions)
    assert torch.equal(before[1], state.cell)
    start = 0
    for number, atoms in enumerate(systems()):
        atoms.calc = MLIPCalculator(PairModel())
        assert float(found["energy"][number]) == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        assert found["forces"][start : start + len(atoms)].numpy() == pytest.approx(atoms.get_forces(), abs=1e-12)
        assert found["stress"][number].numpy() == pytest.approx(atoms.get_stress(voigt=False), abs=1e-13)
        start += len(atoms)


def test_forces_and_stress_are_the_slopes_of_the_energy() -> None:
    model, state, step = torch_sim_model(PairModel()), state_of(systems()), 1e-5
    found = model(state)
    for atom, axis in ((0, 0), (1, 2), (4, 1), (5, 0)):
        energies = []
        for sign in (1, -1):
            moved = state.clone()
            moved.positions[atom, axis] += sign * step
            energies.append(float(model(moved)["energy"].sum()))
        slope = (energies[0] - energies[1]) / (2 * step)
        assert float(found["forces"][atom, axis]) == pytest.approx(-slope, abs=1e-7)
    assert float(found["forces"].abs().max()) > 0.1
    volumes = torch.linalg.det(state.cell).abs()
    for a, b in ((0, 0), (2, 2), (0, 1), (1, 2)):
        energies = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            moved = state.clone()
            moved.positions = state.positions @ strain
            # Columns are the vectors.
            moved.cell = strain @ state.cell
            energies.append(model(moved)["energy"])
        slopes = (energies[0] - energies[1]) / (2 * step) / volumes
        assert found["stress"][:, a, b].numpy() == pytest.approx(slopes.numpy(), abs=1e-8)


def test_plain_dicts_and_molecules_are_understood() -> None:
    water = molecule("CH4")
    state = {
        "positions": torch.tensor(water.positions, dtype=torch.float32),
        "cell": torch.zeros(1, 3, 3),
        "pbc": False,
        "atomic_numbers": torch.tensor(water.numbers),
        "system_idx": None,
    }
    found = torch_sim_model(PairModel())(state)
    expected = MLIPCalculator(PairModel()).get_potential_energy(water)
    assert found["energy"].dtype == torch.float32
    assert float(found["energy"][0]) == pytest.approx(expected, rel=1e-6)
    assert not found["stress"].any()
    assert "stress" not in torch_sim_model(PairModel(), stress=False)(state)


def test_a_relaxation_with_the_cell_ends_at_the_minimum() -> None:
    import torch_sim as ts

    model = torch_sim_model(PairModel())
    final = ts.optimize(
        system=[bulk("Cu", "fcc", a=3.25, cubic=True), bulk("Cu", "fcc", a=3.12)],
        model=model,
        optimizer=ts.frechet_cell_fire,
        convergence_fn=ts.generate_force_convergence_fn(force_tol=1e-3),
        max_steps=300,
    )
    stress = model(final)["stress"]
    assert float(stress.abs().max()) < 1e-4
    volumes = torch.linalg.det(final.cell).abs() / torch.tensor([4, 1])
    assert float(volumes[0]) == pytest.approx(float(volumes[1]), rel=1e-3)


def test_nve_conserves() -> None:
    import torch_sim as ts

    model = torch_sim_model(PairModel())
    state, energies = state_of([bulk("Cu", "fcc", a=3.185, cubic=True) * (2, 1, 1)]), []
    start, step = ts.nve(model=model, dt=torch.tensor(0.02, dtype=torch.float64), kT=torch.tensor(0.05), seed=1)
    moving = start(state)
    for _ in range(60):
        moving = step(moving)
        kinetic = 0.5 * (moving.momenta.square().sum(1) / moving.masses).sum()
        energies.append(float(moving.energy.sum() + kinetic))
    assert np.ptp(energies) < 2e-3 * float(kinetic)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="give charge="):
        torch_sim_model(Charged())
    with pytest.raises(StructureError, match="does not know"):
        torch_sim_model(PairModel())(state_of([bulk("Si")]))
    state = state_of(systems())
    state.positions[0, 0] = float("nan")
    with pytest.raises(StructureError, match="finite"):
        torch_sim_model(PairModel())(state)
    charged = torch_sim_model(Charged(), charge=1)
    assert torch.isfinite(charged(state_of(systems()))["energy"]).all()


def test_it_is_what_torch_sim_expects() -> None:
    from torch_sim.models.interface import validate_model_outputs

    model = torch_sim_model(PairModel(elements=("Si", "Fe")))
    validate_model_outputs(model, torch.device("cpu"), torch.float64)
