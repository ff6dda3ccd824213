"""``mlip data prepare`` on the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from typer.testing import CliRunner

from mlip.cli.data import prepare as module
from mlip.cli.main import app
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.datasets.store import StoreDataset
from mlip.data.parts import load_parts
from tests.components import repository_root
from tests.data.store.made import assert_same

SILICON = repository_root() / "data" / "silicon_dft" / "silicon.xyz"
ETHANOL = repository_root() / "data" / "ethanol_dft" / "ethanol.xyz"


def run(*words):
    """Return the exit status and the output with its lines joined."""
    result = CliRunner().invoke(app, ["data", "prepare", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


def test_a_store_is_made_and_trained_on(tmp_path):
    code, text = run("data=silicon", f"data.path={SILICON}", f"out={tmp_path / 's'}", "workers=1")
    assert code == 0, text
    assert "99 of 1 to 16 atoms" in text
    assert f"Next: mlip train data=store data.path={tmp_path / 's'}" in text
    store = StoreDataset(tmp_path / "s")
    expected = list(ExtxyzDataset(SILICON, labels=["energy", "forces", "stress"]))
    for found, sample in zip(store, expected, strict=True):
        assert_same(found, sample)
    assert store.licence == "CC0-1.0"
    config = {
        "dataset": {"_target_": "mlip.data.datasets.store.StoreDataset", "path": str(tmp_path / "s")},
        "split": {"train": 0.8, "valid": 0.1, "test": 0.1, "seed": 0},
    }
    parts = load_parts(config)
    assert len(parts.train) + len(parts.valid) + len(parts.test) == 99
    code, text = run("data=silicon", f"data.path={SILICON}", f"out={tmp_path / 's'}", "workers=1")
    assert code == 0
    assert "complete already" in text


def test_settings_reach_the_store_and_more_is_added(tmp_path):
    words = [f"out={tmp_path / 's'}", "workers=1", "cutoff=4.0", "precision=compact", "graphs=true"]
    assert run("data=silicon", f"data.path={SILICON}", *words)[0] == 0
    code, text = run(ETHANOL, *words, "append=true")
    assert code == 0, text
    assert "FFF: " in text
    store = StoreDataset(tmp_path / "s")
    assert store.options == {"cutoff": 4.0, "precision": "compact", "graphs": True}
    assert store.sources[1]["words"] == [str(ETHANOL)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out=s", "cutof=4"], "no setting 'cutof'. Did you mean 'cutoff'"),
        (["data=silikon", "out=s"], "Did you mean 'silicon'"),
        (["data=silicon", "data.path=gone.xyz", "out=s"], "No file matches"),
        (["data=silicon"], "no default, give them on the command line: out="),
        (["data=silicon", f"data.path={SILICON}", "out=s", "precision=big"], "precision must be one of"),
    ],
)
def test_mistakes_are_said_in_one_sentence(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, text = run(*words)
    assert code == 1
    assert message in text
    assert not list(tmp_path.iterdir())


def test_a_corrected_key_is_free_to_use_the_same_folder(tmp_path):
    words = ["data=silicon", f"data.path={SILICON}", f"out={tmp_path / 's'}", "workers=1"]
    code, text = run(*words, "data.dataset.energy_key=engery")
    assert code == 1
    assert "Did you mean 'energy'" in text
    assert run(*words, "data.dataset.energy_key=energy")[0] == 0


def test_damaged_structures_are_counted(tmp_path):
    path = tmp_path / "a.xyz"
    frame = '1\nProperties=species:S:1:pos:R:3 energy=1 pbc="T T T" Lattice="3 0 0 {} 0 0 0 3"\nH 0 0 0\n'
    path.write_text(frame.format("0 3") + frame.format("3 0") + frame.format("1 3"))
    words = [f"data.path={path}", "data.dataset.labels=[energy]", f"out={tmp_path / 's'}", "workers=1"]
    code, text = run(*words)
    assert code == 1
    assert "span no volume" in text
    assert "on_error=skip" in text
    code, text = run(*words, "on_error=skip")
    assert code == 0, text
    assert "1 damaged structures were left out" in text
    assert json.loads((tmp_path / "s" / "rejected.jsonl").read_text())["shard"] == "shard-000000.h5"


def test_a_path_may_hold_an_equals_sign_and_a_log_tells_the_progress(tmp_path, monkeypatch):
    folder = tmp_path / "T=300"
    folder.mkdir()
    (folder / "a.xyz").write_text(SILICON.read_text())
    monkeypatch.setattr(module, "LINES_SECONDS", 0.0)
    code, text = run(folder / "a.xyz", f"out={tmp_path / 's'}", "workers=1")
    assert code == 0, text
    assert re.search(r"100 % of the files, 99 structures, [\d,]+/s, about 0 min left", text)


@pytest.mark.slow
def test_ctrl_c_is_clean_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "many.xyz").write_text(ETHANOL.read_text() * 25)
    command = [sys.executable, "-m", "mlip.cli", "data", "prepare", "many.xyz", "out=s", "workers=1"]
    environment = {**os.environ, "PYTHONPATH": str(repository_root())}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test run in the background of a shell ignores the signal, and so would its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "s").glob("shard*.h5")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Stopped" in output
    assert "Traceback" not in output
    assert not list((tmp_path / "s").glob(".shard*"))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "were there" in done.stdout
    assert len(StoreDataset(tmp_path / "s")) == 25 * len(ExtxyzDataset(ETHANOL))
