"""``mlip train`` as a user runs it: overrides, mistakes, interruption and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.models.model_file import load_model
from tests.training.setup import samples

SMALL = [
    "model.irreps_hidden=8x0e+4x1o", "model.num_layers=2", "model.lmax_edge=1", "model.nonlinearity.resolution=[4,7]",
    "model.norm.initial_scale=0.5", "cutoff=3.0", "max_epochs=4", "data.split.train=12", "data.split.valid=4",
]  # fmt: skip


def write_frames(path: Path, count: int = 16) -> Path:
    frames = []
    for sample in samples(count, 0):
        atoms = sample.atoms
        atoms.info["REF_energy"] = float(sample.labels["energy"])
        atoms.arrays["REF_forces"] = sample.labels["forces"]
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_frames(tmp_path / "frames.xyz")


def train(*arguments: str):
    return CliRunner().invoke(app, ["train", *arguments])


def test_a_run_leaves_model_record_log_and_plots(data):
    result = train(f"data.path={data}", "name=first", "atomic_energy_regularisation=0.5", *SMALL, "max_epochs=2")
    assert result.exit_code == 0, result.output
    assert "elements: least squares with regularisation 0.5" in " ".join(result.output.split())
    assert "parameters for H, C, cutoff 3.0 Å, float32; heads: energy; 12 structures" in " ".join(result.output.split())
    folder = Path("runs/first")
    assert {p.name for p in folder.iterdir()} >= {
        "model.safetensors", "run.json", "log.csv", "config.yaml", "last.ckpt", "best.ckpt", "learning_curve.png",
        "parity_valid.png", "tensorboard",
    }  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    assert record["data"]["train"]["structures"] == 12
    assert len(record["data"]["split"]["valid"]) == 4
    assert record["config"]["model"]["elements"] == ["H", "C"]
    assert record["metrics_valid"]["forces_rmse_meV_per_A"] > 0
    assert load_model(folder / "model.safetensors").cutoff == 3.0
    assert "meV/Å" in result.output


def test_a_second_run_does_not_overwrite_the_first(data):
    Path("runs/twice").mkdir(parents=True)
    Path("runs/twice/config.yaml").touch()
    result = train(f"data.path={data}", "name=twice", *SMALL)
    assert result.exit_code == 1
    assert "holds a run already" in result.output


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cutof=4.0", "Did you mean 'cutoff'?"),
        ("model=face", "Did you mean 'facet'?"),
        ("model.irreps_hiden=8x0e", "Did you mean 'model.irreps_hidden'?"),
        ("+model.lmx_edge=1", "Did you mean 'lmax_edge'?"),
        ("model/radial=besel", "Did you mean 'bessel'?"),
        ("loss=[energy,forces,stress]", "needs the label 'stress'"),
        ("data.dataset.energy_key=REF_enrgy", "Did you mean 'REF_energy'?"),
        ("data.dataset.forces_key=forcs", "Did you mean"),
        ("cutoff=-1", "a cutoff that is a positive length"),
        ("dtype=float16", "float32, float64"),
        ("model._target_=os.system", "not allowed"),
        ("trainer.accelerator=toaster", "Lightning refuses"),
        ("data.split.train=1000", "more samples than the data set has"),
        ("data.path=nowhere.xyz", "nowhere.xyz"),
        ("nonsense", "not an override"),
    ],
)
def test_mistakes_are_one_clear_sentence(data, override, message):
    result = train(f"data.path={data}", *SMALL, override)
    assert result.exit_code == 1, result.output
    text = " ".join(result.output.split())
    assert message in text
    assert "Traceback" not in text
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.safetensors"))


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_was_refused_leaves_its_name_free(data):
    refused = train(f"data.path={data}", *SMALL, "trainer.accelerator=toaster", "name=again")
    assert refused.exit_code == 1
    assert not Path("runs/again/config.yaml").exists()
    assert train(f"data.path={data}", *SMALL, "max_epochs=1", "name=again").exit_code == 0


def test_missing_forces_do_not_train_on_energies_only(data):
    frames = read(data, ":")
    for atoms in frames[5:7]:
        del atoms.arrays["REF_forces"]
    write(data, frames, format="extxyz")
    result = train(f"data.path={data}", *SMALL)
    assert result.exit_code == 1
    assert "forces" in result.output


def test_validation_structures_that_cannot_be_validated_stop_before_the_training(data):
    frames = read(data, ":")
    for atoms in frames:
        atoms.positions += 0.01
        atoms.info["REF_stress"] = 0.1 * np.eye(3)
        atoms.pbc, atoms.cell = True, [8, 8, 8]
    write("stress.xyz", frames, format="extxyz")
    for atoms in frames:
        atoms.positions[0] += 0.01
        del atoms.info["REF_stress"]
    write("plain.xyz", frames, format="extxyz")
    settings = ["data.path=stress.xyz", "data.valid_path=plain.xyz", "loss=[energy,forces,stress]"]
    assert "needs the label 'stress'" in train(*settings, *SMALL[:-2]).output
    frames[5].symbols[0] = "O"
    write("oxygen.xyz", frames, format="extxyz")
    result = train(f"data.path={data}", "data.valid_path=oxygen.xyz", *SMALL[:-2])
    assert "oxygen.xyz:5: The structure contains O, which the model does not know; it knows H, C." in result.output
    assert not Path("runs").exists()


def test_print_config_shows_every_setting(data):
    result = train(f"data.path={data}", "--print-config")
    assert result.exit_code == 0
    assert "irreps_hidden" in result.output
    assert not Path("runs").exists()


def test_resume_needs_a_run_folder_and_takes_no_overrides(data, tmp_path):
    result = train("--resume", str(tmp_path / "nothing"))
    assert result.exit_code == 1
    assert "not a run folder" in result.output
    result = train("--resume", str(tmp_path), "cutoff=4")
    assert result.exit_code == 1
    assert "takes no overrides" in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_model(data, stored):
    source, settings = [f"data.path={data}"], [*SMALL, "max_epochs=30", "validate_every=3"]
    if stored:
        # Structures stay on disk, and two processes read them and build the graphs.
        made = CliRunner().invoke(app, ["data", "prepare", str(data), "out=store", "cutoff=3.0", "workers=1"])
        assert made.exit_code == 0, made.output
        source = ["data=store", "data.path=store", "num_workers=2", "batch_atoms=30", "bucket=6"]
        settings.append("max_epochs=12")
    assert train(*source, "name=straight", *settings).exit_code == 0
    command = [sys.executable, "-m", "mlip.cli", "train", *source, "name=stopped", *settings]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ, start_new_session=True
    )
    log = Path("runs/stopped/log.csv")
    for _ in range(600):
        if log.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    # As a terminal does: to the workers, too.
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "mlip train --resume" in " ".join(output.split())
    resumed = train("--resume", "runs/stopped")
    assert resumed.exit_code == 0, resumed.output
    for name, value in load_model("runs/straight/model.safetensors").state_dict().items():
        assert value.equal(load_model("runs/stopped/model.safetensors").state_dict()[name]), name


@pytest.mark.slow
def test_two_processes_train_one_model(data):
    # The strategy follows from the number of devices.
    command = [sys.executable, "-m", "mlip.cli", "train", f"data.path={data}", "name=ddp", "trainer.devices=2", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(Path("runs/ddp/run.json").read_text())
    # 12 structures in batches of up to five a process: two batches for each process and pass.
    assert record["steps"] == 8
    assert done.stdout.count("validation RMSE") == 4


@pytest.mark.slow
def test_debug_trainer(data):
    result = train(f"data.path={data}", "trainer=debug", *SMALL)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_a_full_disk_stops_with_a_sentence_and_no_half_file(data):
    import resource

    limit = 40_000
    command = [sys.executable, "-m", "mlip.cli", "train", f"data.path={data}", "name=full", *SMALL]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
        check=False,
        # The limit makes the write of a checkpoint fail half-way, as a full disk does.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path("runs/full").glob("*.ckpt"))
    assert not list(Path("runs/full").glob(".*"))
