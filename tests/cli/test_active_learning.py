"""The loop as a user goes through it: committee, molecular dynamics, selection, labels, and training again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app

pytestmark = pytest.mark.slow

SMALL = (
    "model.irreps_hidden=8x0e+4x1o", "model.num_layers=2", "model.lmax_edge=1", "model.nonlinearity.resolution=[4,7]",
    "cutoff=4.0", "max_epochs=25",
)  # fmt: skip


def mlip(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output + result.stderr


def committee_of(data: str, name: str) -> list[str]:
    for seed in (0, 1):
        mlip("train", f"data.path={data}", f"seed={seed}", f"name={name}{seed}", *SMALL)
    return [f"runs/{name}{seed}/model.safetensors" for seed in (0, 1)]


def uncertainties(models: list[str], path: str) -> np.ndarray:
    calculator = MLIPCalculator(models)
    frames = read(path, ":")
    return np.array([calculator.get_property("forces_std", frame).max() for frame in frames])


def test_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng, frames = np.random.default_rng(0), []
    for number in range(40):
        frames.append(bulk("Cu", "fcc", a=3.6 + 0.03 * rng.normal(), cubic=True))
        frames[-1].rattle(0.06, seed=number)
    write("start.extxyz", frames)
    write("cu.extxyz", bulk("Cu", "fcc", a=3.6, cubic=True))
    mlip("data", "label", "start.extxyz", "--ase", "emt", "--out", "first.extxyz", "--jobs", 1)
    before = committee_of("first.extxyz", "a")
    words = ("md", "cu.extxyz", "--committee", before[0], "--committee", before[1], "--select", 8, "--temperature", 600)
    words = (*words, "--timestep", 2, "--log-interval", 2, "--steps", 200, "--select-spacing", 20)
    assert "Structures to label are in one/selected.extxyz" in mlip(*words, "--output", "one")
    assert "Structures to label are in two/selected.extxyz" in mlip(*words, "--output", "two", "--replicas", 2)
    chosen = read("two/selected.extxyz", ":")
    assert 2 <= len(chosen) <= 8
    assert all(frame.calc is None for frame in chosen)
    output = mlip("select", "one/trajectory.traj", "-n", 3, "--spacing", 20, "--output", "again.extxyz")
    assert "structures, uncertain by" in output
    assert "is there already" in mlip("select", "one/trajectory.traj", "--output", "again.extxyz", status=1)
    mlip("data", "label", "two/selected.extxyz", "--ase", "emt", "--out", "second.extxyz", "--jobs", 1)
    assert "needs a committee" in mlip("md", "cu.extxyz", "--model", before[0], "--select", 3, status=1)
    Path("both.extxyz").write_text(Path("first.extxyz").read_text() + Path("second.extxyz").read_text())
    after = committee_of("both.extxyz", "b")
    assert uncertainties(after, "second.extxyz").mean() < 0.9 * uncertainties(before, "second.extxyz").mean()
