"""The Tetris experiment: what a tensor product can tell apart, by training on it (issue: mirror images).

Clebsch-Gordan and vector-signal products learn all eight pieces. Gaunt products of natural parities have no path with
l1 + l2 + l3 odd, so that they make no pseudo-scalar: the mirror pair is one and the same piece to them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from e3nn.o3 import Irrep
from torch_geometric.data import Batch
from typer.testing import CliRunner

from mlip.cli.compose import compose, to_plain
from mlip.cli.main import app
from mlip.core.build import build
from mlip.data.datasets.tetris import PIECES, TetrisDataset
from mlip.data.loading import GraphDataset
from mlip.evaluation.accuracy import Accuracy, accuracy
from mlip.evaluation.predict import predict_dataset
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.models.model_file import load_model
from mlip.nn.derivatives import predict
from tests.components import component_names

BACKENDS = component_names("tensor_product")
ROTATIONS = 5
SAMPLES = list(TetrisDataset(rotations=ROTATIONS, seed=12))[len(PIECES) :]
"""Turned copies only, other ones than in training and validation."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@cache
def settings(backend: str) -> dict[str, Any]:
    """The experiment's configuration with the statistics that a run would measure."""
    statistics = ["statistics.elements=[H]", "statistics.num_neighbors=2.5", "dtype=float64"]
    return to_plain(compose("train", ["experiment=tetris", f"model/tensor_product={backend}", *statistics]))


def train(*words: str) -> str:
    """Run ``mlip train experiment=tetris`` as a user and return what it prints."""
    result = CliRunner().invoke(app, ["train", "experiment=tetris", *words])
    assert result.exit_code == 0, result.output
    return result.output


def trained(backend: str, epochs: int = 200) -> AtomisticModel:
    """Train by the command line, at the end of which the model is validated once."""
    name = f"model/tensor_product={backend}"
    train(name, f"max_epochs={epochs}", f"validate_every={epochs}", "dtype=float64", f"name={backend}")
    return load_model(f"runs/{backend}/model.safetensors")


def examined(model: AtomisticModel) -> tuple[Accuracy, list[dict[str, np.ndarray]]]:
    """Return the accuracy on turned pieces and the predictions."""
    predictions = predict_dataset(model, GraphDataset(SAMPLES, model.cutoff), model.fields)
    found = accuracy(SAMPLES, predictions)
    assert found is not None
    return found, predictions


def largest_pair_difference(predictions: list[dict[str, np.ndarray]]) -> float:
    """Return the largest difference of a class score between the two screws of every copy."""
    pairs = [(predictions[k], predictions[k + 1]) for k in range(0, len(predictions), len(PIECES))]
    return max(float(np.abs(right["class_scores"] - left["class_scores"]).max()) for right, left in pairs)


def check_all_pieces_are_learnt(model: AtomisticModel) -> None:
    found, predictions = examined(model)
    assert found == Accuracy(8 * ROTATIONS, 8 * ROTATIONS)
    labels = np.array([sample.labels["chirality"] for sample in SAMPLES])
    assert np.array([p["chirality"] for p in predictions]) == pytest.approx(labels, abs=0.2)
    assert largest_pair_difference(predictions) < 1e-10


@pytest.mark.slow
def test_vector_signals_learn_all_pieces() -> None:
    check_all_pieces_are_learnt(trained("vector_grid", epochs=80))


@pytest.mark.slow
def test_natural_parity_gaunt_learns_all_but_the_mirror_pair() -> None:
    model = trained("gaunt_grid", epochs=80)
    found, predictions = examined(model)
    assert found == Accuracy(7 * ROTATIONS, 8 * ROTATIONS)
    assert all(p["chirality"] == 0.0 for p in predictions)
    assert largest_pair_difference(predictions) < 1e-10
    achiral = [k for k, sample in enumerate(SAMPLES) if not sample.labels["chirality"]]
    kept = [SAMPLES[k] for k in achiral], [predictions[k] for k in achiral]
    assert accuracy(*kept) == Accuracy(6 * ROTATIONS, 6 * ROTATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_learns_what_its_parity_allows(backend: str) -> None:
    model = trained(backend)
    found, predictions = examined(model)
    sees_hands = Irrep("0o") in [ir for _, ir in model.irreps_out]
    assert found == Accuracy((8 if sees_hands else 7) * ROTATIONS, 8 * ROTATIONS)
    assert sees_hands or all(p["chirality"] == 0.0 for p in predictions)


@pytest.mark.slow
@pytest.mark.parametrize(
    # Those that choose by measurement take seconds for it.
    "backend",
    [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("auto") else []) for name in BACKENDS],
)
def test_every_backend_builds_steps_and_keeps_the_symmetry_of_the_pair(backend: str) -> None:
    config = settings(backend)
    model = build_model(config["model"], dtype=torch.float64)
    batch = Batch.from_data_list(list(GraphDataset(list(TetrisDataset(rotations=0)), model.cutoff)))
    # A first step at the full rate may be too long for the loss to fall.
    optimizer, losses = build({**config["optimizer"], "lr": 0.002})(model), build(config["loss"])

    def loss() -> torch.Tensor:
        found = predict(model, batch, model.fields, create_graph=True)
        return sum(loss.weight(0.0) * loss(found, batch) for loss in losses.values())

    before = loss()
    before.backward()
    optimizer.step()
    assert float(loss().detach()) < float(before.detach())
    _, predictions = examined(model)
    assert largest_pair_difference(predictions) < 1e-10
    hands = np.array([p["chirality"] for p in predictions]).reshape(ROTATIONS, len(PIECES))
    assert np.abs(hands[:, 0] + hands[:, 1]).max() < 1e-10
    assert np.abs(hands[:, 2:]).max() < 1e-10
    if Irrep("0o") in [ir for _, ir in model.irreps_out]:
        assert np.abs(hands[:, :2]).min() > 1e-6
    else:
        assert not hands.any()


@pytest.mark.slow
def test_clebsch_gordan_products_learn_all_pieces_and_the_run_says_so() -> None:
    text = train("max_epochs=50", "validate_every=50", "dtype=float64")
    check_all_pieces_are_learnt(load_model("runs/tetris/model.safetensors"))
    assert "validation: 8/8 structures classified correctly" in text
    assert "chirality" in text
    record = json.loads(Path("runs/tetris/run.json").read_text(encoding="utf-8"))
    assert record["accuracy_valid"] == {"right": 8, "total": 8}
    assert set(record["metrics_valid"]) == {f"{f}_{e}" for f in ("class_scores", "chirality") for e in ("mae", "rmse")}
    assert (Path("runs/tetris/parity_valid.png")).is_file()
    words = [
        "evaluate",
        "runs/tetris/model.safetensors",
        "data=tetris",
        "data.dataset.seed=4",
        "data.dataset.rotations=3",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "32/32 structures classified correctly" in result.output
    assert "class scores" in result.output
    assert json.loads(Path("evaluate_tetris/metrics.json").read_text())["accuracy"] == {"right": 32, "total": 32}
    # What was written is a data set: labels and predictions survive the file.
    again = ["evaluate", "runs/tetris/model.safetensors", "data=evaluate_tetris/predictions.xyz", "--output", "again",
             "data.dataset.labels=[class_scores,chirality]", "data.dataset.optional_labels=[]"]  # fmt: skip
    result = CliRunner().invoke(app, again)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("again/metrics.json").read_text())["errors"]["class_scores_rmse"] < 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=facet"], "The data have no forces"),
        (["loss=[energy,class_scores]"], "The loss 'energy' needs the label 'energy'"),
        (["loss=[energy]"], "The loss 'energy' needs the label 'energy'"),
        (["loss=[]"], "No loss is chosen"),
        (["loss=[chirality]", "loss.class_scores.weight=2"], "not chosen: add 'loss=[chirality,class_scores]'"),
        (["+loss.forces.weight=3"], "about the loss 'forces', which is not chosen"),
        (["model.num_classes=5"], "predicts 'class_scores' of shape (1, 5), its labels have the shape (1, 7)"),
        (["model.activation=null"], "activation must be"),
        (["model.lmax_edge=-1"], "lmax_edge must be a whole number from 0"),
        (["model/many_body=gaunt_grid"], "The chosen model has no component 'many_body'; it has: tensor_product"),
        (["model/many_body=gaunt_grid", "model/head=energy"], "no component 'many_body'"),
        (["data.dataset.element=Qq"], "element must be a chemical symbol"),
        (["model.irreps_hidden=8x1o"], "hold scalars 0e"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["train", "experiment=tetris", *words])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert not Path("runs").exists()


def test_the_experiments_weight_of_a_loss_that_is_not_chosen_is_left_out() -> None:
    result = CliRunner().invoke(app, ["train", "experiment=tetris", "loss=[chirality]", "--print-config"])
    assert result.exit_code == 0, result.output
    loss = yaml.safe_load(result.output)["loss"]
    assert list(loss) == ["chirality"]
    result = CliRunner().invoke(app, ["train", "experiment=silicon", "loss=[forces]", "--print-config"])
    assert list(yaml.safe_load(result.output)["loss"]) == ["forces"]
