"""``mlip splinify`` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.io import write
from click.testing import Result
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app
from mlip.models.header import read_header
from mlip.models.model_file import load_model, save_model
from mlip.testing.structures import molecule
from tests.components import compose_model, random_model

SMALL = ("model.irreps_hidden=4x0e+2x1o", "model.num_layers=2", "model.lmax_edge=1", "model.radial_weights.hidden=[8]")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = random_model(compose_model("nequip", *SMALL), size=0.0).to(torch.float32)
    save_model("mlp.safetensors", model, {"data": "invented"})
    structures: list[Atoms] = [molecule(model.elements, seed=seed) for seed in range(6)]
    write("some.xyz", structures, format="extxyz")
    return tmp_path


def test_reports_the_fit_and_writes_a_model(folder: Path) -> None:
    result = run("splinify", "mlp.safetensors", "some.xyz", "--rank", "0", "--num-basis", "24")
    assert result.exit_code == 0, result.output
    assert "R²" in result.output
    assert "on 6 structures: energies change by" in " ".join(result.output.split())
    header = read_header("mlp_spline.safetensors")
    assert header["metadata"]["data"] == "invented"
    assert header["metadata"]["splinified"]["num_basis"] == 24
    assert (folder / "mlp_spline.png").stat().st_size > 10_000
    # What it reports is what calculators give.
    gaps = []
    for seed in range(6):
        atoms = molecule(("H", "C", "O"), seed=seed)
        one, other = (
            MLIPCalculator(f"{name}.safetensors").get_potential_energy(atoms) for name in ("mlp", "mlp_spline")
        )
        gaps.append(1000 * abs(one - other) / len(atoms))
    text = " ".join(result.output.split())
    reported = float(text.split("energies change by ")[1].split(" meV")[0])
    assert reported == pytest.approx(max(gaps), rel=0.01)


@pytest.mark.slow
def test_finetuning_comes_closer(folder: Path) -> None:
    result = run("splinify", "mlp.safetensors", "some.xyz", "--rank", "3", "--finetune", "10")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    after = [float(part.split(" meV/atom")[0]) for part in text.split("energies change by ")[1:]]
    assert after[1] < after[0]
    assert (
        load_model("mlp_spline.safetensors").num_parameters == read_header("mlp_spline.safetensors")["num_parameters"]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mlp.safetensors", "--radial", "bsplin"), "Did you mean 'bspline'"),
        (("mlp.safetensors", "--finetune", "1"), "--finetune needs structures"),
        (("mlp.safetensors", "old.xyz", "--finetune", "1", "--lr", "-1"), "--lr must be positive, got -1.0"),
        (("mlp.safetensors", "-o", "mlp.safetensors"), "exists"),
        (("nothing.safetensors",), "There is no model"),
    ],
)
def test_mistakes(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run("splinify", *arguments)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert not (folder / "mlp_spline.safetensors").exists()
