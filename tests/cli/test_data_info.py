"""``mlip data info`` as a user runs it, against numbers counted with ASE."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from ase.neighborlist import neighbor_list
from typer.testing import CliRunner

import mlip.cli.data.info as module
from mlip.cli.main import app
from tests.components import repository_root
from tests.data.checks.generated import crystals, molecules
from tests.data.fixtures.mptrj import write as write_mptrj

SILICON = repository_root() / "data" / "silicon_dft" / "silicon.xyz"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in a folder of its own; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words, status=0, command="info"):
        result = CliRunner().invoke(app, ("data", command, *map(str, words)), env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.output

    return run


def test_numbers_are_those_of_ase(call):
    card = json.loads(call(SILICON, "--json", "--cutoff", "4"))
    frames = [atoms for atoms in read(SILICON, ":") if atoms.info["config_type"] != "IsolatedAtom"]
    edges = [neighbor_list("d", atoms, 4.0) for atoms in frames]
    num_atoms = sum(map(len, frames))
    assert (card["structures"], card["atoms"]) == (99, num_atoms)
    assert card["complete"] is True
    assert card["elements"] == {"Si": {"structures": 99, "atoms": num_atoms}}
    assert card["sizes"] == {"smallest": 1, "median": int(np.median([len(a) for a in frames])), "largest": 16}
    assert card["neighbours"]["mean"] == pytest.approx(sum(map(len, edges)) / num_atoms)
    assert card["neighbours"]["shortest distance"] == pytest.approx(min(e.min() for e in edges if len(e)))
    forces = np.concatenate([atoms.get_forces().ravel() for atoms in frames])
    assert card["labels"]["forces"]["range"] == pytest.approx([forces.min(), forces.max()])
    energies = [atoms.get_potential_energy() / len(atoms) for atoms in frames]
    assert card["labels"]["energy"] == {
        "structures": 99,
        "unit": "eV/atom",
        "range": pytest.approx([min(energies), max(energies)]),
    }
    assert card["isolated atoms"]["Si"] == pytest.approx(-0.8463455)
    assert card["periodic axes"] == {"three axes": 99}
    assert sum(card["config types"].values()) == 99


def test_tables_picture_and_next_commands(call):
    text = call(SILICON, "--plot", "picture.png")
    for part in (
        "extxyz (recognised as a general format)",
        "Si in 99",
        "eV/Å³",
        "config types",
        f"data.path={SILICON}",
    ):
        assert part in text, part
    assert Path("picture.png").read_bytes()[:4] == b"\x89PNG"
    check = next(line.strip() for line in text.splitlines() if line.strip().startswith("mlip data check"))
    result = CliRunner().invoke(app, check.split()[1:])
    assert result.exit_code == 0, result.output


def test_a_large_file_is_sampled_and_says_so(call, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 8)
    write("my.xyz", crystals(), format="extxyz")
    text = call("my.xyz")
    assert "of a sample of" in text
    assert "--all reads everything" in text
    card = json.loads(call("my.xyz", "--json", "--all"))
    assert (card["structures"], card["complete"]) == (30, True)


def test_a_store_answers_without_being_read(call, monkeypatch):
    write("my.xyz", [*crystals(), *molecules()], format="extxyz")
    direct = json.loads(call("my.xyz", "--json"))
    call("my.xyz", "out=store", command="prepare")
    monkeypatch.setattr("mlip.data.datasets.store.StoreDataset.read", None)
    card = json.loads(call("store", "--json"))
    assert card["data set"] == "store"
    for key in ("structures", "atoms", "elements", "periodic axes", "sizes"):
        assert card[key] == direct[key], key
    assert card["neighbours"]["mean"] == pytest.approx(direct["neighbours"]["mean"])
    assert card["labels"]["energy"]["range"] == pytest.approx(direct["labels"]["energy"]["range"], rel=1e-5)
    assert "store (recognised by its own marks)" in call("store")


def test_a_choice_that_is_the_users_is_assumed_to_look_only(call, tmp_path):
    write_mptrj(tmp_path).files[0].rename("a.json")
    text = call("a.json")
    assert "energy=uncorrected, to look at the data; to train on them or to store them is your choice" in text
    assert "mlip train data=mptrj data.path=a.json data.dataset.energy=…" in text
    stated = json.loads(call("a.json", "data.dataset.energy=corrected", "--json"))
    assert (stated["assumed"], json.loads(call("a.json", "--json"))["assumed"]) == ({}, {"energy": "uncorrected"})
    for command, *more in (("prepare", "out=store"), ("check",), ("split", "--out", "parts")):
        assert "leaves a choice to you: data.dataset.energy" in call("a.json", *more, status=1, command=command)


def test_damaged_structures_are_named(call):
    frames = molecules(6)
    frames[2].calc.results["forces"][0, 0] = np.nan
    write("my.xyz", frames, format="extxyz")
    text = call("my.xyz")
    assert "my.xyz:2" in text
    assert "not finite" in text
