"""``mlip md`` with replicas, ramps, barostats and exports, and ``mlip analyse``."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from ase.build import bulk
from ase.io import read
from typer.testing import CliRunner

from mlip.calculators import committee as loading
from mlip.cli.analyse import analyse
from mlip.cli.md import choose_selection, md
from mlip.core.errors import ConfigError, MlipError, SimulationError
from mlip.simulate.selection import SelectOptions
from mlip.simulate.thermo import read_thermo
from tests.simulate.pair_model import PairModel


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(loading, "load_model", lambda path, device, dtype: PairModel())
    bulk("Cu", "fcc", a=3.25, cubic=True).write("copper.cif")
    Path("m").touch()
    app = typer.Typer()
    app.command("md")(md)
    app.command("analyse")(analyse)

    def call(*words: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return call


MD = ("md", "copper.cif", "--model", "m", "--output", "out", "--timestep", 2)


@pytest.mark.slow
def test_replicas_with_a_ramp(run, tmp_path: Path) -> None:
    words = (*MD, "--replicas", 2, "--seed", 7, "--log-interval", 2, "--final-temperature", 600)
    output = run(*words, "--steps", 10)
    folders = sorted((tmp_path / "out").glob("replica_*"))
    assert [folder.name for folder in folders] == ["replica_0", "replica_1"]
    assert "2 replicas of Cu4" in output
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["averages_and_errors"]["number"] == 2
    assert summary["failed"] == {}
    for folder in folders:
        assert (folder / "md.png").is_file()
        assert [row.step for row in read_thermo(folder / "thermo.csv")] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(SimulationError, match=r"'out/.*' is there already"):
        run(*words, "--steps", 10)
    with pytest.raises(SimulationError, match="already at step 10"):
        run(*words, "--steps", 10, "--restart")
    with pytest.raises(SimulationError, match="has replicas, not one run"):
        run(*MD, "--steps", 10, "--overwrite")
    # Killed after the last step: the results are written.
    (folders[1] / "summary.json").unlink()
    run(*words, "--steps", 10, "--restart")
    assert json.loads((folders[1] / "summary.json").read_text())["last_step"] == 10
    run(*words, "--steps", 14, "--restart")
    assert read(folders[1] / "trajectory.traj").info["step"] == 14
    ends = [read(folder / "trajectory.traj").positions for folder in folders]
    assert np.abs(ends[0] - ends[1]).max() > 1e-4


def test_a_replica_that_fails(run, tmp_path: Path) -> None:
    """The limit is passed by all of them here: what went wrong is said for each, and the exit status is 1."""
    output = run(*MD, "--replicas", 2, "--steps", 5, "--max-temperature", 10, code=1)
    flat = output.replace("\n", "")
    # Langevin also heats the motion as a whole: 9 of 12 degrees of freedom have a temperature at first.
    assert "replica_0: MD stopped at step 0: the temperature is 225 K, above the limit of 10 K" in flat
    assert set(json.loads((tmp_path / "out/summary.json").read_text())["failed"]) == {"replica_0", "replica_1"}


def test_what_is_wrong_at_the_start(run, tmp_path: Path) -> None:
    """Atoms on top of each other leave no files."""
    atoms = bulk("Cu", "fcc", a=3.25, cubic=True)
    atoms.positions[1] = atoms.positions[0] + [0.2, 0, 0]
    atoms.write("touching.xyz")
    with pytest.raises(SimulationError, match=r"MD stopped at step 0: atoms 0 .* No trajectory was written"):
        run("md", "touching.xyz", *MD[2:])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_barostats_exports_and_analysis(run, tmp_path: Path) -> None:
    output = run(
        *MD, "--ensemble", "npt", "--barostat", "full", "--steps", 40, "--frame-interval", 2, "--log-interval", 2,
        "--export", "extxyz", "--export", "h5md", "--checkpoint-interval", 7,
    )  # fmt: skip
    assert "NPT (full-cell" in output
    assert len(read(tmp_path / "out/trajectory.xyz", ":")) == 21
    assert (tmp_path / "out/trajectory.h5").stat().st_size > 5000
    output = run("analyse", "out", "--skip", 3)
    assert "20 frames, every 4 fs" in output
    found = json.loads((tmp_path / "out/analysis/analysis.json").read_text())
    assert found["frames"] == 20
    assert found["spectrum_highest_per_cm"] == pytest.approx(4170, rel=0.01)
    assert (tmp_path / "out/analysis/rdf.png").stat().st_size > 5000
    for name in ("temperature", "temperature_distribution"):
        assert (tmp_path / f"out/analysis/{name}.png").stat().st_size > 5000
    run("analyse", "out", "--export", "h5md", "--output", "exported")
    assert (tmp_path / "exported/trajectory.h5").read_bytes()[:4] == b"\x89HDF"
    with pytest.raises(SimulationError, match=r"no \.traj file"):
        run("analyse", "out/trajectory.xyz", "--export", "extxyz", "--output", "other")
    with pytest.raises(SimulationError, match="states the times of its frames"):
        run("analyse", "out/trajectory.xyz", "--interval", 4, "--output", "other")
    run("analyse", "out/trajectory.xyz", "--output", "other")
    assert (tmp_path / "other/msd.csv").read_text().startswith("time_fs,Cu_A2\n0,0\n")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((*MD, "--barostat", "full"), "--barostat is for"),
        ((*MD, "--ensemble", "nve", "--final-temperature", 500), "no thermostat"),
        ((*MD, "--final-temperature", -5), "final temperature must be"),
        ((*MD, "--checkpoint-interval", 0), "checkpoint interval must be"),
        ((*MD, "--max-temperature", -1), "max temperature must be"),
        ((*MD, "--closest", -1), "closest must be"),
        (("analyse", "nowhere"), "no trajectory"),
        (("analyse", "copper.cif", "--r-max", -1), "--r-max must be"),
        (("analyse", "copper.cif"), "1 frame"),
    ],
)
def test_refusals(run, words: tuple, match: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, MlipError), match=match):
        run(*words)
    assert not (tmp_path / "out").exists()


def test_options_of_a_selection_without_one_are_refused() -> None:
    with pytest.raises(SimulationError, match=r"^--select-(above|spacing), --select-(above|spacing) .* is not there"):
        choose_selection(None, lowest=5.0, spacing=1.0)
    assert choose_selection(None, lowest=None) is None
    assert choose_selection(3, lowest=0.5, highest=None) == SelectOptions(3, lowest=0.5)
