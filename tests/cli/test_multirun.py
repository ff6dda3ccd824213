"""``mlip train -m``: which runs a sweep has, and that they are trained once each, whatever happens to some."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console
from typer.testing import CliRunner

from mlip.cli.compose import compose
from mlip.cli.job_processes import JobProcess, run_jobs
from mlip.cli.main import app
from mlip.cli.multirun import PlannedRun, _changes, _plan, _reason, _Report, _state
from mlip.cli.sweep import expand, quote
from mlip.core.errors import ConfigError
from mlip.evaluation.run_files import CONFIG, FAILURE, OUTPUT, RECORD
from tests.cli.test_train import SMALL, write_frames

QUIET = Console(quiet=True)


def overrides(*texts: str, extra: Path | None = None) -> list[tuple[str, ...]]:
    return [job.overrides for job in expand(texts, extra)]


class TestSweeps:
    def test_all_combinations_in_the_order_of_nested_loops(self):
        jobs = expand(["seed=0,1", "cutoff=4.0", "model/radial=bessel,bspline"])
        assert [job.overrides for job in jobs] == [
            (f"seed={seed}", "cutoff=4.0", f"model/radial={radial}")
            for seed in (0, 1)
            for radial in ("bessel", "bspline")
        ]
        assert [job.name for job in jobs] == [
            "seed-0_radial-bessel", "seed-0_radial-bspline", "seed-1_radial-bessel", "seed-1_radial-bspline",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("seed=range(0,3)", ["0", "1", "2"]),
            ("seed=range(3)", ["0", "1", "2"]),
            # Hydra adds binary numbers and gives 0.8999999999999999 as a fourth value.
            ("lr=range(0,0.9,0.3)", ["0", "0.3", "0.6"]),
            ("seed=range(4,0,-2)", ["4", "2"]),
            ("seed=choice(0,1)", ["0", "1"]),
            ("model/radial=glob([bess?l,bspl*])", ["bessel", "bspline"]),
            ("model/radial=glob(bs*,exclude=be*)", ["bspline"]),
            ("loss=[energy],[energy,forces]", ["[energy]", "[energy,forces]"]),
            ("patience=null,3", ["null", "3"]),
            ("+x={a: 1},{a: 2}", ["{a:1}", "{a:2}"]),
        ],
    )
    def test_ways_to_give_several_values(self, text, values):
        found = [override.partition("=")[2] for (override,) in overrides(text)]
        # 0 and 0.0 are one number.
        assert found == values or [float(value) for value in found] == [float(value) for value in values]

    def test_globs_see_the_users_own_options(self, tmp_path):
        (tmp_path / "model" / "radial").mkdir(parents=True)
        (tmp_path / "model" / "radial" / "mine.yaml").touch()
        assert ("model/radial=mine",) in overrides("model/radial=glob(*)", extra=tmp_path)

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["seed=0"], "No setting has several values"),
            (["seed=0,1,"], "no valid override"),
            (["seed=interval(0,1)"], "lists no values"),
            (["seed=range(0,5,0)"], "step of zero"),
            (["seed=range(5,0)"], "no value at all"),
            (["seed=range(0,1000000000000)"], "at most 10,000"),
            (["model/radial=glob(x*)"], "fits none of: bernstein, bessel"),
            (["seed=0,0"], "the value 0 more than once"),
            (["seed=0,1", "seed=3"], "given twice"),
            (["name=a,b"], "'name' cannot have several values"),
            (["seed"], "not an override"),
        ],
    )
    def test_mistakes(self, texts, message):
        with pytest.raises(ConfigError, match=message):
            expand(texts)

    def test_names_tell_runs_apart_and_do_not_depend_on_the_other_values(self):
        def names(*texts: str) -> list[str]:
            return [job.name for job in expand(texts)]

        assert names("optimizer.lr=1,2", "other.lr=3,4")[0] == "optimizer.lr-1_other.lr-3"
        assert names("x=1,-1,[a]") == ["x-1", "x--1", "x-a"]
        assert set(names("seed=0,1")) < set(names("seed=2,1,0"))
        found = names("data.path='a b','a-b','A b','" + 100 * "long" + "'")
        assert len({name.lower() for name in found}) == 4
        assert all(len(name) < 130 and "/" not in name and " " not in name for name in found)


def test_a_quoted_folder_comes_back_as_it_was():
    for name in ("a=b,c", "it's {here}", "back\\slash", "ends with \\"):
        assert OverridesParser.create().parse_override(f"run_dir={quote(name)}").value() == name


class TestPlan:
    def test_states(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        from omegaconf import OmegaConf

        texts = ["data.path=x.xyz", "name=sweep", "dtype=float32"]
        config = compose("train", [*texts, "seed=0"])
        folder = Path("runs/sweep/seed-0")
        assert _state(folder, config) == "new"
        folder.mkdir(parents=True)
        stored = OmegaConf.create(OmegaConf.to_container(config))
        for name, value in {"elements": ["H"], "num_neighbors": 3.5, "atomic_energies": {"H": -13.6}}.items():
            stored.statistics[name] = value
        stored.statistics.force_rms = stored.statistics.energy_per_atom_mean = 1.0
        OmegaConf.save(stored, folder / CONFIG, resolve=True)
        assert _state(folder, config) == "new"
        (folder / "last.ckpt").touch()
        assert _state(folder, config) == "interrupted"
        (folder / RECORD).write_text("{}")
        base, plan = _plan(expand([*texts, "seed=0,1"]), None)
        assert base == Path("runs/sweep")
        assert [run.state for run in plan] == ["finished", "new"]
        with pytest.raises(ConfigError, match=r"other settings \(cutoff: 5.0, now 4.0; model"):
            _plan(expand([*texts, "seed=0,1", "cutoff=4.0"]), None)
        assert _changes(OmegaConf.load(folder / CONFIG), compose("train", [*texts, "seed=0", "dtype=float64"]))

    def test_refusals(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match="give the sweep a name="):
            _plan(expand(["experiment=ethanol,silicon"]), None)
        with pytest.raises(ConfigError, match="Did you mean 'cutoff'"):
            _plan(expand(["data.path=x.xyz", "cutof=4,5"]), None)
        Path("runs/single").mkdir(parents=True)
        Path("runs/single", CONFIG).touch()
        with pytest.raises(ConfigError, match="holds a single run already"):
            _plan(expand(["data.path=x.xyz", "name=single", "seed=0,1"]), None)


SCRIPT = """
import signal, sys, time, pathlib
what, path = sys.argv[1:]
print("Error: no such thing" if what == "fail" else what, flush=True)
if what == "wait":
    def stop(*_):
        print("stopped", flush=True)
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    pathlib.Path(path).touch()
    time.sleep(60)
sys.exit(what == "fail")
"""


def processes(folder: Path, *kinds: str) -> tuple[list[JobProcess], list[tuple[str, int, bool]]]:
    ended: list[tuple[str, int, bool]] = []

    def job(name: str) -> JobProcess:
        finish = lambda status, stopped: ended.append((name, status, stopped))  # noqa: E731
        arguments = [name.split("-")[0], str(folder / f"{name}.started")]
        return JobProcess(name, folder / name, arguments, lambda: None, finish)

    return [job(name) for name in kinds], ended


class TestProcesses:
    command = (sys.executable, "-c", SCRIPT)

    def test_a_run_that_fails_does_not_stop_the_others(self, tmp_path):
        jobs, ended = processes(tmp_path, "good-1", "fail-2", "good-3")
        assert run_jobs(jobs, 1, QUIET, self.command)
        assert ended == [("good-1", 0, False), ("fail-2", 1, False), ("good-3", 0, False)]
        assert _reason(tmp_path / "fail-2" / OUTPUT, 1) == "no such thing"
        assert "SIGKILL" in _reason(tmp_path / "good-1" / OUTPUT, -9)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_stops_all_and_starts_no_more(self, tmp_path, number):
        jobs, ended = processes(tmp_path, "wait-1", "wait-2", "good-3")

        def press() -> None:
            while not all((tmp_path / f"wait-{k}.started").exists() for k in (1, 2)):
                time.sleep(0.02)
            os.kill(os.getpid(), number)

        before = signal.getsignal(number)
        thread = threading.Thread(target=press)
        thread.start()
        assert not run_jobs(jobs, 2, QUIET, self.command)
        thread.join()
        assert sorted(ended) == [("wait-1", 130, True), ("wait-2", 130, True)]
        assert signal.getsignal(number) == before

    def test_a_failure_is_recorded(self, tmp_path):
        job = expand(["seed=0,1"])[0]
        folder = tmp_path / job.name
        folder.mkdir()
        report = _Report(QUIET, 2, 0)
        report(PlannedRun(job, folder, "new"), "it broke", False)
        assert json.loads((folder / FAILURE).read_text()) == {"overrides": ["seed=0"], "error": "it broke"}
        assert report.failed == {"seed-0": "it broke"}


def test_options_that_do_not_fit(tmp_path):
    for arguments in (["--jobs", "2", "seed=0"], ["-m", "--resume", str(tmp_path)]):
        result = CliRunner().invoke(app, ["train", *arguments])
        assert result.exit_code == 1
        assert "--jobs goes with -m" in " ".join(result.output.split())
    result = CliRunner().invoke(app, ["train", "seed=0,1", "data.path=x.xyz"])
    assert "add -m" in " ".join(result.output.split())


@pytest.mark.slow
def test_a_sweep_trains_goes_on_and_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    data = write_frames(tmp_path / "frames.xyz")
    small = [text for text in SMALL if not text.startswith("max_epochs")]
    settings = [f"data.path={data}", "name=sweep", *small, "max_epochs=2"]

    def invoke(*arguments: str):
        return CliRunner().invoke(app, list(arguments))

    result = invoke("train", "-m", *settings, "loss.forces.weight=1,2,-1", "--jobs", "2")
    text = " ".join(result.output.split())
    assert result.exit_code == 1, text
    assert "1 of 3 runs failed: weight--1: Loss weights are numbers that are not negative" in text
    first, second, wrong = (Path("runs/sweep") / f"weight-{weight}" for weight in (1, 2, -1))
    assert (first / RECORD).is_file()
    assert (second / RECORD).is_file()
    assert "negative" in json.loads((wrong / FAILURE).read_text())["error"]
    # One was killed after its last checkpoint, the other one before its first.
    for path in (first / RECORD, second / RECORD, second / "last.ckpt"):
        path.unlink()
    result = invoke("train", "-m", *settings, "loss.forces.weight=1,2")
    assert result.exit_code == 0, result.output
    assert "2 runs in runs/sweep: 1 interrupted, 1 new" in result.output
    assert (first / OUTPUT).read_text().count("validation RMSE") == 2
    assert (second / OUTPUT).read_text().count("validation RMSE") == 4
    stamps = [(folder / RECORD).stat().st_mtime_ns for folder in (first, second)]
    result = invoke("train", "-m", *settings, "loss.forces.weight=1,2")
    assert "2 finished" in result.output
    assert stamps == [(folder / RECORD).stat().st_mtime_ns for folder in (first, second)]
    result = invoke("compare", "runs/sweep", "--average", "weight")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("compare").iterdir()} == {
        "compare.csv", "averages.csv", "curves.png", "pareto.png",
    }  # fmt: skip
    assert result.output.count("failed:") == 1
