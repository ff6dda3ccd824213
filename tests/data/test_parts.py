"""From a ``data`` configuration to its parts, and what is recorded of them."""

import numpy as np
import pytest
from ase.build import molecule

from mlip.core.errors import ConfigError
from mlip.data import parts as module
from mlip.data.parts import divide, load_parts
from mlip.data.sample import Sample
from mlip.data.writers.extxyz import ExtxyzWriter

EXTXYZ = "mlip.data.datasets.extxyz.ExtxyzDataset"


def frames(count, seed=0, **labels):
    made = []
    for number in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=100 * seed + number)
        forces = np.full((3, 3), 0.1)
        made.append(Sample(atoms, {"energy": np.array(-1.0), "forces": forces, **labels}, {}))
    return made


@pytest.fixture
def config(tmp_path):
    ExtxyzWriter().write(frames(10), tmp_path / "all.xyz")
    ExtxyzWriter().write(frames(4, 1, magmoms=np.zeros(3)), tmp_path / "valid.xyz")
    path = str(tmp_path / "all.xyz")
    return {"dataset": {"_target_": EXTXYZ, "path": path}, "path": path, "split": {"train": 7, "valid": 2, "test": 1}}


def test_indices_are_recorded_or_their_hash_where_they_are_many(config, monkeypatch):
    parts = load_parts(config)
    record = parts.record()
    assert [len(record[name]) for name in ("train", "valid", "test")] == [7, 2, 1]
    assert sorted(index for part in record.values() for index in part) == list(range(10))
    assert all(type(index) is int for index in record["train"])
    monkeypatch.setattr(module, "LISTED", 5)
    short = parts.record()
    assert short["rule"] == config["split"]
    assert short["train"]["structures"] == 7
    assert len({short[name]["sha256_of_indices"] for name in ("train", "valid", "test")}) == 3


def test_files_of_their_own(config, tmp_path):
    seen = []
    parts = load_parts(
        config | {"valid_path": str(tmp_path / "valid.xyz")}, lambda share, number: seen.append((share, number))
    )
    assert [len(part) for part in (parts.train, parts.valid, parts.test)] == [9, 4, 1]
    assert parts.indices["valid"].endswith("valid.xyz")
    assert "magmoms" not in parts.provides
    assert seen == [(1.0, 10), (1.0, 4)]


def test_labels_that_the_validation_file_lacks_are_not_provided(config, tmp_path):
    config["dataset"] |= {"path": str(tmp_path / "valid.xyz"), "optional_labels": ["magmoms"]}
    parts = load_parts(config | {"split": {"train": 4}})
    assert "magmoms" in parts.provides
    other = load_parts(config | {"valid_path": str(tmp_path / "all.xyz"), "split": {"train": 4}})
    assert other.provides == ("energy", "forces")


@pytest.mark.parametrize(
    ("rule", "files", "sizes"),
    [
        ({"train": 0.5, "valid": 0.25, "test": 0.25}, (), (4, 2, 2)),
        ({"train": 0.5, "valid": 0.25, "test": 0.25}, ("valid",), (6, 0, 2)),
        ({"train": 4, "valid": 2, "test": 3}, ("valid",), (5, 0, 3)),
        ({"train": 4, "valid": 2, "test": 3}, ("valid", "test"), (8, 0, 0)),
        ({"train": 4, "valid": 2, "test": 3}, ("test",), (4, 2, 0)),
        ({"train": [0, 1], "test": [2]}, ("valid",), (2, 0, 1)),
        ({"by": "group", "train": 4, "valid": 4}, (), (4, 4, 0)),
        ({"by": "auto", "train": 5, "valid": 3}, (), (6, 2, 0)),
        ({"official": "theirs", "train": 0.9}, (), (1, 2, 0)),
    ],
)
def test_rules(rule, files, sizes):
    parts = divide(rule, 8, files, lambda: list("aabbccdd"), lambda name: {"train": [5], "valid": [0, 1]})
    assert tuple(len(parts[name]) for name in ("train", "valid", "test")) == sizes
    assert len(set().union(*parts.values())) == sum(sizes)


@pytest.mark.parametrize(
    ("rule", "files", "message"),
    [
        ({"trian": 0.5}, (), "Did you mean 'train'"),
        ({"by": "groups", "train": 0.5}, (), "Did you mean 'group'"),
        ({"by": "group", "train": 0.5}, (), "these data have none"),
        ({"official": "x"}, ("valid",), "leave valid_path out"),
        ({"train": 0.9, "test": [2]}, ("valid",), "test is listed, train is not"),
    ],
)
def test_rules_that_do_not_fit(rule, files, message):
    with pytest.raises(ConfigError, match=message):
        divide(rule, 8, files, lambda: None, lambda name: {})


@pytest.mark.parametrize(("valid", "sizes"), [(2, (4, 2, 2)), (0.5, (3, 3, 2)), (0, (6, 0, 2)), (None, (6, 0, 2))])
def test_an_official_split_without_validation_part_gets_one_from_its_training_part(valid, sizes):
    official = {"train": [7, 6, 5, 4, 3, 2], "test": [0, 1]}
    parts = divide({"official": "tag", "valid": valid, "seed": 1}, 8, (), lambda: None, lambda name: official)
    assert tuple(len(parts[name]) for name in ("train", "valid", "test")) == sizes
    assert sorted([*parts["train"], *parts["valid"]]) == [2, 3, 4, 5, 6, 7]
    assert list(parts["test"]) == [0, 1]


def test_auto_is_random_where_there_are_no_groups():
    rule = {"train": 4, "valid": 4, "seed": 3}
    auto = divide(rule | {"by": "auto"}, 8, (), lambda: None, lambda name: {})
    assert auto == divide(rule, 8, (), lambda: None, lambda name: {})
