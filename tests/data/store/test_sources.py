"""Stores of files: files that change, that come twice, and labels that differ between them."""

import os

import numpy as np
import pytest

from mlip.core.errors import DataError
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.datasets.store import StoreDataset
from mlip.data.store import plan
from mlip.data.store.prepare import prepare
from tests.data.frames import ISOLATED, frame_text
from tests.data.store.made import ListDataset, assert_same, samples


def source(paths, labels=("energy",), **options):
    names = [str(path) for path in paths]
    config = {"path": names if len(names) > 1 else names[0], "labels": list(labels), **options}
    return ExtxyzDataset(names, labels=labels, **options), {"dataset": config, "words": []}


@pytest.fixture
def shard_a_file(monkeypatch):
    monkeypatch.setattr(plan, "CHUNK_SAMPLES", 1)


def test_changed_source_files_are_refused_by_name(tmp_path, file):
    path = file(frame_text())
    prepare(*source([path]), tmp_path / "s", workers=1)
    file(frame_text("energy=-11.0"))
    with pytest.raises(DataError, match=rf"the file '{path}' is changed"):
        prepare(*source([path]), tmp_path / "s", workers=1)


def test_files_that_change_while_they_are_read_are_not_kept(tmp_path, file, shard_a_file):
    paths = [file(frame_text(f"energy=-{k}"), f"{k}.xyz") for k in range(1, 4)]

    def grow(structures, *_):
        if structures == 2:
            paths[0].write_text(frame_text("energy=-9") * 2)

    with pytest.raises(DataError, match=r"1\.xyz' has changed while it was read.*same command again"):
        prepare(*source(paths), tmp_path / "s", workers=1, progress=grow)
    prepare(*source(paths), tmp_path / "s", workers=1)
    energies = [float(sample.labels["energy"]) for sample in StoreDataset(tmp_path / "s")]
    assert energies == [-9, -9, -2, -3]


def test_a_new_file_in_a_folder_or_pattern_is_noticed(tmp_path, file):
    file(frame_text(), "x1.xyz")
    pattern = {"dataset": {"path": f"{tmp_path}/x*.xyz"}}
    prepare(ExtxyzDataset(f"{tmp_path}/x*.xyz"), pattern, tmp_path / "s", workers=1)
    new = file(frame_text("energy=-1.0"), "x2.xyz")
    with pytest.raises(DataError, match=rf"the file '{new}' is new"):
        prepare(ExtxyzDataset(f"{tmp_path}/x*.xyz"), pattern, tmp_path / "s", workers=1)


def test_a_store_in_the_folder_of_the_data_is_no_part_of_them(tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "energy").mkdir()
    file("", "energy/name_of_a_label"), file("", "data.lmdb-lock"), file("", "a.xyz")
    how = {"dataset": {"path": str(tmp_path), "labels": ["energy"]}}
    found = plan.describe_source(ListDataset([]), how, tmp_path / "s")["files"]
    assert {os.path.basename(name) for name, *_ in found} == {"a.xyz", "name_of_a_label"}
    found = plan.describe_source(ListDataset([]), how | {"dataset": {"labels": ["energy"]}}, tmp_path / "s")["files"]
    assert found == []
    prepare(ListDataset(samples(5)), how, tmp_path / "s", workers=1)
    assert prepare(ListDataset(samples(5)), how, tmp_path / "s", workers=1).made == 0


def test_files_that_are_there_already_are_refused(tmp_path, file, monkeypatch):
    a, b = file(frame_text(), "a.xyz"), file(frame_text("energy=-1.0"), "b.xyz")
    prepare(*source([a]), tmp_path / "s", workers=1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.xyz").symlink_to(a)
    for names in ([a, b], ["a.xyz"], ["link.xyz"], [f"{tmp_path}/[a].xyz"]):
        with pytest.raises(DataError, match=r"a\.xyz' already: nothing was added"):
            prepare(*source(names), tmp_path / "s", workers=1, append=True)
    prepare(*source([b]), tmp_path / "s", workers=1, append=True)
    assert len(StoreDataset(tmp_path / "s")) == 2


def test_copies_of_all_structures_are_refused_and_leave_nothing(tmp_path, file):
    a, b = file(frame_text() + frame_text("energy=-1"), "a.xyz"), file(frame_text("energy=-1"), "b.xyz")
    prepare(*source([a]), tmp_path / "s", workers=1)
    before = sorted(path.name for path in (tmp_path / "s").iterdir())
    with pytest.raises(DataError, match=r"all these structures already, .* nothing was added"):
        prepare(*source([b]), tmp_path / "s", workers=1, append=True)
    assert len(StoreDataset(tmp_path / "s")) == 2
    b.write_text(frame_text("energy=-1") + frame_text("energy=-2"))
    prepare(*source([b]), tmp_path / "s", workers=1, append=True)
    assert len(StoreDataset(tmp_path / "s")) == 4
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [*before[:-1], "shard-000001.h5", before[-1]]


def test_misspelt_optional_keys_are_noticed(tmp_path, file):
    path = file(frame_text(forces="forces"))
    wrong = source([path], optional_labels=["forces"], forces_key="force")
    with pytest.raises(DataError, match=r"No frame has the forces 'force' that forces_key names"):
        prepare(*wrong, tmp_path / "s", workers=1)
    with pytest.raises(DataError, match="not finished"):
        StoreDataset(tmp_path / "s")


def test_keys_that_differ_between_shards_are_refused(tmp_path, file, shard_a_file):
    bare = frame_text(columns="species:S:1:pos:R:3", rows=["H 0 0 0", "H 0 0 0.8"])
    paths = [
        file(bare, "0.xyz"),
        file(frame_text("energy=-1", "forces"), "1.xyz"),
        file(frame_text("energy=-2", "REF_forces"), "2.xyz"),
    ]
    for _ in range(2):
        # The second time, shards that are there are compared with new ones.
        with pytest.raises(DataError, match=r"forces is 'forces' in .*1.xyz:0, but 'REF_forces' in .*2.xyz:0"):
            prepare(*source(paths, optional_labels=["forces"]), tmp_path / "s", workers=1)
    prepare(*source(paths[:2], optional_labels=["forces"]), tmp_path / "t", workers=1)
    store = StoreDataset(tmp_path / "t")
    assert store.fields() == {"energy", "forces"}
    assert store.provides == ("energy",)


def test_isolated_atoms_that_are_kept_are_kept_once(tmp_path, file):
    path = file(frame_text() + ISOLATED + frame_text("energy=-1"))
    dataset, how = source([path], include_isolated_atoms=True)
    prepare(dataset, how, tmp_path / "s", workers=1)
    store = StoreDataset(tmp_path / "s")
    assert len(store) == len(dataset) == 3
    for found, expected in zip(store, dataset, strict=True):
        assert_same(found, expected)
    assert store.isolated_atom_energies() == dataset.isolated_atom_energies() == {"H": -3.25}
    again = [sample for chunk in store.chunks() for sample in store.read(chunk)]
    assert [sample.isolated for sample in again] == [True, False, False, False]


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are POSIX")
def test_file_names_that_are_no_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.xyz")
    with open(path, "w") as handle:
        handle.write(frame_text())
    out = tmp_path / "s"
    prepare(*source([path]), out, workers=1)
    assert StoreDataset(out)[0].info == {"source": f"{path}:0"}
    assert prepare(*source([path]), out, workers=1).made == 0
    np.testing.assert_array_equal(StoreDataset(out)[0].labels["energy"], -10.5)
