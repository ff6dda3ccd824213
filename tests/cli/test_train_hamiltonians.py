"""``mlip train`` of Hamiltonian networks as a user runs it, and what is made of its runs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.evaluation.parity_points import Panel
from mlip.models.build import build_model
from mlip.models.model_file import load_model, save_model
from mlip.training import record
from tests.data.fixtures.qh9 import STABLE_TABLE, dynamic_row, symmetric, write_dynamic, write_stable
from tests.models.hamiltonian_cases import configuration

WATERS = ("data=qh9", "data.path=water.db", "data.dataset.variant=dynamic_300k", "data.split.by=random")
SPLIT = ("data.split.train=6", "data.split.valid=2", "data.split.test=0", "batch_graphs=3", "max_epochs=2")
SMALL = ("cutoff=10", "model.num_channels=8", "model.num_layers=2", "model.lmax=2", "model.bottleneck=4")
HAMILTONIAN = "loss=[hamiltonian]"


@pytest.fixture(autouse=True)
def waters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_dynamic(tmp_path / "water.db", [dynamic_row(7, k, k) for k in range(8)])


def mlip(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def train(*words: str, status: int = 0) -> str:
    return mlip("train", *WATERS, *SPLIT, *words, status=status)


def test_a_run_and_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[Panel]] = {}
    monkeypatch.setattr(record, "draw_parity", lambda path, panels, title: drawn.update({path.name: panels}))
    monkeypatch.setattr(record, "learning_curve_plot", lambda *words: None)
    text = train("model=qhnet", HAMILTONIAN, *SMALL, "name=one")
    # Energies are no business of such a model.
    assert "Reference energies" not in text
    assert text.count("validation MAE: H ") == 2
    assert "µEh" in text
    assert "Note" not in text
    found = json.loads(Path("runs/one/run.json").read_text())
    assert found["metrics_valid"].keys() == {"hamiltonian_mae_uEh", "hamiltonian_rmse_uEh"}
    log = Path("runs/one/log.csv").read_text().splitlines()
    last = float(_last(log, "valid/hamiltonian_mae_uEh"))
    assert found["metrics_valid"]["hamiltonian_mae_uEh"] == pytest.approx(last, rel=1e-3)
    (panel,) = drawn["parity_valid.png"]
    assert (panel.title, panel.unit, panel.count) == ("Entries of the Hamiltonian", "Eh", 2 * 24 * 25 // 2)
    assert 1e6 * panel.mae == pytest.approx(last, rel=1e-3)
    model = load_model("runs/one/model.safetensors")
    assert (model.basis, model.functional, model.target) == ("def2-svp", "b3lyp5", "hamiltonian")
    assert model.onsite.any()
    card = mlip("info", "runs/one/model.safetensors")
    for row in ("def2-svp: H 2s 1p, O 3s 2p 1d", "b3lyp5", "the Hamiltonian", "hamiltonian Hartree"):
        assert row in card


@pytest.mark.slow
def test_runs_are_compared() -> None:
    train("model=qhnet", HAMILTONIAN, *SMALL, "name=one", "max_epochs=1")
    assert {"learning_curve.png", "parity_valid.png"} <= {path.name for path in Path("runs/one").iterdir()}
    found = json.loads(Path("runs/one/run.json").read_text())
    text = train(
        *("model=sphnet", HAMILTONIAN, *SMALL, "name=two", "model.front_end.num_layers=1"),
        *("model.front_end.num_long_layers=1", "model.path_gate.random_steps=1", "model.path_gate.adaptive_steps=100"),
    )
    assert "Note: The paths of the products were not fixed, which happens after 101 steps" in text
    table = mlip("compare", "runs/one", "runs/two")
    assert "hamiltonian MAE" in table
    assert f"{found['metrics_valid']['hamiltonian_mae_uEh']:,.0f}" in table


def test_an_initial_guess_of_another_functional_is_refused(tmp_path: Path) -> None:
    """SPHNet's file has guesses of PBE; predictions would add to one of B3LYP, tenths of a Hartree away."""
    from tests.data.test_qh9_lmdb import key, sphnet_row, write_lmdb

    write_lmdb(tmp_path / "data.mdb", {key(k): sphnet_row(k) for k in range(8)}, subdir=False)
    data = ("data=qh9", "data.path=data.mdb", "data.dataset.variant=stable", "data.dataset.initial_guess=file")
    words = ("train", *data, *SPLIT, "model=qhnet", HAMILTONIAN, *SMALL, "max_epochs=1")
    text = " ".join(mlip(*words, "model/target=difference", status=1).split())
    assert "the functional of its initial Hamiltonian is not stated, the model adds to one of b3lyp5" in text
    assert "data.dataset.initial_guess=compute" in text


def _last(log: list[str], column: str) -> str:
    return log[-1].split(",")[log[0].split(",").index(column)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("model=facet", HAMILTONIAN),
            "The loss 'hamiltonian' needs a model of Hamiltonians, ConvolutionNetwork is none",
        ),
        (("model=qhnet", "loss=[energy]", *SMALL), "The loss 'energy' needs a model that predicts 'energy', Hamilt"),
        (("model=qhnet", "loss=[energy,forces]", *SMALL), "The loss 'forces' needs the label 'forces'"),
        (
            ("model=qhnet", HAMILTONIAN, *SMALL, "model/target=difference"),
            "this structure has none in def2-svp: data need data.dataset.initial_guess=compute",
        ),
        pytest.param(
            ("model=sphnet", HAMILTONIAN),
            "The front end looks 9 Å far, the model 5 Å: raise cutoff",
            marks=pytest.mark.slow,
        ),
        (
            ("model=sphnet", HAMILTONIAN, *SMALL, "model/pair_gate=null"),
            "'model/pair_gate=null' cannot be: leave it out, or choose one of none, quantile",
        ),
        (("model=sphnet", HAMILTONIAN, *SMALL, "model/path_gate=fixed"), "Known: none, three_phases"),
        pytest.param(
            ("model=qhnet", HAMILTONIAN, *SMALL, "~model/front_end"),
            "needs the option(s) front_end, which are not set",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("model=qhnet", HAMILTONIAN, *SMALL, "statistics.basis=sto-3g"), "in sto-3g it has", marks=pytest.mark.slow
        ),
        pytest.param(
            ("model=qhnet", HAMILTONIAN, *SMALL, "statistics.functional=pbe"),
            "The model's functional is pbe, ",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("model=qhnet", HAMILTONIAN, *SMALL, "model.num_channels=1000000000"),
            "from 1 to 1024, got 1000000000",
            marks=pytest.mark.slow,
        ),
        (
            ("model=qhnet", HAMILTONIAN, *SMALL, "model.num_layers=10000"),
            "num_layers must be a whole number from 1 to 64",
        ),
    ],
)
def test_mistakes(words: tuple[str, ...], sentence: str) -> None:
    if "sto-3g" in sentence:
        pytest.importorskip("pyscf")
    text = " ".join(train(*words, status=1).split())
    assert sentence in text
    assert "Traceback" not in text
    assert not Path("runs").exists()


def test_data_without_hamiltonians() -> None:
    Path("water.xyz").write_text(
        "".join(f"3\nProperties=species:S:1:pos:R:3:forces:R:3 energy={k}.0\nO 0 0 0.1{k} {_XYZ}" for k in range(4))
    )
    words = ("data=extxyz", "data.path=water.xyz", "data.split.train=2", "data.split.valid=2")
    text = " ".join(mlip("train", *words, "model=qhnet", *SMALL, status=1).split())
    assert "needs the basis of its orbitals, which data with Hamiltonians state, and these state none" in text


_XYZ = "0 0 0.1\nH 0 0.76 -0.47 0 0 0\nH 0 -0.76 -0.47 0 0 -0.1\n"


def test_an_element_that_is_only_validated() -> None:
    """Hydrogen fluoride among the molecules to validate on: the model has learned nothing of fluorine."""
    write_stable(Path("stable.db"), [0, 1, 2])
    connection = sqlite3.connect("hf.db")
    connection.execute(STABLE_TABLE)
    blobs = np.array([9, 1], "<i4").tobytes(), np.array([[0, 0, 0], [0, 0, 0.93]]).tobytes(), symmetric(19, 1).tobytes()
    connection.execute("INSERT INTO data VALUES (0, 2, ?, ?, ?)", blobs)
    connection.commit()
    connection.close()
    words = ("data=qh9", "data.path=stable.db", "data.valid_path=hf.db", "data.split.test=0")
    text = " ".join(mlip("train", *words, "model=qhnet", HAMILTONIAN, *SMALL, status=1).split())
    assert "hf.db:0: " in text
    assert "F" in text.partition("hf.db:0: ")[2]


def test_fine_tuning_stays_at_the_level_of_theory() -> None:
    model = configuration("qhnet") | {"elements": ["H", "O"], "functional": "b3lyp5"}
    save_model("start.safetensors", build_model(model))
    words = ("finetune.model=start.safetensors", HAMILTONIAN, "finetune.atomic_energies=refit")
    assert "the model predicts no energy but hamiltonian: leave it out" in " ".join(train(*words, status=1).split())
    text = " ".join(
        train("finetune.model=start.safetensors", HAMILTONIAN, "data.dataset.functional=pbe", status=1).split()
    )
    assert "The model's functional is b3lyp5, " in text
    assert "has Hamiltonians of pbe: one model learns one level of theory" in text


@pytest.mark.slow
def test_fine_tuning() -> None:
    model = configuration("qhnet") | {"elements": ["H", "O"], "functional": "b3lyp5"}
    save_model("start.safetensors", build_model(model))
    assert "validation MAE: H" in train("finetune.model=start.safetensors", HAMILTONIAN, "max_epochs=1")
