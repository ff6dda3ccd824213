"""The timing against other packages: turns and ratios, what each worker does, and what is said where one cannot."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mlip.calculators.ase import MLIPCalculator
from mlip.models.build import build_model
from mlip.models.model_file import save_model
from tests.components import compose_model, repository_root

QUICK = ["--rounds", "2", "--turn", "0.01", "--warm-up", "1"]


def part(name: str) -> ModuleType:
    return importlib.import_module(f"peers.{name}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file of a small NequIP of silicon."""
    config = compose_model("nequip", "model.irreps_hidden=4x0e+2x1o", "model.num_layers=1")
    path = tmp_path / "small.safetensors"
    save_model(path, build_model(config | {"elements": ["Si"]}), {})
    return path


def interpreter(path: Path, text: str, first: str = "#!/bin/sh") -> str:
    """Write what is started in place of a Python."""
    path.write_text(f"{first}\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def fake_worker(path: Path, diary: Path) -> str:
    """Write a worker that notes its turns and where it runs, without torch."""
    text = f"""
import os, sys, types
sys.path.insert(0, {str(repository_root() / "scripts")!r})
sys.modules["torch"] = types.SimpleNamespace(set_num_threads=lambda n: note("threads", n), __version__="none")
sys.argv = sys.argv[2:]
print("greetings from a library")
from peers.protocol import Prepared, Step, serve
def note(*words):
    with open({str(diary)!r}, "a") as file:
        print(*words, file=file)
def prepare(task):
    note("cores", *os.sched_getaffinity(0), os.environ["OMP_NUM_THREADS"], "PYTHONPATH" in os.environ)
    return Prepared({{"step": Step(lambda: note(task["name"]))}}, {{"atoms": task["atoms"]}})
serve(prepare)
"""
    return interpreter(path, text, f"#!{sys.executable}")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_workers_take_turns_on_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, diary = part("driver"), tmp_path / "diary"
    monkeypatch.setenv("PYTHONPATH", "of_our_own")
    python = fake_worker(tmp_path / "python", diary)
    cases = [driver.Case(name, "sevenn", python, {"name": name, "atoms": 8}) for name in "AB"]
    core = max(os.sched_getaffinity(0))
    found = driver.measure(cases, driver.Turns(rounds=3, seconds=0.0, warm_up=2, cores=(core,), timeout=60))
    lines = diary.read_text(encoding="utf-8").split("\n")
    assert lines[:4] == ["threads 1", f"cores {core} 1 True"] * 2
    # Warm-up, three rounds, and the two repetitions of the memory.
    assert "".join(lines[4:]) == "AABB" + 3 * "AB" + ("AABB" if found[0].memory else "")
    assert driver.environment(cases[0])["PYTHONPATH"] == str(repository_root() / "scripts")
    for one in found:
        assert one.facts["atoms"] == 8
        assert len(one.turns["step"]) == 3
        assert all(turn["cpu"] >= 0 and turn["wall"] > 0 for turn in one.turns["step"])


def measured(name: str, seconds: list[float], **facts: Any) -> Any:
    driver = part("driver")
    turns = {"MD step": [{"cpu": value, "wall": 2 * value} for value in seconds]}
    memory = {"rise": 1.0, "peak": 20.0, "whole": 300.0}
    return driver.Measured(driver.Case(name, "mlip", "python", {}), {"steps": [], **facts}, turns, memory)


def test_ratios_are_taken_round_by_round(tmp_path: Path) -> None:
    tables = part("tables")
    found = [measured("slow", [4.0, 9.0, 8.0]), measured("fast", [1.0, 3.0, 4.0])]
    rows = tables.rows_of(found, "Si8")
    assert rows[1]["ratio"] == [3.0, 2.0, 4.0]
    assert rows[1]["ms"] == [3000.0, 1000.0, 4000.0]
    text = tables.table(rows, memory=True)
    assert "| Si8 | MD step | fast | 3000 | 1000–4000 | 3.00 | 2.00–4.00 | 1 | 20 | 300 |" in text
    assert tables.rows_of(found, "Si8", clock="wall")[0]["ms"][0] == 16000.0
    tables.write_lines(str(tmp_path / "out.jsonl"), "md", rows)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["case"] for line in lines] == ["slow", "fast"]
    assert lines[1]["rounds"][2] == {"cpu": 4.0, "wall": 8.0}


def test_growth_is_time_an_atom_over_that_of_the_smallest() -> None:
    tables = part("tables")
    rows = tables.growth_of([measured("mlip", [1.0, 2.0], atoms=10), measured("mlip", [12.0, 20.0], atoms=100)])
    assert [row["growth"] for row in rows] == [[1.0, 1.0, 1.0], [1.1, 1.0, 1.2]]
    assert "| mlip | 100 | 16000 | 160000 | 1.10 | 1.00–1.20 | 1 |" in tables.table(rows)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of the memory is not told here")
def test_memory_is_the_rise_in_a_step() -> None:
    protocol = part("protocol")
    found = protocol.memory(protocol.Step(lambda: np.ones(8_000_000)))
    assert found["rise"] == pytest.approx(61, abs=3)
    assert found["whole"] >= found["peak"] > found["rise"]


def test_structures_are_those_of_the_shared_workloads(tmp_path: Path) -> None:
    workloads = part("workloads")
    found = workloads.stored("Si64", [workloads.silicon(64)], tmp_path)
    assert (found.edges, found.elements, found.num_neighbors) == (1792, ["Si"], 28.0)
    with pytest.raises(part("driver").BenchmarkError, match=r"8 n³ atoms, such as 64, 216, 512, not 200\.$"):
        workloads.silicon(200)


def test_md_step_of_mlip(model: Path, tmp_path: Path) -> None:
    workloads, worker = part("workloads"), part("mlip_worker")
    workload = workloads.stored("Si8", [workloads.silicon(8)], tmp_path)
    prepared = worker.prepare({"kind": "md", "structure": workload.path, "model": str(model), "kernels": "off"})
    atoms = workloads.silicon(8)
    atoms.calc = MLIPCalculator(model, kernels="off")
    assert prepared.facts["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert np.array(prepared.facts["forces"]) == pytest.approx(atoms.get_forces(), abs=1e-6)
    step = prepared.steps["MD step"]
    energies = []
    for _ in range(2):
        step.before()
        energies.append(step.run()[0])
    # Atoms move on.
    assert len({prepared.facts["energy"], *energies}) == 3


def test_training_step_of_mlip(tmp_path: Path) -> None:
    workloads, worker = part("workloads"), part("mlip_worker")
    workload = workloads.stored("batch", workloads.crystals(8, 2), tmp_path)
    task = {"kind": "train", "structures": workload.path, "elements": workload.elements, "cutoff": workloads.CUTOFF}
    for small in (
        ["model=sevennet", "model.irreps_hidden=4x0e+2x1e"],
        ["model=mace", "model.irreps_hidden=4x0e", "model.lmax_edge=1", "model.correlation=2"],
    ):
        settings = [*small, "model.num_layers=1", "model.kernels=off"]
        prepared = worker.prepare({**task, "num_neighbors": workload.num_neighbors, "settings": settings})
        assert prepared.facts["edges"] == workload.edges
        prepared.steps["training step"].run()


def test_convolutions_of_e3nn_and_mlip_are_the_same(tmp_path: Path) -> None:
    workloads, script = part("workloads"), importlib.import_module("bench_peers")
    workload = workloads.stored("Si8", [workloads.silicon(8)], tmp_path)
    task = {"kind": "convolution", "structure": workload.path, "cutoff": 5.0, "lmax": 2, "channels": 3}
    task |= {"dtype": "float64", "kernels": "off"}
    driver = part("driver")
    found = [
        driver.Measured(driver.Case(name, name, "", task), part(f"{name}_worker").prepare(task).facts)
        for name in ("e3nn", "mlip")
    ]
    first, second = (np.array(one.facts["digest"]) for one in found)
    # 000 011 022 101 110 112 121 202 211 220 222 have so many components; and there are three gradients.
    assert len(first) == 1 + 3 + 5 + 3 + 1 + 5 + 3 + 5 + 3 + 1 + 5 + 3
    assert np.abs(first - second).max() < 1e-12 * np.abs(first).max()
    script.same_convolution(found)
    found[1].facts["digest"][0] += 0.01
    with pytest.raises(driver.BenchmarkError, match="The results of mlip and e3nn differ"):
        script.same_convolution(found)


def test_results_that_differ_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    script, driver = importlib.import_module("bench_peers"), part("driver")
    found = [
        measured(name, [1.0], atoms=2, energy=energy, forces=[[0.0, 0.0, 0.1]])
        for name, energy in (("sevenn", 1.0), ("mlip", 1.1))
    ]
    with pytest.raises(driver.BenchmarkError, match=r"mlip and sevenn differ by 5\.0e-02 eV an atom and 0\.0e"):
        script.same_energies(found)
    assert "2 atoms, mlip − sevenn: 5.0e-02 eV an atom" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "echo \"ModuleNotFoundError: No module named 'sevenn'\" >&2; exit 1",
            r"No module named 'sevenn'\. Give --python sevenn=PATH",
        ),
        ("echo 'mlip.core.errors.ModelFileError: There is no model.' >&2; exit 1", r"\) ended: There is no model\.$"),
        ("kill -9 $$", "was killed by signal 9: was there enough memory"),
        ("exit 3", r"ended: exit code 3\.$"),
        ("exec sleep 60", r"The worker of sevenn did not answer in 0\.3 s"),
    ],
)
def test_a_worker_that_ends_is_told_of_in_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    driver = part("driver")
    case = driver.Case("sevenn", "sevenn", interpreter(tmp_path / "python", text), {})
    with pytest.raises(driver.BenchmarkError, match=sentence) as error:
        driver.measure([case], driver.Turns(timeout=0.3 if "sleep" in text else 30))
    assert "\n" not in str(error.value)


def test_wrong_options_are_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("bench_peers")
    monkeypatch.setenv("MLIP_DATA", str(tmp_path))
    for arguments, sentence in (
        (
            ["md", "--python", "seven=x"],
            "--python takes PEER=PATH with one of e3nn, mace, sevenn as PEER, got 'seven=x'.",
        ),
        (["md", "--sizes", "8", "--modes", "off", "--python", "sevenn=nowhere"], "'nowhere' cannot be started"),
        (["md", "--sizes", "10", "--modes", "off"], "A cube of silicon has 8 n³ atoms"),
        (["md", "--sizes", "8", "--modes", "off", "--out", str(tmp_path)], "cannot be written: Is a directory."),
        (["train", "--workloads", "bpa5"], "There is no 3bpa/train_300K.xyz in"),
        (["threads", "--sizes", "8", "--threads", "5000"], "5000 threads need as many cores"),
        (["md", "--sizes", "8", "--modes", "off", "--core", "5000"], "There is no core 5000 here"),
    ):
        with pytest.raises(SystemExit) as error:
            script.main(arguments)
        assert sentence in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_runs_without_peers(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, out = importlib.import_module("bench_peers"), tmp_path / "out.jsonl"
    modes = ["--modes", "off", "splines"]
    script.main(["md", "--sizes", "8", "--model", str(model), "--out", str(out), *modes, *QUICK])
    printed = capsys.readouterr().out
    assert "8 atoms, mlip, splinified − mlip, kernels off: " in printed
    for case in ("mlip, kernels off", "mlip, splinified"):
        assert f"| Si8 | MD step | {case} |" in printed
    script.main(["convolution", "--sizes", "8", "--lmax", "1", "--channels", "4", "--out", str(out), *QUICK])
    assert "| Si8, 224 edges, lmax 1 | forward + backward | mlip, kernels on |" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["command"] for line in lines] == 2 * ["md"] + 6 * ["convolution"]
