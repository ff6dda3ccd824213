"""``mlip data split`` as a user runs it."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.data.content_hash import content_hash
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.parts import load_parts
from tests.data.fixtures.mptrj import SPECIES, frame

NAMES = ("train", "valid", "test")


def labelled(atoms, seed):
    atoms.rattle(0.05, seed=seed)
    atoms.calc = SinglePointCalculator(atoms, energy=-float(seed), forces=np.zeros((len(atoms), 3)))
    return atoms


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in a folder with molecules of three sizes; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    frames = [labelled(molecule(("H2O", "CH4", "C2H6")[k % 3]), k) for k in range(30)]
    isolated = Atoms("H", calculator=SinglePointCalculator(Atoms("H"), energy=-13.0, forces=np.zeros((1, 3))))
    isolated.info["config_type"] = "IsolatedAtom"
    write("my.xyz", [isolated, *frames], format="extxyz")

    def run(*words, status=0):
        result = CliRunner().invoke(app, ["data", "split", *map(str, words)], env={"COLUMNS": "160"})
        assert result.exit_code == status, result.output
        return " ".join(result.output.split())

    return run


def indices(folder):
    return {name: [int(line) for line in (folder / f"{name}.txt").read_text().split()] for name in NAMES}


def test_two_parts_leave_nothing_for_a_third(call, tmp_path):
    call("my.xyz", "--out", "parts", "--train", "0.8", "--valid", "0.2")
    assert [len(part) for part in indices(tmp_path / "parts").values()] == [24, 6, 0]
    call("my.xyz", "--out", "usual")
    assert [len(part) for part in indices(tmp_path / "usual").values()] == [24, 3, 3]


def test_files_are_what_a_training_takes(call, tmp_path):
    printed = call("my.xyz", "--out", "parts", "--train", "0.6", "--valid", "6", "--test", "6", "--seed", "3")
    parts = indices(tmp_path / "parts")
    assert [len(part) for part in parts.values()] == [18, 6, 6]
    assert sorted(index for part in parts.values() for index in part) == list(range(30)), (
        "the isolated atom is not counted"
    )
    record = json.loads((tmp_path / "parts" / "split.json").read_text())
    data = ExtxyzDataset("my.xyz")
    assert record["content_hash"] == content_hash(data)
    assert record["rule"] == {"by": "random", "train": 0.6, "valid": 6, "test": 6, "seed": 3}
    assert record["parts"]["test"]["atoms"] == sum(len(data[index].atoms) for index in parts["test"])
    settings = printed.split("mlip train … ")[1].split()
    files = {setting.split("=")[0].removeprefix("data.split."): setting.split("=")[1] for setting in settings}
    target = "mlip.data.datasets.extxyz.ExtxyzDataset"
    loaded = load_parts({"dataset": {"_target_": target, "path": "my.xyz"}, "split": files})
    assert {name: list(loaded.indices[name]) for name in NAMES} == parts
    assert "holds a split already" in call("my.xyz", "--out", "parts", status=1)
    call("my.xyz", "--out", "parts", "--overwrite")
    assert indices(tmp_path / "parts") != parts


def test_by_size_and_what_training_never_sees(call, tmp_path):
    printed = call("my.xyz", "--by", "size", "--max-train-atoms", "3", "--max-valid-atoms", "5", "--out", "s")
    assert indices(tmp_path / "s") == {name: list(range(k, 30, 3)) for k, name in enumerate(NAMES)}
    assert "No training structure has C" in printed
    call("my.xyz", "--by", "size", "--train", "0.4", "--valid", "0.3", "--test", "0.3", "--out", "f")
    assert indices(tmp_path / "f") == indices(tmp_path / "s")


def test_by_group(call, tmp_path):
    data = {f"mp-{k}": {f"mp-{k}-0-{step}": frame("mp-1", step) for step in range(1 + k % 4)} for k in range(20)}
    cell = SPECIES["mp-1"][1]
    for number, frames in enumerate(data.values()):
        for step, content in enumerate(frames.values()):
            del content["mp_id"]
            moved = [[0.001 * number, 0.001 * step, 0.0], [0.5, 0.5, 0.5]]
            for site, abc in zip(content["structure"]["sites"], moved):
                site |= {"abc": abc, "xyz": (np.array(abc) @ np.array(cell)).tolist()}
    (tmp_path / "m.json").write_text(json.dumps(data))
    words = ("data=mptrj", "data.path=m.json", "data.dataset.energy=uncorrected")
    call(*words, "--by", "group", "--out", "g")
    materials = [mp_id for mp_id, frames in data.items() for _ in frames]
    owners = [{materials[index] for index in part} for part in indices(tmp_path / "g").values()]
    assert sum(map(len, owners)) == 20
    assert all(owners)
    assert "Sample 0 has no group" in call("my.xyz", "--by", "group", "--out", "h", status=1)


def test_copies_in_two_parts_are_refused(call, tmp_path):
    frames = [labelled(molecule("H2O"), k % 8) for k in range(16)]
    write("copies.xyz", frames, format="extxyz")
    assert "geometries are in two parts" in call("copies.xyz", "--out", "c", status=1)
    assert not (tmp_path / "c").exists()
    assert "errors on them look too small" in call("copies.xyz", "--out", "c", "--allow-duplicates")
    assert json.loads((tmp_path / "c" / "split.json").read_text())["shared_geometries"] > 0


def test_official_splits_and_mistakes(call, tmp_path):
    from tests.data.fixtures.mlearn import write as write_mlearn

    (tmp_path / "m").mkdir()
    write_mlearn(tmp_path / "m")
    call("data=mlearn", "data.path=m", "--by", "official:tag", "--allow-duplicates", "--out", "o")
    assert indices(tmp_path / "o") == {"train": [0, 2, 3, 4], "valid": [], "test": [1, 5]}
    for words, message in [
        (("--by", "grup"), "Did you mean 'group'?"),
        (("--by", "official:none"), "no official split 'none'"),
        (("--train", "most"), "--train must be a fraction"),
        (("--train", "0.8", "--test", "0.3"), "asks for more samples"),
        (("--max-train-atoms", "3"), "belong to --by size"),
        (("--by", "size", "--max-train-atoms", "3", "--max-valid-atoms", "2"), "at least --max-train-atoms = 3"),
    ]:
        assert message in call("my.xyz", "--out", "bad", *words, status=1)
