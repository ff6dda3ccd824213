"""``mlip screen`` as a user calls it, with this process as the only worker."""

import csv
import json
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import typer
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

import mlip.simulate.screening.screen as engine
from mlip.calculators import committee as loading
from mlip.cli.relax import relax
from mlip.cli.screen import OPTIONS, screen
from mlip.core.errors import ConfigError, SimulationError, StructureError
from mlip.simulate.screening.executors import LocalExecutor
from mlip.simulate.screening.store import open_results
from mlip.simulate.screening.tasks.registry import TASKS
from tests.simulate.pair_model import PairModel
from tests.simulate.screening.helpers import InlinePool, crystals


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call a command with the pair model; returns exit status and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(loading, "load_model", lambda path, device, dtype: PairModel())
    monkeypatch.setattr(engine, "DaskPool", InlinePool)
    monkeypatch.setattr(LocalExecutor, "clients", lambda self: nullcontext())
    Path("m").touch()
    app = typer.Typer()
    app.command()(screen)
    app.command()(relax)

    def call(*words: object, command: str = "screen") -> tuple[int, str]:
        result = CliRunner().invoke(app, [command, *(str(word) for word in words), "--model", "m"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


def rows(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_same_as_mlip_relax_and_the_rest_goes_on(run) -> None:
    write("all.xyz", crystals(3))
    Path("bad.cif").write_text("nothing")
    write("methane.xyz", molecule("CH4"))
    words = ("all.xyz", "bad.cif", "methane.xyz", "--cell", "--fmax", 0.02)
    status, output = run(*words, "--workers", 2)
    assert status == 1
    assert "Unreadable: bad.cif" in output
    assert "Failed: methane.xyz" in output
    found = rows("screen_structures")
    assert [row["status"] for row in found] == [*["done"] * 3, "unreadable", "failed"]
    assert run(*words, command="relax")[0] == 1
    for one, other in zip(found[:3], rows("relax_structures")[:3], strict=True):
        assert one["name"] == other["name"]
        assert one["converged"] == "True"
        assert one["steps"] == other["steps"]
        assert one["space_group_after"] == other["space_group_after"]
        assert float(one["energy_after_eV"]) == pytest.approx(float(other["energy_after_eV"]), abs=1e-8)
    frames = read("relax_structures/relaxed.xyz", ":")
    with open_results("screen_structures") as results:
        assert results.about["task"] == "relax"
        assert results.about["options"]["fmax"] == 0.02
        assert results.column("energy_after")[0] == float(found[0]["energy_after_eV"])
        for number, atoms in enumerate(frames):
            assert results.atoms(number).positions == pytest.approx(atoms.positions, abs=1e-7)
    summary = json.loads(Path("screen_structures/summary.json").read_text())
    assert (summary["done"], summary["failed"], summary["unreadable"]) == (3, 1, 1)


def test_restart_and_folders_that_are_there(run) -> None:
    write("all.xyz", crystals(4))
    words = ("all.xyz", "--cell", "--output", "out")
    assert run(*words)[0] == 0
    journal = Path("out/screened.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    with pytest.raises(SimulationError, match="go on with --restart"):
        run(*words)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    for wrong in (("--fmax", 1), ("--task", "eos")):
        with pytest.raises(SimulationError, match="begun with other options"):
            run("all.xyz", "--output", "out", *([] if "eos" in wrong else ["--cell"]), *wrong, "--restart")
    status, output = run(*words, "--restart")
    assert status == 0
    assert "2 of 4 structures are done already" in output
    assert journal.read_bytes().startswith(b"".join(lines[:3]))
    assert [row["status"] for row in rows("out")] == ["done"] * 4
    assert run(*words, "--restart")[0] == 0
    assert run("all.xyz", "--output", "out", "--overwrite")[0] == 0
    with pytest.raises(ConfigError, match="give one of them"):
        run(*words, "--restart", "--overwrite")


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (("gone.xyz",), StructureError, "no structure file"),
        (("*.cif",), StructureError, "No file matches"),
        (("all.xyz", "--executor", "locl"), ConfigError, "Did you mean 'local'"),
        (("all.xyz", "--executor", "dask"), ConfigError, "needs --scheduler"),
        (("all.xyz", "--scheduler", "tcp://x:1"), ConfigError, "needs --scheduler"),
        (("all.xyz", "--queue", "normal"), ConfigError, "--queue is an option of --executor slurm"),
        (("all.xyz", "--workers", "0"), ConfigError, "at least one worker, got --workers 0"),
        (("all.xyz", "--task", "eoss"), ConfigError, "no task 'eoss'"),
        (("all.xyz", "--points", "7"), ConfigError, "relax has no option 'points'"),
        (("all.xyz", "--task", "eos", "--cell"), ConfigError, "eos has no option 'relax_cell'"),
        (("all.xyz", "--fmax", "-1"), SimulationError, "fmax"),
        (("all.xyz", "--fmax", "0"), SimulationError, "must be a positive number"),
        (("all.xyz", "--task", "eos", "--span", "0"), SimulationError, "must be a positive number"),
        (("all.xyz", "--executor", "slurm", "--cores", "0"), ConfigError, "at least one core, got --cores 0"),
        (("all.xyz", "--cores", "0"), ConfigError, "--cores is an option of --executor slurm"),
        (("all.xyz", "--tries", "0"), ConfigError, "above 0"),
        (("all.xyz", "--timeout", "0"), ConfigError, "above 0"),
        (("all.xyz", "--memory", "lots"), ConfigError, "such as 4GB or 500MB, got 'lots'"),
        (("all.xyz", "--executor", "dask", "--scheduler", "tcp://127.0.0.1:1"), SimulationError, "no dask scheduler"),
        (("all.xyz", "--show-job"), ConfigError, "--executor slurm"),
    ],
)
def test_mistakes(run, words: tuple[str, ...], kind: type[Exception], message: str) -> None:
    pytest.importorskip("distributed")
    write("all.xyz", crystals(1))
    with pytest.raises(kind, match=message):
        run(*words)
    assert not list(Path().glob("screen_*"))


@pytest.mark.parametrize("words", [("--fmax", "0"), ("--steps", "0")])
def test_zeros_are_refused_as_by_relax(run, words: tuple[str, ...]) -> None:
    pytest.importorskip("distributed")
    write("all.xyz", crystals(1))
    said = []
    for command in ("relax", "screen"):
        with pytest.raises(SimulationError) as found:
            run("all.xyz", *words, command=command)
        said.append(str(found.value))
    assert said[0] == said[1]


def test_the_example_of_the_documentation_reads_the_best(run) -> None:
    pytest.importorskip("distributed")
    Path("candidates").mkdir()
    for number, atoms in enumerate(crystals(2)):
        write(f"candidates/{number}.cif", atoms)
    Path("candidates/00.cif").write_text("no crystal")
    assert run("candidates/*.cif", "--steps", 3)[0] == 1
    text = (Path(__file__).parents[3] / "docs/screening.md").read_text(encoding="utf-8")
    (example,) = (block.split("```")[0] for block in text.split("```python\n")[1:] if "nanargmax" in block)
    names: dict = {}
    exec(example, names)
    assert np.isnan(names["gains"]).sum() == 1
    assert names["best"].get_potential_energy() < 0


def test_workers_that_do_not_start_leave_nothing(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: LocalExecutor) -> None:
        raise SimulationError("The workers do not start.")

    write("all.xyz", crystals(1))
    with monkeypatch.context() as patch:
        patch.setattr(LocalExecutor, "clients", none)
        with pytest.raises(SimulationError, match="do not start"):
            run("all.xyz")
    assert not Path("screen_all").exists()
    assert run("all.xyz")[0] == 0


def test_results_of_other_commands_stay(run) -> None:
    write("all.xyz", crystals(2))
    run("all.xyz", "--output", "relaxed", command="relax")
    run("all.xyz", "--output", "screened")
    files = {path: path.read_bytes() for path in [*Path("relaxed").iterdir(), *Path("screened").iterdir()]}
    for command, folder in (("screen", "relaxed"), ("relax", "screened")):
        for more in ([], ["--overwrite"], ["--restart"]):
            with pytest.raises(SimulationError, match=r"holds results of mlip (relax|screen), whose results.csv"):
                run("all.xyz", "--output", folder, *more, command=command)
    assert {path: path.read_bytes() for path in files} == files
    # Files that nobody knows are not replaced unasked either.
    Path("own").mkdir()
    Path("own/summary.json").write_text("mine")
    with pytest.raises(SimulationError, match=r"summary.json' is there already"):
        run("all.xyz", "--output", "own")


def test_options_of_the_command_belong_to_tasks() -> None:
    known = {field.name for task in TASKS.values() for field in fields(task)}
    assert set(OPTIONS.values()) == known
