"""Tables and pictures of several runs, from folders written by hand: every number is known."""

from __future__ import annotations

import copy
import csv
import json
import os
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.core.errors import ConfigError, DataError
from mlip.evaluation.compare import average, compare, find_runs, pareto, write_csv
from mlip.evaluation.compare_plots import plot_curves, plot_pareto
from mlip.evaluation.run_folder import progress, read_run
from mlip.evaluation.settings import differences

FORCES, ENERGY = "forces_mae_meV_per_A", "energy_mae_meV_per_atom"

CONFIGURATION: dict[str, Any] = {
    "name": "x",
    "run_dir": "runs/x",
    "seed": 0,
    "cutoff": 5.0,
    "data": {"path": "a.xyz"},
    "optimizer": {"_target_": "mlip.training.optimizers.adamw", "lr": 0.01},
    "schedule": {"_target_": "mlip.training.schedules.WarmupCosine", "warmup": 0.02},
    "model": {
        "_target_": "mlip.models.facet.Facet",
        "cutoff": 5.0,
        "num_neighbors": 8.5,
        "radial": {"_target_": "mlip.ops.radial.bessel.Bessel", "_partial_": True, "num_basis": 8, "trainable": True},
        "pair_terms": {},
    },
    "statistics": {"num_neighbors": 8.5, "elements": ["H", "C"]},
}


def settings(**changes: Any) -> dict[str, Any]:
    """Return the configuration with other values, ``model__radial`` for ``model.radial``."""
    config = copy.deepcopy(CONFIGURATION)
    for path, value in changes.items():
        *above, last = path.split("__")
        holder = config
        for name in above:
            holder = holder[name]
        holder[last] = value
    return config


def write_run(folder: Path, forces: float = 40.0, finished: bool = True, valid: str = "v", **changes: Any) -> Path:
    """Write the folder of a run whose force error halves with each of three validations, to ``forces``."""
    folder.mkdir(parents=True)
    config = settings(**changes)
    (folder / "config.yaml").write_text(json.dumps(config))
    rows = [f"step,epoch,seconds,cpu_seconds,valid/{FORCES},valid/{ENERGY},valid/score"]
    rows += [f"{100 * k},{k},{60 * k},{20 * k},{forces * 2 ** (3 - k)},{4 - k},{9.0 / k}" for k in (1, 2, 3)]
    (folder / "log.csv").write_text("\n".join(rows if finished else rows[:-1]) + "\n")
    if finished:
        record = {
            "config": config,
            "data": {"train": {"sha256": "t"}, "valid": {"sha256": valid}},
            "steps": 300,
            "wall_time_s": 999.0,
            "best_score": 3.0,
            "num_parameters": 1234,
            "cost": {"step_ms": 600.0 / forces, "step_cpu_ms": 5.0, "peak_memory_MB": 512.0},
            "metrics_valid": {FORCES: forces, ENERGY: 1.0},
        }
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def names(configurations: list[dict[str, Any]]) -> list[dict[str, str]]:
    return differences(configurations)


class TestDifferences:
    def test_single_values_and_their_copies(self):
        other = settings(seed=1, cutoff=6.0, model__cutoff=6.0, name="y", run_dir="runs/y")
        assert names([CONFIGURATION, other]) == [{"seed": "0", "cutoff": "5"}, {"seed": "1", "cutoff": "6"}]
        assert names([CONFIGURATION, CONFIGURATION]) == [{}, {}]
        assert names([]) == []

    def test_a_component_is_one_setting_and_options_of_both_are_shown(self):
        spline = {"_target_": "mlip.ops.radial.bspline.BSpline", "_partial_": True, "num_basis": 12, "degree": 3}
        found = names([CONFIGURATION, settings(model__radial=spline)])
        assert found == [
            {"model.radial": "bessel", "model.radial.num_basis": "8"},
            {"model.radial": "bspline", "model.radial.num_basis": "12"},
        ]

    def test_options_of_one_component_are_shown_where_they_differ(self):
        spline = {"_target_": "mlip.ops.radial.bspline.BSpline", "num_basis": 8}
        three = [CONFIGURATION, settings(model__radial__trainable=False), settings(model__radial=spline)]
        assert names(three)[0] == {"model.radial": "bessel", "model.radial.trainable": "True"}
        assert names(three)[2] == {"model.radial": "bspline", "model.radial.trainable": ""}

    def test_classes_of_one_module_are_told_apart(self):
        found = names([CONFIGURATION, settings(schedule={"_target_": "mlip.training.schedules.Plateau"})])
        assert [values["schedule"] for values in found] == ["WarmupCosine", "Plateau"]

    def test_what_one_configuration_does_not_have(self):
        zbl = {"zbl": {"_target_": "mlip.nn.pair_terms.zbl.ZBL", "inner": 0.5}}
        assert names([CONFIGURATION, settings(model__pair_terms=zbl)]) == [
            {"model.pair_terms.zbl": ""},
            {"model.pair_terms.zbl": "zbl"},
        ]
        # An earlier version did not have a setting that is off.
        assert names([CONFIGURATION, settings(patience=None)]) == [{}, {}]
        assert names([CONFIGURATION, settings(patience=3)]) == [{"patience": ""}, {"patience": "3"}]
        assert names([CONFIGURATION, {}, settings(seed=1)]) == [{"seed": "0"}, {"seed": ""}, {"seed": "1"}]

    def test_measured_statistics_are_left_out_but_not_stated_ones(self):
        def neighbors(**changes: Any) -> dict[str, Any]:
            return settings(model__num_neighbors=9.5, statistics__num_neighbors=9.5, **changes)

        assert set(names([CONFIGURATION, neighbors(data__path="b.xyz")])[0]) == {"data.path"}
        assert set(names([CONFIGURATION, neighbors()])[0]) == {"statistics.num_neighbors"}

    def test_onsite_blocks_are_measured_whichever_of_the_two_a_model_reads(self):
        def run(target: str, name: str, blocks: list[list[float]], **changes: Any) -> dict[str, Any]:
            unread = {"onsite": None, "onsite_difference": None}
            measured = settings(statistics=unread | {name: {"H": blocks}}, model__target=target, **changes)
            return measured | {"model": measured["model"] | {"onsite": {"H": blocks}}}

        two = [run("hamiltonian", "onsite", [[1.5]]), run("difference", "onsite_difference", [[0.1]])]
        assert names(two) == [{"model.target": "hamiltonian"}, {"model.target": "difference"}]
        stated = run("hamiltonian", "onsite", [[9.5]])
        assert set(names([two[0], stated])[0]) == {"statistics.onsite.H"}

    def test_reference_energies_that_finetuning_has_fitted_are_left_out(self):
        def tuned(energy: float, **changes: Any) -> dict[str, Any]:
            head = {"energy": {"_target_": "mlip.nn.heads.energy.EnergyHead", "atomic_energies": {"H": energy}}}
            start = {"model": "a.safetensors", "energy_shifts": {"H": energy + 1.0}, "freeze": []}
            return settings(finetune=start, model__head=head, **changes)

        assert names([tuned(-1.0), tuned(-2.0, seed=1)]) == [{"seed": "0"}, {"seed": "1"}]


class TestTable:
    def test_numbers_order_and_csv(self, tmp_path):
        folders = [write_run(tmp_path / "a", 40.0), write_run(tmp_path / "b", 20.0, seed=1)]
        found = compare(folders)
        assert [row["run"] for row in found.rows] == ["b", "a"]
        assert found.rows[1] == {
            "run": "a", "state": "finished", "seed": "0", "num_parameters": 1234, "step_ms": 15.0,
            "peak_memory_MB": 512.0, "seconds": 180.0, "steps": 300, "best_score": 3.0, FORCES: 40.0, ENERGY: 1.0,
            "step_cpu_ms": 5.0, "cpu_seconds": 60.0,
        }  # fmt: skip
        slow = write_run(tmp_path / "slow", 30.0, seed=2)
        (slow / "log.csv").write_text((slow / "log.csv").read_text().replace("180", "900"))
        for key in ("time", "Time", "seconds"):
            assert compare([slow, folders[0]], sort=key).rows[-1]["run"] == "slow", key
        with pytest.raises(ConfigError, match="Did you mean 'time'"):
            compare(folders, sort="tine")
        for key in ("step_ms", "step", "seed"):
            assert [row["run"] for row in compare(folders, sort=key).rows] == ["a", "b"]
        write_csv(tmp_path / "table.csv", found)
        with (tmp_path / "table.csv").open() as file:
            assert [row[FORCES] for row in csv.DictReader(file)] == ["20.0", "40.0"]
        with pytest.raises(ConfigError, match="no column 'forces_rmse' to sort by"):
            compare(folders, sort="forces_rmse")

    def test_runs_that_have_not_ended_and_old_ones(self, tmp_path):
        write_run(tmp_path / "new")
        unfinished = write_run(tmp_path / "unfinished", finished=False)
        old = write_run(tmp_path / "old")
        record = json.loads((old / "run.json").read_text())
        del record["cost"], record["num_parameters"]
        (old / "run.json").write_text(json.dumps(record))
        (old / "log.csv").unlink()
        failed = tmp_path / "failed"
        failed.mkdir()
        (failed / "failure.json").write_text(json.dumps({"error": "it broke"}))
        found = compare(find_runs([tmp_path]))
        rows = {row["run"]: row for row in found.rows}
        assert {name: row["state"] for name, row in rows.items()} == {
            "new": "finished", "old": "finished", "unfinished": "unfinished", "failed": "failed",
        }  # fmt: skip
        assert rows["failed"]["note"] == "it broke"
        # The best validation so far: the last of two.
        assert (rows["unfinished"][FORCES], rows["unfinished"]["steps"], rows["unfinished"]["seconds"]) == (
            80,
            200,
            120,
        )
        assert rows["old"]["step_ms"] is None
        assert rows["old"]["seconds"] == 999.0
        assert found.rows[-1]["run"] == "failed"
        assert progress(unfinished)[1] == "step 200, forces 80 meV/Å"
        plot_curves(tmp_path / "curves.png", found)
        assert plot_pareto(tmp_path / "pareto.png", found)

    def test_names_are_as_long_as_needed(self, tmp_path):
        folders = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run")]
        assert {row["run"] for row in compare([*folders]).rows} == {"a/run", "b/run"}
        assert find_runs([folders[0], folders[0], tmp_path / "a"]) == folders[:1]

    def test_evaluations_and_warnings(self, tmp_path):
        one, two = write_run(tmp_path / "a"), write_run(tmp_path / "b", valid="other")
        for folder, data in ((one, "x"), (two, "y")):
            (folder / "evaluate_far").mkdir()
            content = {"errors": {FORCES: 77.0}, "sha256": data}
            (folder / "evaluate_far" / "metrics.json").write_text(json.dumps(content))
        (two / "model.safetensors").touch()
        os.utime(two / "evaluate_far" / "metrics.json", (1, 1))
        found = compare([one, two])
        assert [row[f"evaluate_far/{FORCES}"] for row in found.rows] == [77.0, 77.0]
        assert [column.title for column in found.columns if column.key.startswith("evaluate")] == ["far/forces MAE"]
        text = " ".join(found.warnings())
        assert "validated on different structures: their errors are not comparable" in text
        assert "'evaluate_far' holds errors on different structures" in text
        assert "older than the model" in text
        assert not compare([one]).warnings()

    def test_averages(self, tmp_path):
        for seed, forces in enumerate((10.0, 14.0)):
            write_run(tmp_path / f"small{seed}", forces, seed=seed)
            write_run(tmp_path / f"large{seed}", 2 * forces, seed=seed, cutoff=6.0)
        write_run(tmp_path / "unfinished", 1.0, finished=False, seed=2)
        found = average(compare(find_runs([tmp_path])), "seed")
        assert [(row["cutoff"], row["runs"], row[FORCES]) for row in found.rows] == [("5", 2, 12.0), ("6", 2, 24.0)]
        # Standard deviation of 10 and 14 with n - 1.
        assert found.rows[0][f"{FORCES}_std"] == pytest.approx(8**0.5)
        with pytest.raises(ConfigError, match=r"they differ in seed, cutoff|they differ in cutoff, seed"):
            average(compare(find_runs([tmp_path])), "lr")

    def test_time_of_the_processor_where_it_was_limited(self, tmp_path):
        write_run(tmp_path / "a", max_minutes=1, clock="cpu")
        found = compare([tmp_path / "a"])
        assert found.cpu
        assert "step_cpu_ms" in [column.key for column in found.columns if column.title]
        assert not compare([tmp_path / "a"], cpu=False).cpu


def test_pareto():
    assert pareto([(1.0, 9.0), (2.0, 5.0), (2.0, 4.0), (3.0, 6.0), (4.0, 4.0), (0.5, 10.0)]) == [5, 0, 2]
    assert pareto([]) == []


def test_pictures(tmp_path):
    for k in range(12):
        write_run(tmp_path / f"run{k}", 10.0 + k, seed=k % 2, cutoff=4.0 + k // 2)
    found = compare(find_runs([tmp_path]))
    assert found.labels(["seed"])[0] == "cutoff 4"
    plot_curves(tmp_path / "curves.png", found)
    assert plot_pareto(tmp_path / "pareto.png", found)
    for name in ("curves.png", "pareto.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0.02


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
def test_damaged_files_are_named(tmp_path, name):
    folder = write_run(tmp_path / "a", finished=name == "run.json")
    (folder / name).write_text('{"config": [')
    with pytest.raises(DataError, match=f"{name}' is damaged"):
        read_run(folder)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a", 40.0)
    write_run(tmp_path / "runs" / "b", 20.0, seed=1, valid="other")

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["compare", *arguments])
        return result.exit_code, " ".join(result.output.split())

    status, text = invoke("runs/a", "runs/b", "--output", "out")
    assert status == 0, text
    assert "b 1 1,234 30 512 3 300 3 20 1 a 0 1,234 15 512 3 300 3 40 1" in text
    assert "not comparable" in text
    assert {path.name for path in Path("out").iterdir()} == {"compare.csv", "curves.png", "pareto.png"}
    Path("empty").mkdir()
    for arguments, message in (
        (["nothing"], "There is no folder 'nothing'"),
        (["empty"], "neither the folder of a training run"),
        (["runs/a/log.csv"], "is no folder of a run"),
        (["runs", "--sort", "force_mae_meV_per_A"], f"Did you mean '{FORCES}'"),
        (["runs", "--average", "cutoff"], "they differ in seed"),
    ):
        status, text = invoke(*arguments)
        assert status == 1
        assert message in text
        assert "Traceback" not in text
