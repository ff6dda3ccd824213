"""Committees on the command line: one file of several, several models at once, spreads in what runs write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app
from mlip.evaluation import report
from mlip.models.model_file import load_model, save_model
from mlip.simulate.thermo import HEADER, read_thermo
from tests.components import small_facet

FILES = ("a.safetensors", "b.safetensors")


pytestmark = pytest.mark.slow


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command in a folder with two models and some structures; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    for name, seed in zip(FILES, (0, 1), strict=True):
        model = small_facet(seed=seed)
        # Soft, so that the molecule holds together.
        for parameter in model.parameters():
            parameter.data.mul_(0.4)
        save_model(name, model, {"data": {"train": "t", "valid": seed}, "seed": seed})
    atoms = Atoms("OH2", [[0.0, 0, 0], [1.0, 0, 0], [-0.2, 0.9, 0]])
    write("water.xyz", atoms)

    def run(*words: object, status: int = 0) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return run


def spreads_of(atoms: Atoms) -> tuple[float, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = MLIPCalculator(list(FILES))
    atoms.get_forces()
    return atoms.calc.results["energy_std"], atoms.calc.results["forces_std"]


def test_one_file_of_two(call) -> None:
    assert "2 members" in call("committee", *FILES, "--output", "both.safetensors")
    model = load_model("both.safetensors")
    assert model.metadata == {
        "data": {"train": "t"},
        "members": {"1": {"data": {"valid": 0}, "seed": 0}, "2": {"data": {"valid": 1}, "seed": 1}},
    }
    assert "members" in call("info", "both.safetensors").lower()
    assert "is there already" in call("committee", *FILES, "--output", "both.safetensors", status=1)
    call("committee", *FILES, "--output", "both.safetensors", "--overwrite")
    assert "at least two models" in call("committee", FILES[0], "-o", "one.safetensors", status=1)
    assert "are the same model" in call("committee", FILES[0], *FILES, "-o", "one.safetensors", status=1)
    assert not Path("one.safetensors").exists()


def test_md_logs_the_spread(call) -> None:
    words = ("md", "water.xyz", "-m", FILES[0], "-m", FILES[1], "--temperature", 20, "--frame-interval", 3)
    assert "largest force spread" in call(*words, "--log-interval", 2, "--steps", 6)
    frames = read("md_water/trajectory.traj", ":")
    rows = {row.step: row for row in read_thermo("md_water/thermo.csv")}
    for frame in frames:
        energy, forces = spreads_of(frame)
        assert frame.info["energy_std"] == pytest.approx(energy, rel=1e-9)
        assert frame.info["forces_std"] == pytest.approx(forces, rel=1e-9)
        if frame.info["step"] in rows:
            row = rows[frame.info["step"]]
            assert (row.energy_std, row.forces_std) == pytest.approx((energy, forces.max()), rel=1e-9)
    summary = json.loads(Path("md_water/summary.json").read_text())
    assert summary["model"] == list(FILES)
    assert summary["forces_std_max_eV_per_A"] == pytest.approx(max(row.forces_std for row in rows.values()))
    assert read("md_water/final.xyz").arrays["forces_std"] == pytest.approx(spreads_of(frames[-1])[1], abs=1e-7)
    # A single one of them is another model: energies and spreads would not go together in one log.
    text = call("md", "water.xyz", "-m", FILES[0], "--temperature", 20, "--steps", 9, "--restart", status=1)
    assert "another model" in text
    assert max(row.step for row in read_thermo("md_water/thermo.csv")) == 6


def test_logs_of_earlier_versions_are_read(call) -> None:
    line = ",".join(["3", "1.5", "300", "-1", "1", "0", "", "", ""])
    Path("thermo.csv").write_text(",".join(HEADER[:9]) + f"\n{line}\n")
    (row,) = read_thermo("thermo.csv")
    assert (row.step, row.potential) == (3, -1.0)
    assert np.isnan(row.energy_std)


def test_relax_with_a_committee(call) -> None:
    call("committee", *FILES)
    text = call("relax", "water.xyz", "--model", "committee.safetensors", "--steps", 3)
    assert "largest force spread" in text
    summary = json.loads(Path("relax_water/summary.json").read_text())
    assert summary["model"] == "committee.safetensors"
    energy, forces = spreads_of(read("relax_water/final.xyz"))
    assert summary["energy_std_after_eV"] == pytest.approx(energy, rel=1e-6)
    assert summary["forces_std_after_eV_per_A"] == pytest.approx(forces.max(), rel=1e-6)


def test_evaluate_compares_the_spread_with_the_errors(call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelled by the first of two members: an error of the mean is the spread, exactly."""
    monkeypatch.setattr(report, "draw_parity", lambda path, points, title: None)
    rng, frames, calculator = np.random.default_rng(0), [], MLIPCalculator(FILES[0])
    for _ in range(4):
        atoms = read("water.xyz")
        atoms.positions += 0.1 * rng.normal(size=(3, 3))
        atoms.calc = calculator
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    write("data.xyz", frames)
    call("committee", *FILES)
    assert "error / spread" in call("evaluate", "committee.safetensors", "data=data.xyz", "--output", "found")
    found = json.loads(Path("found/metrics.json").read_text())
    for name, count in (("energy", 4), ("forces", 12)):
        one = found["uncertainty"][name]
        assert one["count"] == count
        assert one["ratio"] == pytest.approx(1, rel=1e-6)
        assert one["correlation"] == pytest.approx(1, rel=1e-6)
    assert found["uncertainty"]["energy"]["error"] == pytest.approx(found["errors"]["energy_rmse_meV"], rel=1e-9)
    frame = read("found/predictions.xyz", 0)
    assert frame.arrays["forces_std"] == pytest.approx(spreads_of(frames[0])[1], rel=1e-5)
    text = call("evaluate", FILES[0], "data=data.xyz", "--output", "single")
    assert "spread" not in text
    assert "uncertainty" not in json.loads(Path("single/metrics.json").read_text())
