"""The recipes for Hamiltonians, with small networks and a few molecules, and the loss that needs overlaps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.models.model_file import load_model
from tests.data.fixtures.md17_hamiltonian import write_frames
from tests.data.fixtures.qh9 import dynamic_row, write_dynamic

SMALL = ("max_epochs=1", "model.num_channels=8", "model.num_layers=2", "model.lmax=2", "model.bottleneck=4")
WATERS = ("data=qh9", "data.path=water.db", "data.dataset.variant=dynamic_300k")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_dynamic(tmp_path / "water.db", [dynamic_row(7, k, k) for k in range(10)])
    return tmp_path


def mlip(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def settings(run: str) -> dict:
    return json.loads((Path("runs") / run / "run.json").read_text())["config"]


@pytest.mark.slow
def test_small_samples_with_an_initial_guess_and_aligned_wave_functions():
    pytest.importorskip("pyscf")
    computed = ("data.dataset.initial_guess=compute", "data.dataset.overlap=compute")
    text = mlip("data", "prepare", *WATERS, *computed, "out=waters")
    assert "Next: mlip train data=store data.path=waters experiment=qh9_sample" in text
    recipe = ("train", "experiment=qh9_sample", "data.path=waters", *SMALL)
    mlip(*recipe, "name=plain")
    mlip(*recipe, "name=aligned", "loss=[hamiltonian,wavefunction_alignment]")
    assert settings("aligned")["loss"].keys() == {"hamiltonian", "wavefunction_alignment"}
    errors = [json.loads(Path("runs", run, "run.json").read_text())["metrics_valid"] for run in ("plain", "aligned")]
    assert errors[0] != errors[1]
    model = load_model("runs/aligned/model.safetensors")
    assert (model.target, model.needs) == ("difference", ("initial_hamiltonian",))
    mlip("train", "experiment=qh9_sample", "data.path=waters", "model=sphnet", *SMALL, "name=sphnet")
    found = load_model("runs/sphnet/model.safetensors")
    assert (found.target, found.pairs) == ("difference", "by_element")


@pytest.mark.slow
def test_published_recipes(folder: Path):
    write_frames(folder / "md17.db", list(range(6)))
    # Random matrices: their overlaps are not PySCF's.
    parts = ("data.split.train=4", "data.split.valid=2", "data.dataset.check_order=false")
    mlip("train", "experiment=md17_water", "data.path=md17.db", *parts, *SMALL, "name=md17")
    assert load_model("runs/md17/model.safetensors").functional == "pbe"
    assert settings("md17")["dtype"] == "float64"
    mlip(
        "train", "experiment=qh9_dynamic", "data.path=water.db", "data.dataset.split_rule=this_file", *SMALL,
        "name=dynamic",
    )  # fmt: skip
    assert settings("dynamic")["schedule"]["_target_"].endswith("WarmupLinear")
    # The published parts are those of the published file.
    text = mlip("train", "experiment=qh9_dynamic", "data.path=water.db", *SMALL, "name=other", status=1)
    assert "split_rule" in text


def test_a_loss_that_needs_overlaps_says_where_they_come_from():
    parts = ("data.split.by=random", "data.split.train=4", "data.split.valid=2", "data.split.test=0")
    losses = "loss=[hamiltonian,wavefunction_alignment]"
    text = mlip("train", "model=qhnet", *WATERS, *parts, losses, *SMALL, status=1)
    assert "needs 'overlap' of every structure" in text
    assert "data.dataset.overlap=compute" in text


def test_pyscf_in_every_pass_is_refused():
    text = mlip("train", "model=qhnet", *WATERS, "data.dataset.initial_guess=compute", "loss=[hamiltonian]", status=1)
    assert "in every pass" in text
    assert "mlip data prepare" in text


def test_what_comes_next_can_be_pasted():
    assert "model=qhnet 'loss=[hamiltonian]' cutoff=15" in mlip("data", "info", *WATERS)
