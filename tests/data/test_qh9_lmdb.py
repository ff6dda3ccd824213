"""QH9 in LMDB, as QHNet's and SPHNet's programs write it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.qh9 import QH9Dataset
from tests.data.fixtures import qh9 as fixture
from tests.data.test_qh9 import assert_same

lmdb = pytest.importorskip("lmdb")


def write_lmdb(path, entries, subdir=True):
    environment = lmdb.open(str(path), map_size=2**24, subdir=subdir, lock=subdir)
    with environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value if isinstance(value, bytes) else pickle.dumps(value))
    environment.close()
    return path


def qhnet_row(number, seed, frame=None):
    """QHNet keeps the blobs of SQLite as they are: Dynamic positions in Bohr, Stable in Å."""
    positions, matrix, _ = fixture.water_frame(seed)
    if frame is None:
        positions = positions * fixture.BOHR_ANGSTROM
    row = {"id": number, "num_nodes": 3, "atoms": np.array(fixture.WATER, np.int32).tobytes()}
    row |= {"pos": positions.tobytes(), "Ham": matrix.tobytes()}
    return row if frame is None else {**row, "geo_id": frame}


def sphnet_row(seed):
    """SPHNet keeps arrays, and tensors of its grouping of atoms."""
    positions, matrix, _ = fixture.water_frame(seed)
    return {
        "id": seed,
        "pos": positions * fixture.BOHR_ANGSTROM,
        "atoms": np.array(fixture.WATER, dtype=np.int32),
        "edge_index": torch.zeros(2, 6, dtype=torch.int64),
        "labels": torch.zeros(3),
        "num_nodes": 3,
        "Ham": matrix,
        "Ham_init": matrix + 0.1 * np.eye(24),
    }


def key(number):
    return number.to_bytes(4, "big")


def test_qhnet_stable_with_gaps(tmp_path):
    numbers = [2, 255, 256, 70000]
    path = write_lmdb(tmp_path / "QH9Stable.lmdb", {key(n): qhnet_row(n, n) for n in numbers})
    data = QH9Dataset(path)
    assert data.variant == "stable"
    assert len(data) == 4
    for position, (found, number) in enumerate(zip(data, numbers, strict=True)):
        assert_same(found, fixture.expected(number, f"{path}:{position}", dynamic=False, molecule=number))
    assert data.groups() == ["2", "255", "256", "70000"]
    assert dict(QH9Dataset.recognise(path).options) == {"variant": "stable"}
    copy = pickle.loads(pickle.dumps(data))
    samples = [sample for chunk in copy.chunks() for sample in copy.read(chunk)]
    assert np.array_equal(samples[3].labels["hamiltonian"], data[3].labels["hamiltonian"])


def test_qhnet_dynamic_is_still_in_bohr(tmp_path):
    """The id of a Dynamic row is the blob that SQLite holds, or an integer."""
    rows = {key(k): qhnet_row(np.int64(7).tobytes() if k < 2 else 9, k, frame=k % 2) for k in range(4)}
    path = write_lmdb(tmp_path / "QH9Dynamic_300k.lmdb", rows)
    with pytest.raises(ConfigError, match="Set variant"):
        QH9Dataset(path)
    data = QH9Dataset(path, "dynamic_300k", split_rule="this_file")
    assert data.provides == ("hamiltonian",)
    assert data.units["positions"] == "Bohr"
    for k, found in enumerate(data):
        wanted = fixture.expected(k, f"{path}:{k}", molecule=7 if k < 2 else 9, frame=k % 2)
        del wanted.labels["energy"]
        assert_same(found, wanted)
    assert data.groups() == ["7", "7", "9", "9"]
    assert data.num_atoms() is None
    assert dict(QH9Dataset.recognise(path).options) == {"variant": "dynamic_300k"}


def test_sphnet_file(tmp_path):
    entries = {key(k): sphnet_row(k) for k in range(3)} | {b"length": 3}
    path = write_lmdb(tmp_path / "data.mdb", entries, subdir=False)
    with pytest.raises(ConfigError, match=r"or stable: .* does not say"):
        QH9Dataset(path)
    data = QH9Dataset(path, "stable")
    assert data.provides == ("hamiltonian",)
    assert data.units["positions"] == "Angstrom"
    for k, found in enumerate(data):
        assert_same(found, fixture.expected(k, f"{path}:{k}", dynamic=False, molecule=k))
    stored = QH9Dataset(path, "stable", initial_guess="file")
    assert stored.provides == ("hamiltonian", "initial_hamiltonian")
    difference = stored[1].labels["initial_hamiltonian"] - stored[1].labels["hamiltonian"]
    assert np.allclose(difference, 0.1 * np.eye(24), atol=1e-14)
    assert stored[1].info["initial_functional"] == "not stated"
    found = QH9Dataset.recognise(path)
    assert (dict(found.options), dict(found.preview)) == ({}, {"variant": "stable"})
    assert "stable" in found.note
    dynamic = QH9Dataset(path, "dynamic_100k", split_rule="this_file")
    assert "group" not in dynamic[0].info
    assert dynamic.groups() is None
    with pytest.raises(DataError, match="does not say which frames belong to one molecule"):
        dynamic.official_split("dynamic_geo")


def test_guess_of_a_file_that_has_none(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", {key(0): qhnet_row(0, 0)})
    with pytest.raises(ConfigError, match="has no initial Hamiltonians"):
        QH9Dataset(path, initial_guess="file")


def test_a_row_without_the_guess_that_others_have(tmp_path):
    """The data set says that every sample has it."""
    lacking = {name: value for name, value in sphnet_row(1).items() if name != "Ham_init"}
    path = write_lmdb(tmp_path / "data.mdb", {key(0): sphnet_row(0), key(1): lacking}, subdir=False)
    with pytest.raises(DataError, match=r"data\.mdb:1: other rows have an initial Hamiltonian"):
        QH9Dataset(path, "stable", initial_guess="file")[1]


def test_files_that_are_not_whole(tmp_path):
    short = write_lmdb(tmp_path / "short.mdb", {key(0): sphnet_row(0), b"length": 2}, subdir=False)
    with pytest.raises(DataError, match="says that it has 2 rows, but has 1"):
        QH9Dataset(short, "stable")
    with pytest.raises(DataError, match=r"no rows|there is none"):
        QH9Dataset(write_lmdb(tmp_path / "empty.lmdb", {b"length": 0}))
    other = write_lmdb(tmp_path / "other.lmdb", {b"metadata": b"{}", key(0): qhnet_row(0, 0)})
    with pytest.raises(DataError, match="the key b'metadata'"):
        QH9Dataset(other)


def test_truncated_files(tmp_path):
    """liblmdb would end the process; and no length gives other numbers."""
    path = write_lmdb(tmp_path / "data.mdb", {key(k): sphnet_row(k) for k in range(3)}, subdir=False)
    whole = [sample.labels["hamiltonian"] for sample in QH9Dataset(path, "stable")]
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in (0, 1, 100, 4096, *rng.integers(0, len(data), size=20).tolist()):
        path.write_bytes(data[:size])
        try:
            found = [sample.labels["hamiltonian"] for sample in QH9Dataset(path, "stable")]
        except DataError:
            continue
        assert np.array_equal(found, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Ham": b"1234"}, r"Hamiltonian must have 4608 bytes for 24 orbitals in def2-svp, got 4"),
        ({"Ham": np.zeros((24, 24), np.float32)}, "of kind float64 .* of float32"),
        ({"Ham": torch.zeros(24, 24, dtype=torch.float32)}, "must be bytes or an array, got Tensor"),
        ({"num_nodes": 2**62}, r"positions must have|atomic numbers must have"),
        ({"atoms": np.array([2**32 + 8, 1, 1])}, "must be 1 to 118"),
        ({"pos": b""}, "positions must have 72 bytes, got 0"),
        ({"num_nodes": 2}, "atomic numbers must have 8 bytes, got 12"),
        ({"num_nodes": "3"}, "number of atoms must be a positive integer"),
        ({"atoms": [8, 1, 1]}, "must be bytes or an array"),
        ({"atoms": np.array([8, 1, 200], np.int32).tobytes()}, "must be 1 to 118"),
        ({"id": 4}, "the id of a Stable row is its key 0, got 4"),
        ({"id": None}, "id must be an integer"),
        ({"pos": np.full((3, 3), np.nan)}, "must be finite"),
        ({"Ham": np.triu(np.ones((24, 24)))}, "must be symmetric"),
        ({"Ham": np.full((24, 24), 1e9)}, "has the element 1e"),
    ],
)
def test_damaged_rows(change, message, tmp_path):
    path = write_lmdb(tmp_path / "d.lmdb", {key(0): qhnet_row(0, 0) | change, key(1): qhnet_row(1, 1)})
    data = QH9Dataset(path)
    with pytest.raises(DataError, match=message) as caught:
        data[0]
    assert "d.lmdb:0" in str(caught.value)
    assert data[1].info["qm9_id"] == 1


def test_pickles_run_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    path = write_lmdb(tmp_path / "evil.lmdb", {key(0): qhnet_row(0, 0) | {"extra": Evil()}})
    with pytest.raises(DataError, match="open"):
        QH9Dataset(path)
    assert not (tmp_path / "made").exists()
    assert QH9Dataset.recognise(path) is None
    path = write_lmdb(tmp_path / "list.lmdb", {key(0): [1, 2]})
    with pytest.raises(DataError, match="a dictionary with id, num_nodes"):
        QH9Dataset(path)
