"""``mlip train finetune.model=…`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.compose import compose
from mlip.cli.main import app
from mlip.cli.training.finetune import check_start
from mlip.cli.training.replay import _check_apart
from mlip.core.errors import DataError
from mlip.models.committee import committee_of
from mlip.models.header import read_header
from mlip.models.model_file import load_model, save_model
from tests.cli.test_train import write_frames
from tests.training.setup import make_model, samples

OTHER_CODE = {"H": -13.6, "C": -1029.4, "O": -2041.8}
START = "finetune.model=old/model.safetensors"


def train(*arguments: str):
    return CliRunner().invoke(app, ["train", *arguments])


def text(result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A model for H and C, structures of its kind, and frames with oxygen whose energies come from another code."""
    folder = tmp_path_factory.mktemp("finetune")
    here = Path.cwd()
    os.chdir(folder)
    try:
        write_frames(folder / "old.xyz", 24)
        save_model("old/model.safetensors", make_model(), {"data": {"licence": "CC0", "split": [1, 2, 3]}})
        save_model("pair.safetensors", committee_of([make_model(0), make_model(1)]))
        frames = read("old.xyz", ":")[:16]
        for k, atoms in enumerate(frames):
            atoms.positions += np.random.default_rng(k).normal(0, 0.03, atoms.positions.shape)
            if k % 2:
                atoms.symbols[0] = "O"
            atoms.info["REF_energy"] += sum(OTHER_CODE[s] for s in atoms.symbols)
        write("new.xyz", frames, format="extxyz")
        write("backwards.xyz", frames[::-1], format="extxyz")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def folder(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


@pytest.mark.usefixtures("no_pictures")
def test_new_elements_replay_frozen_parts_and_rates(folder):
    result = train(
        START, "data.path=new.xyz", "run_dir=tuned", "max_epochs=1", "optimizer.lr_factors={layers.1: 0.1}",
        "finetune.freeze=[layers.0]", "finetune.replay.path=old.xyz", "finetune.replay.fraction=0.25",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    said = text(result)
    for expected in (
        "Start: 'old/model.safetensors', ConvolutionNetwork for H, C", "New elements start as known ones: O as C",
        "fitted to the new energies", "Replay: 5 of 22 structures in every pass, 2 to validate on",
        "parameters of", "layers.1", "frozen parts", "replay RMSE",
    ):  # fmt: skip
        assert expected in said, expected
    old, new = load_model("old/model.safetensors"), load_model("tuned/model.safetensors")
    assert new.elements == ("H", "C", "O")
    assert (new.cutoff, new.dtype) == (3.0, old.dtype)
    for name, value in old.layers[0].state_dict().items():
        assert value.equal(new.layers[0].state_dict()[name]), name
    assert not old.embedding.equal(new.embedding[:2])
    # Energies are those of the new code: 1000 eV would be missing without the fit.
    frame = read("new.xyz", 1)
    frame.calc = MLIPCalculator("tuned/model.safetensors")
    assert abs(frame.get_potential_energy() - frame.info["REF_energy"]) / len(frame) < 10


def test_dtype_is_that_of_the_file_unless_an_override_or_an_experiment_names_one(folder):
    Path("own/experiment").mkdir(parents=True, exist_ok=True)
    Path("own/experiment/double.yaml").write_text("# @package _global_\ndtype: float64\n")
    Path("own/experiment/single.yaml").write_text("# @package _global_\ndtype: float32\n")
    save_model("double.safetensors", make_model().double())
    for expected, *overrides in (
        ("float32",),
        ("float64", "experiment=double"),
        ("float32", START),
        ("float64", START, "experiment=double"),
        ("float64", START, "dtype=float64"),
        ("float64", "finetune.model=double.safetensors"),
        ("float32", "finetune.model=double.safetensors", "experiment=single"),
    ):
        overrides = ["data.path=new.xyz", *overrides]
        config = compose("train", overrides, Path("own"))
        check_start(config, overrides)
        assert config.dtype == expected, overrides


def test_what_is_trained_on_is_not_measured_on_in_the_other_set():
    one, other, *rest = samples(6, 0)

    def parts(train, valid, test):
        return SimpleNamespace(train=train, valid=valid, test=test, rule={})

    _check_apart(parts([one], [rest[0]], [rest[1]]), parts([one, other], [rest[2]], [rest[3]]))
    for new, replayed, words in (
        (parts([one], [], []), parts([other], [one], []), r"\(train\) and .* \(replay valid\)"),
        (parts([one], [], []), parts([other], [], [one]), r"\(train\) and .* \(replay test\)"),
        (parts([other], [one], []), parts([one], [], []), r"\(valid\) and .* \(replay train\)"),
        (parts([other], [], [one]), parts([one], [], []), r"\(test\) and .* \(replay train\)"),
    ):
        with pytest.raises(DataError, match=words):
            _check_apart(new, replayed)
        new.rule["allow_duplicates"] = True
        _check_apart(new, replayed)


@pytest.mark.slow
def test_the_card_knows_where_the_model_comes_from(folder):
    # Tuned twice: the chain of cards goes back to the first.
    for start, name in (("old", "card"), ("card", "again")):
        result = train(
            f"finetune.model={start}/model.safetensors", "data.path=new.xyz", f"run_dir={name}", "max_epochs=1"
        )
        assert result.exit_code == 0, result.output
    card = read_header("again/model.safetensors")["metadata"]
    import hashlib

    assert card["parent"]["sha256"] == hashlib.sha256(Path("card/model.safetensors").read_bytes()).hexdigest()
    first = card["parent"]["metadata"]["parent"]
    assert first["sha256"] == hashlib.sha256(Path("old/model.safetensors").read_bytes()).hexdigest()
    assert first["elements"] == ["H", "C"]
    assert first["metadata"]["data"] == {"licence": "CC0"}
    assert json.loads(Path("again/run.json").read_text())["parent"]["sha256"] == card["parent"]["sha256"]


@pytest.mark.slow
def test_without_a_step_the_old_structures_are_predicted_as_before(folder):
    """One step at a vanishing rate: what is exported is the start."""
    result = train(
        START, "data.path=new.xyz", "run_dir=still", "max_epochs=1", "optimizer.lr=1e-30", "optimizer.weight_decay=0",
        "finetune.atomic_energies=keep",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Reference energies of the elements: kept; added, eV: O" in text(result)
    for frame in read("old.xyz", ":5"):
        found = []
        for name in ("old", "still"):
            atoms = Atoms(frame.symbols, frame.positions, calculator=MLIPCalculator(f"{name}/model.safetensors"))
            found.append((atoms.get_potential_energy(), atoms.get_forces()))
        assert found[0][0] == found[1][0]
        assert np.array_equal(found[0][1], found[1][1])


SLOW = [
    (("optimizer.lr_factors={head: 1}",), "Did you mean 'heads'?"),
    (("model/radial=bessel",), "leave out 'model/radial=bessel'"),
    (("cutoff=4.0",), "leave out 'cutoff=4.0'"),
    (("statistics.force_rms=2",), "leave out 'statistics.force_rms=2'"),
    (("finetune.model=old.xyz",), "cannot be read as a model file"),
    (("finetune.freez=[layers]",), "Did you mean 'finetune.freeze'?"),
    (("finetune.new_elements=mea",), "Did you mean 'mean'?"),
    (("finetune.atomic_energies=fit",), "must be auto, keep or refit"),
    (("loss=[class_scores]", "data.dataset.labels=[energy,forces]"), "needs the label 'class_scores'"),
    (("finetune.replay.path=old.xyz", "finetune.replay.fraction=1"), "between 0 and 1, got 1"),
    (("finetune.replay.path=old.xyz", "finetune.replay.valid=3"), "a fraction of the structures, at least 0, got 3"),
    (("finetune.replay.path=backwards.xyz",), "geometries are in two parts"),
    (("finetune.replay.path=none.xyz",), "none.xyz"),
    (("finetune.replay.fraction=0.5",), "does nothing without structures to replay"),
    (("finetune.energy_shifts={H: 1}",), "finetune.energy_shifts is what a run writes down"),
    (("finetune.freeze=embedding",), "write finetune.freeze=[embedding]"),
    (("finetune.model=pair.safetensors",), "is a committee of 2 models"),
]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.num_layers=3",), "brings its architecture, cutoff and statistics: leave out 'model.num_layers=3'"),
        (("finetune.model=nowhere.safetensors",), "There is no model file 'nowhere.safetensors'"),
        (("finetune.freeze=[layer.0]",), "Did you mean 'layers.0'?"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    ],
)
def test_mistakes_are_one_clear_sentence(folder, overrides, message):
    result = train(START, "data.path=new.xyz", "run_dir=refused", *overrides)
    assert result.exit_code == 1, result.output
    assert message in text(result)
    assert "Traceback" not in result.output
    assert not Path("refused").exists()


@pytest.mark.slow
def test_settings_without_a_model_file_are_refused(folder):
    for setting in ("finetune.freeze=[layers]", "finetune.replay.path=old.xyz", "finetune.atomic_energies=refit"):
        result = train("data.path=new.xyz", "run_dir=refused", setting)
        assert result.exit_code == 1
        assert "needs a model to start from" in text(result)


@pytest.mark.slow
def test_a_replay_set_of_another_format(folder):
    result = train(
        START, "data.path=new.xyz", "run_dir=other", "max_epochs=1", "data@finetune.replay.data=extxyz",
        "finetune.replay.data.path=old.xyz", "finetune.replay.data.split.train=7", "finetune.replay.data.split.valid=0",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Replay: 4 of 7 structures in every pass, 0 to validate on" in text(result)


@pytest.mark.slow
def test_a_recipe_does_not_contradict_the_model_file(folder):
    result = train(START, "experiment=silicon", "data=extxyz", "data.path=new.xyz", "loss=[energy,forces]",
                   "run_dir=recipe", "max_epochs=1")  # fmt: skip
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_an_absurd_label_is_named_by_its_frame(folder):
    frames = read("new.xyz", ":")
    frames[3].arrays["REF_forces"][:] = 900.0
    frames[3].info["REF_energy"] = 1e80
    write("absurd.xyz", frames, format="extxyz")
    result = train(START, "data.path=absurd.xyz", "data.split.train=[0,1,2,3,4,5]", "data.split.valid=[6,7]",
                   "run_dir=absurd", "max_epochs=1")  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "absurd.xyz:3" in text(result)
    assert not Path("absurd/config.yaml").exists()


@pytest.mark.slow
def test_resume_is_exact_and_needs_no_model_file(folder):
    settings = [
        "data.path=new.xyz", "max_epochs=25", "finetune.freeze=[embedding]", "finetune.replay.path=old.xyz",
        "optimizer.lr_factors={layers: 0.5}", "schedule=plateau",
    ]  # fmt: skip
    copy = folder / "moved.safetensors"
    copy.write_bytes((folder / "old/model.safetensors").read_bytes())
    assert train("finetune.model=moved.safetensors", "run_dir=straight", *settings).exit_code == 0
    command = [
        sys.executable,
        "-m",
        "mlip.cli",
        "train",
        "finetune.model=moved.safetensors",
        "run_dir=stopped",
        *settings,
    ]
    process = subprocess.Popen(
        [*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    )
    for _ in range(600):
        if Path("stopped/log.csv").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    copy.unlink()
    resumed = train("--resume", "stopped")
    assert resumed.exit_code == 0, resumed.output
    models = [load_model(f"{name}/model.safetensors") for name in ("straight", "stopped")]
    for name, value in models[0].state_dict().items():
        assert value.equal(models[1].state_dict()[name]), name
    assert models[1].metadata["parent"] == models[0].metadata["parent"]
    # Other structures to replay are another run.
    frames = read("old.xyz", ":")
    write("old.xyz", frames[:-1], format="extxyz")
    try:
        refused = train("--resume", "stopped")
        assert "the replay set changed" in text(refused)
    finally:
        write("old.xyz", frames, format="extxyz")
