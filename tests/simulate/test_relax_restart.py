"""What ``mlip relax`` writes depends neither on interruptions nor on what an earlier run has left."""

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import write
from typer.testing import CliRunner

from mlip.calculators import committee as loading
from mlip.cli.relax import relax
from mlip.core.errors import SimulationError, StructureError
from mlip.simulate import relax as one_relaxation
from mlip.simulate.relax_records import Records
from tests.simulate.pair_model import PairModel


def described(number: int) -> Atoms:
    """A crystal with all that a file may say of it."""
    atoms = bulk("Cu", a=3.5, cubic=True)
    atoms.rattle(0.05, seed=number)
    atoms.info = {"material_id": f"mp-{number}", "e_hull": 0.1 * number, "vector": np.array([0.1, 2.0, number])}
    atoms.info["symmetry"] = {"number": 225}
    atoms.set_tags([number] * 4)
    atoms.set_masses([60.0 + number] * 4)
    atoms.set_initial_charges([0.1 * number] * 4)
    atoms.arrays |= {"site": np.arange(4), "label": np.array(list("abcd")), "weight": np.linspace(0, 1, 4)}
    atoms.set_constraint(FixAtoms([number]))
    return atoms


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call the command with the pair model; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_model", lambda path, device, dtype: PairModel())
    Path("m").touch()
    app = typer.Typer()
    app.command()(relax)

    def call(*words: object) -> int:
        result = CliRunner().invoke(app, [*(str(word) for word in words), "--model", "m"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code

    return call


@pytest.mark.parametrize("name", ["many.extxyz", pytest.param("many.traj", marks=pytest.mark.slow)])
def test_restarted_as_uninterrupted(run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write(name, [described(number) for number in range(4)])
    # One structure after the other: batches of another size round differently.
    words = (name, "--batch-atoms", 4, "--steps", 5, "--output")
    assert run(*words, "whole") == 0
    add, added = Records.add, []

    def killed(records: Records, record) -> None:
        if len(added) == 2:
            raise MemoryError("killed")
        added.append(record)
        add(records, record)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "add", killed)
        with pytest.raises(MemoryError):
            run(*words, "cut")
    assert run(*words, "cut", "--restart") == 0
    text = Path("whole/relaxed.xyz").read_bytes()
    assert Path("cut/relaxed.xyz").read_bytes() == text
    assert text.count(b"material_id=mp-") == 4
    for column in (b"tags:I:1", b"masses:R:1", b"initial_charges:R:1", b"move_mask:L:1"):
        assert column in text


def test_an_info_entry_does_not_stop_the_batch(run) -> None:
    structures = [described(number) for number in range(3)]
    structures[1].info["atoms"] = 4
    write("bad.extxyz", structures)
    assert run("bad.extxyz", "--steps", 2, "--output", "out") == 0
    assert Path("out/relaxed.xyz").read_bytes().count(b" atoms=4 ") == 1


class TestOverwrite:
    def test_that_fails_leaves_nothing_of_the_run_before(self, run, monkeypatch: pytest.MonkeyPatch) -> None:
        write("one.extxyz", described(0))
        run("one.extxyz", "--steps", 2, "--output", "out")
        assert json.loads(Path("out/summary.json").read_text())["steps"] == 2
        measure = one_relaxation._measure

        def fails(atoms: Atoms, step: int, *more):
            if step == 1:
                raise StructureError("no more")
            return measure(atoms, step, *more)

        monkeypatch.setattr(one_relaxation, "_measure", fails)
        with pytest.raises(SimulationError, match="no more"):
            run("one.extxyz", "--fmax", 0.001, "--output", "out", "--overwrite")
        assert [path.name for path in Path("out").iterdir()] == ["trajectory.traj"]

    def test_waits_for_whoever_writes(self, run) -> None:
        write("many.extxyz", [described(0), described(1)])
        write("one.extxyz", described(0))
        run("many.extxyz", "--steps", 1, "--output", "out")
        before = {path: path.read_bytes() for path in Path("out").iterdir()}
        with Path("out/relaxed.jsonl").open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for name in ("one.extxyz", "many.extxyz"):
                with pytest.raises(SimulationError, match="Another process writes into 'out'"):
                    run(name, "--steps", 1, "--output", "out", "--overwrite")
        assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
        assert run("one.extxyz", "--steps", 1, "--output", "out", "--overwrite") == 0
        assert not {"relaxed.jsonl", "results.csv", "relaxed.xyz"} & {path.name for path in Path("out").iterdir()}
