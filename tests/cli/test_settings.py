"""Plain settings that no training can have are refused before anything is read."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from mlip.cli.compose import compose
from mlip.cli.main import app
from mlip.cli.training.numbers import check_numbers
from mlip.core.errors import ConfigError


@pytest.fixture(scope="module")
def config():
    return compose("train", ["data.path=x.xyz"])


def test_the_defaults_are_fine(config):
    check_numbers(config)
    check_numbers(compose("train", ["data.path=x.xyz", "name=2024", "batch_graphs=null", "patience=3", "ema_decay=0"]))


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("seed", 1.5, "a whole number from 0"), ("seed", -1, "a whole number from 0"),
        ("max_epochs", 0, "a positive number"), ("max_epochs", "abc", "a positive number"),
        ("max_epochs", None, "a positive number"), ("validate_every", -1, "a positive number"),
        ("batch_graphs", 1.5, "a whole number from 1, or null"), ("batch_edges", 0, "a whole number from 1, or null"),
        ("patience", 0, "a whole number from 1, or null"), ("checkpoint_every", "abc", "a whole number from 1"),
        ("ema_decay", 1, "a number from 0, below 1"), ("num_workers", -1, "a whole number from 0"),
        ("atomic_energy_regularisation", "abc", "a number from 0"), ("run_dir", None, "a name"),
    ],
)  # fmt: skip
def test_mistakes_are_named(config, name, value, meaning):
    changed = config.copy()
    changed[name] = value
    with pytest.raises(ConfigError, match=f"^{name} must be {meaning}, got"):
        check_numbers(changed)


@pytest.mark.slow
def test_a_group_that_cannot_be_null():
    with pytest.raises(ConfigError, match=r"'model/many_body=null' cannot be: leave it out, or choose one of gaunt"):
        compose("train", ["data.path=x.xyz", "model=mace", "model/many_body=null"])


def test_no_run_of_a_sweep_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "-m", "experiment=ethanol", "max_epochs=1,0"])
    assert result.exit_code == 1
    assert "max_epochs must be a positive number, got 0" in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(
        app, ["train", "experiment=ethanol", "data.split.train=4", "data.split.valid=2", "data.split.test=0",
              f"run_dir={tmp_path}/file/run", "model.irreps_hidden=4x0e", "model.lmax_edge=0", "model.num_layers=1"]
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "cannot be made" in " ".join(result.output.split())
