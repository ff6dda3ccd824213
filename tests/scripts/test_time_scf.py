"""The timing of predictions against calculations: what is measured, and what is estimated."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import pytest


def test_estimates_are_means_of_the_cycles_after_the_first() -> None:
    script = importlib.import_module("time_scf")
    scf = script.Scf(ends=[10.0, 12.0, 14.0])
    assert scf.estimate(8) == 14.0 + 5 * 2.0
    assert scf.estimate(8, 2) == 12.0 + 6 * 2.0
    assert script.Scf(ends=[3.0]).estimate(3) == 9.0


def test_what_was_broken_off_is_said_to_be_estimated() -> None:
    script = importlib.import_module("time_scf")
    times = {"qhnet": 1.0, "sphnet": 0.5, "guess": 2.0, "overlap": 0.1, "atoms": 3, "orbitals": 24}
    small = script.Scf(ends=[2.0, 3.0, 4.0, 5.0], total=5.0, default=4.0)
    large = script.Scf(ends=[20.0, 30.0])
    first, second = script.complete([({"molecule": "a", **times}, small), ({"molecule": "b", **times}, large)])
    assert (first["scf"], first["default"], first["estimated"], first["after_3"]) == (5.0, 4.0, "", 1.0)
    assert (second["scf"], second["default"], second["cycles"]) == (50.0, 40.0, 4)
    assert second["estimated"] == "from 2 cycles"
    assert (second["scf/sphnet"], second["scf/(guess+sphnet)"]) == (100.0, 20.0)
    # Without a finished one there is nothing to take the number of cycles from.
    (alone,) = script.complete([({"molecule": "b", **times}, large)])
    assert alone["estimated"] == "broken off"
    assert "scf" not in alone


@pytest.mark.slow
def test_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyscf")
    script = importlib.import_module("time_scf")
    script.main(["--quick", "--output", str(tmp_path)])
    assert "| water2 | 6 | 48 |" in capsys.readouterr().out
    with open(tmp_path / "scf.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["molecule"] for row in rows] == ["water1", "water2"]
    assert all(0 < float(row["default"]) <= float(row["scf"]) and row["estimated"] == "" for row in rows)
    assert (tmp_path / "scf.png").stat().st_size > 1000
    # With no time there is nothing to show, and that is said.
    script.main(["--quick", "--output", str(tmp_path), "--budget", "0"])
    with open(tmp_path / "scf.csv", encoding="utf-8") as file:
        assert {(row["estimated"], row["scf"], row["cycles"]) for row in csv.DictReader(file)} == {
            ("broken off", "", "2")
        }
