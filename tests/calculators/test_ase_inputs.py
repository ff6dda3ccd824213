"""Charge and spin through the calculator: stated, given, changed, missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, StructureError
from mlip.models.base import AtomisticModel
from mlip.simulate.trajectory import snapshot
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import molecule
from tests.components import SMALL, component, compose_model, random_model


@pytest.fixture(scope="module")
def model() -> AtomisticModel:
    config = compose_model("facet", *SMALL)
    return random_model(
        {**config, "conditioning": {name: component("conditioning", name) for name in ("charge", "spin")}}
    )


def ion(charge: int | None = None, spin: int | None = None) -> Atoms:
    atoms = molecule(["H", "C", "O"], num_atoms=5)
    atoms.info = {name: value for name, value in (("charge", charge), ("spin", spin)) if value is not None}
    return atoms


def energy(atoms: Atoms, calculator: MLIPCalculator) -> float:
    atoms.calc = calculator
    return atoms.get_potential_energy()


def test_stated_or_given_is_the_same(model: AtomisticModel) -> None:
    expected = float(evaluate(model, ion(1, 2))["energy"])
    assert energy(ion(1, 2), MLIPCalculator(model)) == pytest.approx(expected, abs=1e-12)
    assert energy(ion(), MLIPCalculator(model, charge=1, spin=2)) == pytest.approx(expected, abs=1e-12)
    assert energy(ion(charge=1), MLIPCalculator(model, spin=2)) == pytest.approx(expected, abs=1e-12)
    assert energy(ion(1, 2), MLIPCalculator(model, charge=1)) == pytest.approx(expected, abs=1e-12)


def test_another_charge_is_another_structure(model: AtomisticModel) -> None:
    """The cached result of the first charge is not that of the second."""
    atoms, calculator = ion(0, 1), MLIPCalculator(model)
    energies, forces = [], []
    for state in ((0, 1), (1, 2), (0, 3), (0, 1)):
        atoms.info.update(charge=state[0], spin=state[1])
        energies.append(energy(atoms, calculator))
        forces.append(atoms.get_forces())
    assert energies[0] == energies[3]
    assert len(set(energies)) == 3
    assert np.abs(forces[1] - forces[0]).max() > 1e-4


def test_what_is_refused(model: AtomisticModel) -> None:
    with pytest.raises(StructureError, match=r"set atoms.info\['charge'\], write charge=… .*\(--charge\)"):
        energy(ion(spin=1), MLIPCalculator(model))
    with pytest.raises(StructureError, match="charge -1, 0, 1; this structure has 2"):
        energy(ion(2, 1), MLIPCalculator(model))
    with pytest.raises(StructureError, match="says charge 1, the calculation was asked for with charge 0"):
        energy(ion(1, 1), MLIPCalculator(model, charge=0))
    with pytest.raises(ConfigError, match="does not read the spin"):
        MLIPCalculator(random_model(compose_model("facet", *SMALL)), spin=1)


def test_files_keep_charge_and_spin(model: AtomisticModel, tmp_path: Path) -> None:
    """What a trajectory and the final structure need so that a restart knows the state."""
    atoms = ion(1, 2)
    atoms.info["note"] = object()
    energy(atoms, MLIPCalculator(model))
    frame = snapshot(atoms, {"step": 3})
    assert frame.info == {"charge": 1, "spin": 2, "step": 3}
    write(tmp_path / "a.xyz", frame)
    again = read(tmp_path / "a.xyz")
    assert energy(again, MLIPCalculator(model)) == pytest.approx(frame.get_potential_energy(), abs=1e-6)


def test_a_charge_that_the_model_does_not_read_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    calculator = MLIPCalculator(random_model(compose_model("facet", *SMALL)))
    for atoms in (ion(0, 1), ion(), ion(-1, 1), ion(-1, 2)):
        energy(atoms, calculator)
        energy(atoms, calculator.companion(calculator.predict))
    assert [record.message.split(",")[0] for record in caplog.records] == ["A structure states charge -1"]
