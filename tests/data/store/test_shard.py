"""A shard: whole or not there, and no changed byte goes unnoticed or crashes."""

import h5py
import numpy as np
import pytest

from mlip.core.errors import DataError, MlipError
from mlip.data.neighbours import neighbour_list
from mlip.data.store import shard_writer
from mlip.data.store.block import runs
from mlip.data.store.columns import stack
from mlip.data.store.shard_reader import MOST_OPEN, OpenFiles, ShardReader
from mlip.data.store.shard_writer import ShardWriter
from tests.data.store.made import assert_same, samples

HEADER = {"plan": "p", "keys": ["ä:0"]}


def pairs_of(sample):
    return neighbour_list(sample.atoms.positions, sample.atoms.cell.array, sample.atoms.pbc, 3.0)


def write(path, data, graphs=True):
    with ShardWriter(path, graphs) as writer:
        for run in runs(iter(data)):
            pairs = [pairs_of(sample) for sample in run]
            edges = np.array([len(found[0]) for found in pairs])
            writer.add(run, stack(run), edges, pairs if graphs else ())
        writer.finish(HEADER)


def read_all(path):
    """Return everything that a shard can be asked for."""
    shard = ShardReader(path, OpenFiles())
    columns = [shard.column(name).tolist() for name in ("num_atoms", "num_edges", "digest", "geometry_digest")]
    found = [shard.sample(index) for index in range(shard.num_samples)]
    lists = [shard.pairs(index) for index in range(shard.num_samples)]
    return shard.header, columns, found, [None if each is None else [a.tolist() for a in each] for each in lists]


def test_everything_comes_back(tmp_path):
    data = samples(40)
    write(tmp_path / "a.h5", data)
    header, columns, found, lists = read_all(tmp_path / "a.h5")
    assert header == HEADER
    assert columns[0] == [len(sample.atoms) for sample in data]
    for one, other in zip(found, data, strict=True):
        assert_same(one, other)
    assert lists == [[a.tolist() for a in pairs_of(sample)] for sample in data]
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    shard = ShardReader(tmp_path / "a.h5", OpenFiles())
    assert shard.infos() == [sample.info for sample in data]


def test_columns_can_be_read_with_h5py_alone(tmp_path):
    write(tmp_path / "a.h5", samples(5), graphs=False)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["num_atoms"][()].tolist() == [len(sample.atoms) for sample in samples(5)]
        assert file["blocks"].size == file["block_offsets"][-1]


def test_an_empty_shard_is_a_shard(tmp_path):
    write(tmp_path / "a.h5", [])
    assert read_all(tmp_path / "a.h5") == (HEADER, [[], [], [], []], [], [])


def test_shards_larger_than_memory_allows_go_through_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "IN_MEMORY", 1000)
    write(tmp_path / "a.h5", samples(20))
    monkeypatch.undo()
    write(tmp_path / "b.h5", samples(20))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def outcome(path):
    """Return what is read, or None where the damage is noticed."""
    try:
        header, columns, found, lists = read_all(path)
    except DataError:
        return None
    return header, columns, [(s.atoms, {k: v.tolist() for k, v in s.labels.items()}, s.info) for s in found], lists


def test_changed_bytes_are_noticed_or_without_effect(tmp_path):
    path = tmp_path / "a.h5"
    write(path, samples(3))
    content, whole = path.read_bytes(), outcome(path)
    rng = np.random.default_rng(0)
    noticed = 0
    # The head of the file and some of the rest: HDF5 must not crash or loop, either.
    for at in [*range(0, 96, 2), *rng.integers(96, len(content), 60).tolist()]:
        path.write_bytes(content[:at] + bytes([content[at] ^ int(rng.integers(1, 256))]) + content[at + 1 :])
        found = outcome(path)
        assert found is None or found == whole, at
        noticed += found is None
    assert noticed > 60


def test_cut_files_are_noticed(tmp_path):
    path = tmp_path / "a.h5"
    write(path, samples(3))
    content = path.read_bytes()
    for size in [0, 1, 8, 100, *np.linspace(101, len(content) - 1, 40).astype(int).tolist()]:
        path.write_bytes(content[:size])
        assert outcome(path) is None, size


def test_other_files_and_newer_versions_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(DataError, match=r"lacks '.*a\.h5'"):
        ShardReader(path, OpenFiles())
    path.write_text("hello")
    with pytest.raises(DataError, match="damaged"):
        ShardReader(path, OpenFiles())
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="damaged"):
        ShardReader(path, OpenFiles())
    write(path, samples(1))
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(DataError, match=r"format version 99, .* Update mlip"):
        ShardReader(path, OpenFiles())


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_writer.shutil, "copyfileobj", full)
    with pytest.raises(MlipError, match="No space left on device"):
        write(tmp_path / "a.h5", samples(3))
    assert list(tmp_path.iterdir()) == []


def test_few_files_stay_open(tmp_path):
    files = OpenFiles()
    for number in range(MOST_OPEN + 20):
        (tmp_path / str(number)).write_bytes(b"%03d" % number)
    for _ in range(2):
        for number in range(MOST_OPEN + 20):
            assert files.read(tmp_path / str(number), 0, 3) == b"%03d" % number
    assert len(files._open) == MOST_OPEN
    with pytest.raises(DataError, match="Cannot read"):
        files.read(tmp_path / "gone", 0, 3)
