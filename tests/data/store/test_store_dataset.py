"""The store as a data set: random access, columns, copies in other processes, and refusals."""

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from mlip.core.errors import DataError
from mlip.data.content_hash import geometry_hash, sample_hash
from mlip.data.datasets import store as module
from mlip.data.datasets.base import Recognition
from mlip.data.datasets.store import KEPT_BLOCKS, StoreDataset
from mlip.data.neighbours import neighbour_list
from mlip.data.store.prepare import prepare
from tests.data.store.made import ListDataset, assert_same, crystal, samples

HOW = {"dataset": {}, "words": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s"
    prepare(ListDataset(samples(90), chunk_samples=30), HOW, path, workers=1, graphs=True)
    return path


@pytest.fixture
def store(folder):
    return StoreDataset(folder)


def test_random_access_in_any_order(store):
    expected = samples(90)
    for index in np.random.default_rng(0).permutation(90).tolist():
        assert_same(store[index], expected[index])
    assert_same(store[-1], expected[89])
    for index in (90, -91):
        with pytest.raises(IndexError):
            store[index]


def test_chunks_are_the_sequence(store):
    chunks = list(store.chunks())
    assert [chunk.num_samples for chunk in chunks] == [30, 30, 30]
    read = [sample for chunk in chunks for sample in store.read(chunk)]
    for found, expected in zip(read, samples(90), strict=True):
        assert_same(found, expected)


def test_columns_are_those_of_the_samples(store):
    data = samples(90)
    assert store.num_atoms().tolist() == [len(sample.atoms) for sample in data]
    lists = [neighbour_list(s.atoms.positions, s.atoms.cell.array, s.atoms.pbc, 5.0) for s in data]
    assert store.num_edges(5.0).tolist() == [len(pairs[0]) for pairs in lists]
    assert store.num_edges(4.0) is None
    assert store.num_atoms().dtype == store.num_edges(5.0).dtype == np.int64
    assert store.fields() == {name for sample in data for name in sample.labels}
    some = [5, 80, 5]
    assert store.digests(some).tolist() == [sample_hash(data[i]) for i in some]
    assert store.geometry_digests(some).tolist() == [geometry_hash(data[i].atoms) for i in some]
    assert store.digests(some).dtype == store.geometry_digests([]).dtype == np.uint64
    assert store.groups() == [f"mp-{k // 2}" for k in range(90)]


def test_cached_graphs_are_what_would_be_built(store):
    for index, sample in enumerate(samples(90)):
        atoms = sample.atoms
        expected = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
        for found, array in zip(store.pairs(index, 5.0), expected, strict=True):
            np.testing.assert_array_equal(found, array)
    assert store.pairs(0, 4.0) is None


def test_groups_need_all_samples(tmp_path):
    prepare(ListDataset([*samples(3), crystal(np.random.default_rng(0))]), HOW, tmp_path, workers=1)
    store = StoreDataset(tmp_path)
    assert store.groups() is None
    assert store.pairs(0, 5.0) is None


def test_statistics_and_sources(store):
    assert store.statistics["structures"] == 90
    assert store.options == {"cutoff": 5.0, "precision": "exact", "graphs": True}
    assert store.isolated_atom_energies() == {}
    assert not store.in_memory


def test_copies_carry_nothing_but_the_index(store):
    before = len(pickle.dumps(store))
    list(store)
    store.num_atoms()
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) == before
    assert_same(copy[40], samples(90)[40])


def test_few_blocks_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    prepare(ListDataset([crystal(rng, 2) for _ in range(5)], 5), HOW, tmp_path, workers=1)
    store = StoreDataset(tmp_path)
    block = store._shard(0).block(0)
    for number in range(KEPT_BLOCKS + 3):
        store._keep((9, number), block)
    assert len(store._blocks) == KEPT_BLOCKS
    assert store._kept == KEPT_BLOCKS * block.num_numbers
    assert next(iter(store._blocks)) == (9, 3)


def test_large_blocks_are_not_kept_together(store, monkeypatch):
    monkeypatch.setattr(module, "KEPT_NUMBERS", 1)
    for index in (0, 30, 60, 0):
        assert_same(store[index], samples(90)[index])
        assert len(store._blocks) == 1


def _hashes(store, indices, pipe):
    pipe.send([sample_hash(store[index]) for index in indices])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_read_what_an_opened_store_holds(store, method):
    store[0], store[80]
    context = multiprocessing.get_context(method)
    expected = [sample_hash(sample) for sample in samples(90)]
    found = {}
    for part in (range(0, 90, 2), range(1, 90, 2)):
        ours, theirs = context.Pipe()
        process = context.Process(target=_hashes, args=(store, part, theirs))
        process.start()
        found.update(zip(part, ours.recv(), strict=True))
        process.join()
    assert [found[index] for index in range(90)] == expected


def test_damage_is_said_where_it_is(folder, tmp_path):
    copy = tmp_path / "Ä copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    path = copy / "shard-000001.h5"
    content = path.read_bytes()
    with h5py.File(path) as file:
        ends = {name: file[name].id.get_offset() + file[name].size for name in ("blocks", "graphs")}
    for name, where in (("blocks", "block 1"), ("graphs", "neighbour list 29")):
        path.write_bytes(content[: ends[name] - 5] + b"12345" + content[ends[name] :])
        store = StoreDataset(copy)
        with pytest.raises(DataError, match=rf"damaged: {where} of '.*shard-000001.h5'"):
            [(store[index], store.pairs(index, 5.0)) for index in range(90)]
    path.write_bytes(content[:-5])
    with pytest.raises(DataError, match=r"'shard-000001.h5' is missing or has another size \(1 of 3 shards\)"):
        StoreDataset(copy)
    path.unlink()
    with pytest.raises(DataError, match="only what is missing is made"):
        StoreDataset(copy)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"A store needs a path"):
        StoreDataset("???")
    with pytest.raises(DataError, match="There is no folder"):
        StoreDataset(tmp_path / "gone")
    with pytest.raises(DataError, match=r"is not a store: it has no store.json"):
        StoreDataset(tmp_path)


def test_stores_are_recognised(folder, tmp_path):
    assert StoreDataset.recognise(folder) == Recognition(3)
    assert StoreDataset.recognise(tmp_path) is None
    assert StoreDataset.recognise(tmp_path / "gone") is None
