"""``mlip relax`` of many structures as a user calls it: inputs of all kinds, results, restarts, kill -9."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read, write
from typer.testing import CliRunner

from mlip.calculators import committee as loading
from mlip.cli.relax import relax
from mlip.core.errors import ConfigError, SimulationError, StructureError
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.store.prepare import prepare
from mlip.simulate.inputs import find_inputs, read_inputs
from tests.simulate.pair_model import PairModel


def crystals(count: int) -> list[Atoms]:
    found = []
    for seed in range(count):
        atoms = bulk("Cu", "fcc", a=3.2 + 0.6 * seed / count, cubic=bool(seed % 2))
        atoms.rattle(0.05, seed=seed)
        found.append(atoms)
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call the command with the pair model; returns exit status and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(loading, "load_model", lambda path, device, dtype: PairModel())
    Path("m").touch()
    app = typer.Typer()
    app.command()(relax)

    def call(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*(str(word) for word in words), "--model", "m"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_many_structures(run, tmp_path: Path) -> None:
    write("all.xyz", crystals(4))
    status, output = run("all.xyz", "--cell", "--cif", "--fmax", 0.01)
    folder = tmp_path / "relax_all"
    assert status == 0
    assert {path.name for path in folder.iterdir()} == {
        "relaxed.jsonl", "results.csv", "relaxed.xyz", "summary.json", "summary.png", "cif",
    }  # fmt: skip
    table, frames = rows(folder), read(folder / "relaxed.xyz", ":")
    assert [row["name"] for row in table] == [f"all.xyz#{k}" for k in range(4)]
    for row, atoms in zip(table, frames, strict=True):
        assert row["status"] == "converged"
        assert float(row["fmax_after_eV_per_A"]) < 0.01
        assert atoms.get_potential_energy() == pytest.approx(float(row["energy_after_eV"]), abs=1e-6)
        assert atoms.get_volume() == pytest.approx(float(row["volume_after_A3"]), rel=1e-5)
        assert atoms.info["mlip_name"] == row["name"]
    assert len(list((folder / "cif").iterdir())) == 4
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["converged"] == summary["structures"] == 4
    assert (folder / "summary.png").read_bytes()[:4] == b"\x89PNG"
    assert "converged" in output


def test_bad_ones_are_reported_and_the_rest_goes_on(run, tmp_path: Path) -> None:
    write("good.cif", crystals(1)[0])
    write("methane.xyz", molecule("CH4"))
    Path("bad.cif").write_text("nothing")
    Path("empty.xyz").touch()
    Path("partly.cif").write_text(
        "data_x\n_cell_length_a 3.6\n_cell_length_b 3.6\n_cell_length_c 3.6\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        "Cu1 Cu 0 0 0 0.5\nC1 C 0 0 0 0.5\n"
    )
    status, output = run("good.cif", "bad.cif", "empty.xyz", "gone.cif", "methane.xyz", "partly.cif", "--cell")
    assert status == 1
    table = rows(tmp_path / "relax_structures")
    assert [row["status"] for row in table] == ["converged", *["failed"] * 5]
    errors = [row["error"] for row in table]
    for error, words in zip(
        errors[1:], ("cannot be read", "empty", "no structure file", "no cell", "partly"), strict=True
    ):
        assert words in error
    assert "Failed: gone.cif" in output


@pytest.mark.slow
def test_options_reach_every_structure(run, tmp_path: Path) -> None:
    fixed = bulk("Cu", "fcc", a=3.3, cubic=True)
    fixed.rattle(0.05, seed=1)
    fixed.set_constraint(FixAtoms([0]))
    write("fixed.traj", [fixed, fixed])
    run("fixed.traj", "--output", "a")
    for atoms in read("a/relaxed.xyz", ":"):
        np.testing.assert_allclose(atoms.positions[0], fixed.positions[0], atol=1e-7)
        np.testing.assert_allclose(atoms.cell.array, fixed.cell.array, atol=1e-7)
    write("cells.xyz", crystals(2))
    run("cells.xyz", "--cell", "--fix-volume", "--output", "b")
    assert all(abs(float(row["volume_change"])) < 1e-9 for row in rows(tmp_path / "b"))
    run("cells.xyz", "--cell", "--pressure", "10", "--output", "c")
    run("cells.xyz", "--cell", "--output", "d")
    for pressed, free in zip(rows(tmp_path / "c"), rows(tmp_path / "d"), strict=True):
        assert float(pressed["volume_after_A3"]) < 0.99 * float(free["volume_after_A3"])


def test_restart(run, tmp_path: Path) -> None:
    write("all.xyz", crystals(6))
    words = ("all.xyz", "--cell", "--fmax", 0.05, "--batch-atoms", 8, "--output", "out")
    run(*words)
    folder = tmp_path / "out"
    whole, lines = rows(folder), (folder / "relaxed.jsonl").read_bytes().splitlines(keepends=True)
    with pytest.raises(SimulationError, match="go on with --restart"):
        run(*words)
    (folder / "relaxed.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:100])
    with pytest.raises(SimulationError, match="begun with other options"):
        run(*words, "--restart", "--steps", 3)
    status, output = run(*words, "--restart")
    assert status == 0
    assert "2 of 6 structures are done already" in output
    assert (folder / "relaxed.jsonl").read_bytes().startswith(b"".join(lines[:3]))
    assert [row["name"] for row in rows(folder)] == [row["name"] for row in whole]
    for again, first in zip(rows(folder), whole, strict=True):
        assert float(again["energy_after_eV"]) == pytest.approx(float(first["energy_after_eV"]), abs=1e-8)
        assert again["steps"] == first["steps"]
    assert run(*words, "--restart")[0] == 0
    write("all.xyz", crystals(5))
    with pytest.raises(SimulationError, match="begun with other structures"):
        run(*words, "--restart")
    assert run(*words, "--overwrite")[0] == 0
    assert len(rows(folder)) == 5
    with pytest.raises(ConfigError, match="give one of them"):
        run(*words, "--overwrite", "--restart")


class TestInputs:
    def names(self, *words: str, frame: int | None = None) -> list[str]:
        return [f"{one.name}{'!' if one.error else ''}" for one in read_inputs(find_inputs(words), frame)]

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_folders_patterns_and_frames(self) -> None:
        Path("in").mkdir()
        for name in ("b.cif", "a.cif", "POSCAR_x", "CONTCAR"):
            write(f"in/{name}", bulk("Cu"), format="cif" if name.endswith("cif") else "vasp")
        Path("in/README.md").write_text("no structure")
        write("two.xyz", crystals(2))
        assert self.names("in") == ["in/CONTCAR", "in/POSCAR_x", "in/a.cif", "in/b.cif"]
        assert self.names("in/*.cif", "in/a.cif", "two.xyz") == ["in/a.cif", "in/b.cif", "two.xyz#0", "two.xyz#1"]
        assert self.names("two.xyz", frame=-1) == ["two.xyz#1"]
        assert self.names("two.xyz", frame=5) == ["two.xyz!"]
        with pytest.raises(StructureError, match="No file matches"):
            find_inputs(["*.vasp"])
        Path("none").mkdir()
        with pytest.raises(StructureError, match="no structure file"):
            find_inputs(["none"])

    def test_databases_keep_constraints(self) -> None:
        atoms = bulk("Cu", cubic=True)
        atoms.set_constraint(FixAtoms([1]))
        with connect("some.db") as database:
            database.write(bulk("Cu"))
            database.write(atoms)
        found = list(read_inputs(find_inputs(["some.db"])))
        assert [one.name for one in found] == ["some.db#0", "some.db#1"]
        assert found[1].atoms.constraints[0].index.tolist() == [1]

    def test_stores(self) -> None:
        structures = crystals(3)
        for energy, atoms in enumerate(structures):
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
        write("labelled.xyz", structures)
        source = {"dataset": {"path": "labelled.xyz"}, "words": ["data=extxyz"]}
        prepare(ExtxyzDataset("labelled.xyz", labels=["energy"]), source, Path("store"), workers=1)
        found = list(read_inputs(find_inputs(["store"])))
        assert [one.name for one in found] == ["store#0", "store#1", "store#2"]
        for one, atoms in zip(found, structures, strict=True):
            np.testing.assert_allclose(one.atoms.positions, atoms.positions, atol=1e-7)
            assert one.atoms.pbc.all()

    @pytest.mark.slow
    def test_json_of_pymatgen(self) -> None:
        from pymatgen.core import Lattice, Structure
        from pymatgen.entries.computed_entries import ComputedStructureEntry

        salt = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        entry = ComputedStructureEntry(salt, -7.0, entry_id="mp-1")
        half = Structure(Lattice.cubic(3), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
        for name, content in (
            ("one.json", salt.as_dict()),
            ("entry.json", entry.as_dict()),
            ("list.json", [entry.as_dict(), salt.as_dict(), half.as_dict()]),
        ):
            Path(name).write_text(json.dumps(content))
        assert self.names("one.json") == ["one.json"]
        assert self.names("entry.json") == ["entry.json"]
        assert self.names("list.json") == ["list.json#mp-1", "list.json#1", "list.json#2!"]
        (found,) = read_inputs([Path("one.json")])
        assert found.atoms.get_chemical_formula() == "ClNa"
        np.testing.assert_allclose(found.atoms.positions, salt.cart_coords, atol=1e-12)
        np.testing.assert_allclose(found.atoms.cell.array, salt.lattice.matrix, atol=1e-12)
        write("ase.json", bulk("Cu"), format="json")
        assert self.names("ase.json") == ["ase.json"]


CHILD = """
import sys
from mlip.calculators import committee as loading
from tests.simulate.pair_model import PairModel
import mlip.simulate.relax_many as module
import time
loading.load_model = lambda path, device, dtype: PairModel()
slow = module.relax_with
def relax_slowly(*args):
    time.sleep(0.02)
    return slow(*args)
module.relax_with = relax_slowly
from mlip.cli.main import app
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_kill_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    write(tmp_path / "all.xyz", crystals(60))
    (tmp_path / "m").touch()
    words = ["relax", "all.xyz", "--model", "m", "--cell", "--fmax", "0.01", "--batch-atoms", "20"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def start(*more: str) -> subprocess.Popen:
        command = [sys.executable, "-c", CHILD, *words, *more]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    with start("--output", "whole") as child:
        output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    chance = random.Random(3)
    records, kills, before = tmp_path / "cut" / "relaxed.jsonl", 0, b""
    while True:
        with start("--output", "cut", *(["--restart"] if records.exists() else [])) as child:
            deadline = time.monotonic() + 120
            while not (records.exists() and records.stat().st_size > len(before)):
                if child.poll() is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.4))
            if kills < 3:
                child.send_signal(signal.SIGKILL)
            output, _ = child.communicate(timeout=300)
        after = records.read_bytes()
        whole = before[: before.rfind(b"\n") + 1]
        assert after.startswith(whole)
        before, kills = after, kills + 1
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, output
    assert kills == 4
    numbers = [json.loads(line)["row"]["number"] for line in before.splitlines()[1:]]
    assert sorted(numbers) == list(range(60))
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "cut"), strict=True):
        assert one["steps"] == other["steps"]
        assert float(one["energy_after_eV"]) == pytest.approx(float(other["energy_after_eV"]), abs=1e-8)
