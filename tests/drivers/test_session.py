"""What drivers share: images are followed, forces and virial are ASE's, bad input is refused."""

import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, StructureError
from mlip.drivers.lammps import start_lammps
from mlip.drivers.openmm import attach
from mlip.drivers.session import Session, check_masses
from mlip.drivers.torch_sim import torch_sim_model
from tests.components import repository_root
from tests.simulate.pair_model import PairModel


def crystal() -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.185, cubic=True) * 2
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1, 0], [0.02, -0.1, 1]], scale_atoms=True)
    atoms.rattle(0.05, seed=3)
    return atoms


def test_wrapped_atoms_need_no_new_list_and_nothing_changes() -> None:
    atoms, rng = crystal(), np.random.default_rng(0)
    session = Session(PairModel())
    first = session.evaluate(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, virial=True)
    for _ in range(5):
        moved = atoms.positions + rng.integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array
        again = session.evaluate(atoms.numbers, moved, atoms.cell.array, atoms.pbc, virial=True)
        assert again.energy == pytest.approx(first.energy, abs=1e-10)
        assert np.abs(again.forces - first.forces).max() < 1e-11
        assert np.abs(again.virial - first.virial).max() < 1e-10
    assert session.calculator.neighbours.num_builds == 1
    atoms.calc = MLIPCalculator(PairModel())
    expected = -atoms.get_stress(voigt=False) * atoms.get_volume()
    assert np.abs(first.virial - expected).max() < 1e-11
    assert np.array_equal(first.forces, atoms.get_forces())


def test_a_failed_configuration_leaves_no_trace() -> None:
    atoms, session = crystal(), Session(PairModel())
    arguments = (atoms.cell.array, atoms.pbc, True)
    first = session.evaluate(atoms.numbers, atoms.positions, *arguments)
    broken = atoms.positions.copy()
    broken[1, 2] = np.nan
    with pytest.raises(StructureError, match="finite"):
        session.evaluate(atoms.numbers, broken, *arguments)
    assert session.evaluate(atoms.numbers, atoms.positions, *arguments).energy == first.energy


def test_atoms_may_be_added() -> None:
    atoms, session = crystal(), Session(PairModel())
    for count in (len(atoms), 5, 6):
        part = atoms[:count]
        part.calc = MLIPCalculator(PairModel())
        found = session.evaluate(part.numbers, part.positions, part.cell.array, part.pbc, virial=False)
        assert found.energy == pytest.approx(part.get_potential_energy(), abs=1e-12)
        assert found.virial is None


def test_a_calculator_is_not_disturbed() -> None:
    atoms, calculator = crystal(), MLIPCalculator(PairModel())
    energy = calculator.get_potential_energy(atoms)
    session = Session(calculator)
    session.evaluate(atoms.numbers, 1.01 * atoms.positions, atoms.cell.array, atoms.pbc, virial=False)
    assert calculator.results["energy"] == energy
    with pytest.raises(ConfigError, match="give them to MLIPCalculator"):
        Session(calculator, dtype="float64")


class Charged(PairModel):
    inputs = {"charge": (0, 1)}  # noqa: RUF012 - as the base class declares it


class Tagged(PairModel):
    inputs = {"tags": (0, 1)}  # noqa: RUF012


def test_a_model_gets_what_it_reads_or_is_refused() -> None:
    atoms = crystal()
    with pytest.raises(ConfigError, match="give charge="):
        Session(Charged())
    with pytest.raises(ConfigError, match="give charge="):
        Session(MLIPCalculator(Charged()))
    with pytest.raises(ConfigError, match="'tags' of every atom"):
        Session(Tagged())
    for session in (Session(Charged(), charge=1), Session(MLIPCalculator(Charged(), charge=1))):
        session.evaluate(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, virial=False)
    with pytest.raises(StructureError, match="trained with charge 0, 1"):
        Session(Charged(), charge=2).evaluate(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, virial=False)


@pytest.mark.parametrize(
    ("numbers", "masses"),
    [
        ([29, 6], [12.011, 63.546]),
        ([8, 1], [1.008, 15.999]),
        ([14], [63.5]),
        ([28, 29], [63.546, 58.693]),
    ],
)
def test_elements_in_another_order_are_refused(numbers: list[int], masses: list[float]) -> None:
    with pytest.raises(ConfigError, match="in the order of the program"):
        check_masses(numbers, masses, "Type")


def test_isotopes_heavy_hydrogens_and_missing_masses_are_not() -> None:
    check_masses([1, 6, 8, 1, 29], [2.014, 13.003, 17.999, 4.03, 0.0], "Type")


def test_elements_are_symbols_or_numbers() -> None:
    session = Session(PairModel())
    assert session.check_elements(["Cu", 6, "H"]).tolist() == [29, 6, 1]
    for wrong, message in ((["cu"], "Did you mean 'Cu'"), ([0], "no atomic number"), ([29.5], "no atomic number")):
        with pytest.raises(ConfigError, match=message):
            session.check_elements(wrong)
    with pytest.raises(StructureError, match="Si"):
        session.check_elements(["Si"])


@pytest.mark.parametrize(
    ("extra", "use"),
    [
        ("lammps", start_lammps),
        ("openmm", lambda: attach(None, PairModel(), ["Cu"])),
        ("torch-sim", lambda: torch_sim_model(PairModel())),
    ],
)
def test_a_missing_package_is_one_sentence(extra: str, use: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlip.drivers.session.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"not installed: pip install 'mlip-kit\[{extra}\]'\.$"):
        use()
    extras = tomllib.loads((repository_root() / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extra in extras
