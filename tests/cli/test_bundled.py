"""The commands one after the other on the bundled DFT sets, as a user would on the first day."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.io import read
from typer.testing import CliRunner

from mlip.cli.main import app

ROOT = Path(__file__).parents[2]
SMALL = ["model.irreps_hidden=16x0e+8x1o", "model.lmax_edge=1", "max_epochs=2"]


def mlip(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    return tmp_path


@pytest.mark.slow
def test_ethanol_from_training_to_molecular_dynamics(checkout):
    run, model = checkout / "run", checkout / "run" / "model.safetensors"
    mlip("train", "experiment=ethanol", f"run_dir={run}", *SMALL)
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["statistics"]["elements"] == ["H", "C", "O"]
    # The reference energies are those of the isolated atoms in the file, not a fit.
    isolated = {
        a.symbols[0]: a.get_potential_energy() for a in read("data/ethanol_dft/ethanol.xyz", ":") if len(a) == 1
    }
    assert record["config"]["statistics"]["atomic_energies"] == pytest.approx(isolated)
    output = mlip("evaluate", model, "data=ethanol", "--subset", "test", "--output", checkout / "evaluate")
    assert "meV/Å" in output
    metrics = json.loads((checkout / "evaluate" / "metrics.json").read_text())
    assert "forces_rmse_meV_per_A" in json.dumps(metrics)
    frame = "data/ethanol_dft/ethanol.xyz"
    mlip("relax", frame, "--model", model, "--steps", 3, "--frame", -1, "--output", checkout / "relax")
    mlip("md", frame, "--model", model, "--steps", 20, "--frame", -1, "--output", checkout / "md")
    assert (checkout / "md" / "summary.json").is_file()
    assert json.loads(mlip("info", model, "--json"))["elements"] == ["H", "C", "O"]


@pytest.mark.slow
def test_silicon_learns_stress_and_relaxes_a_cell(checkout):
    run, model = checkout / "run", checkout / "run" / "model.safetensors"
    mlip("train", "experiment=silicon", f"run_dir={run}", *SMALL)
    record = json.loads((run / "run.json").read_text())
    assert record["metrics_valid"]["stress_rmse_meV_per_A3"] > 0
    output = mlip("evaluate", model, "data=silicon", "--subset", "test", "--output", checkout / "evaluate")
    assert "stress" in output
    mlip("relax", "data/silicon_dft/silicon.xyz", "--frame", -1, "--model", model, "--cell", "--steps", 3,
         "--output", checkout / "relax")  # fmt: skip
    assert (checkout / "relax" / "summary.json").is_file()


@pytest.mark.slow
def test_hamiltonians_of_small_molecules(checkout):
    run, model = checkout / "run", checkout / "run" / "model.safetensors"
    small = ["model.num_channels=8", "model.num_layers=2", "model.lmax=2", "max_epochs=1"]
    mlip("train", "data=small_molecules", "model=qhnet", "loss=[hamiltonian]", f"run_dir={run}", *small)
    record = json.loads((run / "run.json").read_text())
    statistics = record["config"]["statistics"]
    assert statistics["elements"] == ["H", "C", "N", "O"]
    assert (statistics["functional"], statistics["basis"]) == ("b3lyp5", "def2-svp")
    assert "Hamiltonian" in mlip(
        "evaluate", model, "data=small_molecules", "--subset", "test", "--output", checkout / "e"
    )
    store = checkout / "store"
    mlip("data", "prepare", "data=small_molecules", f"out={store}", "workers=1")
    content = json.loads((store / "store.json").read_text())
    assert content["statistics"]["labels"] == {"energy": 148, "forces": 148, "hamiltonian": 148}
