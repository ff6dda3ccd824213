"""Result folders: written, read back, resumed, and never mixed with other runs or other people's files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlip.benchmark.plan import Plan
from mlip.benchmark.results import COLUMNS, Measurement, ResultFolder, machine, read_csv, write_csv
from mlip.core.errors import MlipError

TINY = Plan(channels=3, rows=7, rounds=1, round_seconds=0.0, warmup=0)


def test_results_survive_the_file(tmp_path: Path) -> None:
    rows = [
        Measurement("mimo", 3, "forward", "x", "op", 1.5, flops=7, error=1e-7, note='a "note", with\nlines'),
        Measurement("siso", 1, "backward", "y"),
    ]
    write_csv(tmp_path / "results.csv", rows)
    assert read_csv(tmp_path / "results.csv") == rows
    assert (tmp_path / "results.csv").read_text().startswith("setting,lmax,pass,backend,")


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "new" / "run", TINY, ["x"])
    assert not folder.has("mimo", 1)
    folder.add([Measurement("mimo", 1, "forward", "x", wall_ms=2.0)])
    again = ResultFolder(folder.path, TINY, ["x"])
    assert again.has("mimo", 1)
    assert again.rows == folder.rows
    assert json.loads((folder.path / "run.json").read_text())["machine"]["torch"] == torch.__version__
    with pytest.raises(MlipError, match="another plan"):
        ResultFolder(folder.path, replace(TINY, rows=8), ["x"])
    with pytest.raises(MlipError, match="another backends"):
        ResultFolder(folder.path, TINY, ["x", "y"])
    assert ResultFolder(folder.path, replace(TINY, rows=8), ["x"], overwrite=True).rows == []


def test_overwriting_leaves_nothing_of_before(tmp_path: Path) -> None:
    """An interruption right after must not leave old numbers under the new plan."""
    folder = ResultFolder(tmp_path, TINY, ["x"])
    folder.add([Measurement("mimo", 1, "forward", "x", wall_ms=2.0)])
    for name in ("mimo_time.png", "siso_time_per_path.png", "mine.png"):
        (tmp_path / name).touch()
    plan = replace(TINY, rows=8)
    ResultFolder(tmp_path, plan, ["x"], overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "mine.png"}
    assert ResultFolder(tmp_path, plan, ["x"]).rows == []


def test_another_machine_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine()
    ResultFolder(tmp_path, TINY, ["x"])
    monkeypatch.setattr("mlip.benchmark.results.machine", lambda: {**here, "load_average": [9.0]})
    ResultFolder(tmp_path, TINY, ["x"])
    monkeypatch.setattr("mlip.benchmark.results.machine", lambda: {**here, "torch": "0.1"})
    with pytest.raises(MlipError, match="another machine"):
        ResultFolder(tmp_path, TINY, ["x"])


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "{"),
        ("run.json", "[1]"),
        ("run.json", '{"config": {}, "metrics": {}}'),
        ("results.csv", "energy,forces\n1,2\n"),
    ],
)
def test_files_of_others_stay(tmp_path: Path, name: str, text: str, overwrite: bool) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MlipError, match="no benchmark has written"):
        ResultFolder(tmp_path, TINY, ["x"], overwrite=overwrite)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, text)]


def test_results_without_their_record(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", [Measurement("mimo", 1, "forward", "x", wall_ms=2.0)])
    with pytest.raises(MlipError, match=r"without a run\.json"):
        ResultFolder(tmp_path, TINY, ["x"])
    assert ResultFolder(tmp_path, TINY, ["x"], overwrite=True).rows == []
    header = (",".join(COLUMNS[:4])) + ",other\nmimo,1,forward,x,y\n"
    (tmp_path / "results.csv").write_text(header)
    with pytest.raises(MlipError, match="cannot be read"):
        ResultFolder(tmp_path, TINY, ["x"])
