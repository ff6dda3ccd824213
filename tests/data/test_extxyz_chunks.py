"""Extxyz files in chunks: for parallel work, compressed, with groups and inputs."""

import bz2
import gzip
import lzma
import pickle
import tracemalloc

import numpy as np
import pytest

from mlip.core.errors import DataError
from mlip.data.content_hash import sample_hash
from mlip.data.datasets.base import Recognition
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.datasets.store import StoreDataset
from mlip.data.datasets.threebpa import ThreeBPADataset
from mlip.data.formats import extxyz_lines
from mlip.data.labels import merge_keys
from mlip.data.store.prepare import prepare
from tests.data.frames import ISOLATED, frame_text

RICH = (
    '2\nLattice="3 0 0 0 3 0 0 0 3" charge=-1 spin=2 energy=-1 traj="mp-1" '
    "Properties=species:S:1:pos:R:3:forces:R:3:magmoms:R:1:tags:I:1:move_mask:L:1\n"
    "Fe 0 0 0 0.1 0 0 2.5 1 F\nO 0 0 2 -0.1 0 0 -0.5 2 T\n"
)


def items(data, chunks=None):
    return [item for chunk in (data.chunks() if chunks is None else chunks) for item in data.read(chunk)]


def texts(number):
    return "".join(frame_text(f"energy={-k}", extra=f"step={k}") for k in range(1, number + 1))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(extxyz_lines, "CHUNK_FRAMES", 3)


def test_chunks_cut_at_frames_and_read_alone(file, small_chunks):
    path = file(texts(8).replace("step=2", 'note="größe"'), "größe.xyz")
    data = ExtxyzDataset(path)
    chunks = list(data.chunks())
    assert [chunk.key for chunk in chunks] == [f"{path}:0-2", f"{path}:3-5", f"{path}:6-7"]
    assert [chunk.num_samples for chunk in chunks] == [3, 3, 2]
    assert sum(chunk.num_bytes for chunk in chunks) == path.stat().st_size
    last = items(pickle.loads(pickle.dumps(ExtxyzDataset(path))), [chunks[2]])
    assert [sample.source for sample in last] == [f"{path}:6", f"{path}:7"]
    assert [float(sample.labels["energy"]) for sample in items(data)] == [-k for k in range(1, 9)]


def test_a_file_without_line_ends_is_not_held(file, monkeypatch):
    path = file("x" * 10**7)
    monkeypatch.setattr(extxyz_lines, "LONGEST_LINE", 10**4)
    tracemalloc.start()
    with pytest.raises(DataError, match="a line of more than 10000 bytes"):
        list(ExtxyzDataset(path).chunks())
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()


def test_a_chunk_ends_with_many_bytes_too(file, monkeypatch):
    monkeypatch.setattr(extxyz_lines, "CHUNK_BYTES", 2 * len(frame_text()))
    sizes = [chunk.num_samples for chunk in ExtxyzDataset(file(frame_text() * 5)).chunks()]
    assert sizes == [2, 2, 1]


def test_damaged_frames_are_handed_out_and_broken_files_raise(file, small_chunks):
    data = ExtxyzDataset(file(texts(4).replace("energy=-2", "enrgy=-2").replace("energy=-3", "energy=nan")))
    found = items(data)
    assert [isinstance(item, DataError) for item in found] == [False, True, True, False]
    assert "data.xyz:1: no energy" in str(found[1])
    assert str(pickle.loads(pickle.dumps(found[1]))) == str(found[1])
    with pytest.raises(DataError, match=r"2 of 4 structures cannot be used: \(1\) 1 of 4 frames have no energy"):
        len(data)
    chunks = ExtxyzDataset(file(texts(4) + "2\n", "cut.xyz")).chunks()
    assert next(chunks).num_samples == 3
    with pytest.raises(DataError, match="frame 4 has no comment line"):
        list(chunks)


def test_a_file_that_changes_after_it_was_cut_is_noticed(file):
    path = file(texts(3))
    data = ExtxyzDataset(path)
    chunks = list(data.chunks())
    for text in (texts(2), "X" + texts(3)):
        path.write_text(text)
        with pytest.raises(DataError):
            items(data, chunks)
    path.unlink()
    with pytest.raises(DataError, match="Cannot read"):
        items(data, chunks)


@pytest.mark.parametrize(("suffix", "compress"), [("xz", lzma.compress), ("gz", gzip.compress), ("bz2", bz2.compress)])
def test_compressed_files_are_one_chunk(file, suffix, compress):
    content = compress(texts(5).encode())
    path = file(content, f"data.extxyz.{suffix}")
    data = ExtxyzDataset(path)
    assert [chunk.key for chunk in data.chunks()] == [str(path)]
    assert [sample.source for sample in data] == [f"{path}:{k}" for k in range(5)]
    path.write_bytes(content[:-9])
    with pytest.raises(DataError, match=f"data.extxyz.{suffix}"):
        list(ExtxyzDataset(path))


def test_magmoms_and_inputs_are_read_where_they_are_named(file):
    names = ["energy", "forces", "magmoms", "charge", "spin", "tags", "fixed"]
    sample = ExtxyzDataset(file(RICH), labels=names)[0]
    assert {name: np.asarray(sample.labels[name]).tolist() for name in names[2:]} == {
        "magmoms": [2.5, -0.5],
        "charge": -1,
        "spin": 2,
        "tags": [1, 2],
        "fixed": [True, False],
    }
    assert [sample.labels[name].dtype for name in names[3:]] == [np.int64, np.int64, np.int64, np.bool_]
    assert set(ExtxyzDataset(file(RICH))[0].labels) == {"energy", "forces"}
    assert set(ExtxyzDataset(file(frame_text()), optional_labels=names[2:])[0].labels) == {"energy", "forces"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("charge=-1", "charge=-0.5", r"the charge 'charge' must be whole numbers, got -0\.5"),
        ("charge=-1", "charge=T", "must be whole numbers, got True"),
        ("spin=2", "spin=0", r"must be the multiplicity 2S \+ 1"),
        ("spin=2", 'spin="1 2"', r"must have shape \(\), got \(2,\)"),
        ("charge=-1", "", r"frames have no charge \(first: .*:0\); no usual key was found"),
        ("move_mask:L", "moves:L", "no fixed"),
    ],
)
def test_inputs_that_cannot_be_right_are_refused(file, old, new, words):
    with pytest.raises(DataError, match=words):
        list(ExtxyzDataset(file(RICH.replace(old, new)), labels=["charge", "spin", "fixed"]))


def test_stress_that_is_not_symmetric_is_refused_under_its_own_name_too(file):
    stated = RICH.replace("spin=2", 'stress="1 2 0 0 1 0 0 0 1"')
    with pytest.raises(DataError, match="must be a symmetric tensor"):
        list(ExtxyzDataset(file(stated), labels=["stress"]))


def test_groups(file):
    data = ExtxyzDataset(file(RICH + RICH.replace("mp-1", "7")), group_key="traj")
    assert data.groups() == ["mp-1", "7"]
    lacking = ExtxyzDataset(file(RICH + frame_text() * 2), group_key="traj")
    with pytest.raises(DataError, match=r"2 of 3 frames have no group \(first: .*:1\); group_key is 'traj'"):
        len(lacking)


def test_levels_of_theory_do_not_mix_between_chunks(file, small_chunks):
    path = file(ISOLATED + texts(4) + frame_text("dft_energy=-5"))
    data = ExtxyzDataset(path)
    last = list(data.chunks())[-1]
    found = items(pickle.loads(pickle.dumps(data)), [last])
    assert isinstance(found[-1], DataError)
    assert f"The energy is 'energy' in {path}:1, but 'dft_energy' in {path}:5" in str(found[-1])


def test_levels_of_theory_do_not_mix_between_processes(file, small_chunks):
    """A key that the first frames do not have is compared by whoever has several copies read."""
    columns, rows = "species:S:1:pos:R:3:forces:R:3:{}:R:1", ["H 0 0 0 0 0 0 1", "H 0 0 1 0 0 0 1"]
    plain, other = (frame_text(columns=columns.format(name), rows=rows) for name in ("magmoms", "REF_magmoms"))
    path = file(frame_text() * 3 + plain * 3 + other)
    data = ExtxyzDataset(path, optional_labels=("magmoms",))
    copies = [pickle.loads(pickle.dumps(data)) for _ in range(3)]
    for copy, chunk in zip(copies, data.chunks(), strict=True):
        assert not any(isinstance(item, DataError) for item in items(copy, [chunk]))
    known = {}
    merge_keys(known, copies[0].label_keys())
    assert known == {"energy": ("energy", f"{path}:0"), "forces": ("forces", f"{path}:0")}
    merge_keys(known, copies[1].label_keys())
    with pytest.raises(DataError, match=r"magmoms is 'magmoms' in .*:3, but 'REF_magmoms' in .*:6\. Give the frames"):
        merge_keys(known, copies[2].label_keys())
    with pytest.raises(DataError, match="'REF_magmoms'"):
        len(data)


def test_the_energy_of_an_isolated_atom_is_of_the_same_key(file):
    path = file(frame_text("REF_energy=-5") + ISOLATED)
    with pytest.raises(DataError, match=r"energy is 'REF_energy' in .*:0, but 'energy' in .*:1\. Say which"):
        len(ExtxyzDataset(path))


def test_kept_isolated_atoms_are_the_same_in_a_store(file, tmp_path):
    rich = ISOLATED.replace("pos:R:3", "pos:R:3:forces:R:3").replace("H 0 0 0", "O 0 0 0 0 0 0")
    data = ExtxyzDataset(file(ISOLATED + frame_text() + rich), include_isolated_atoms=True)
    assert [sorted(sample.labels) for sample in data] == [["energy"], ["energy", "forces"], ["energy", "forces"]]
    prepare(data, {}, tmp_path / "store", workers=1)
    store = StoreDataset(tmp_path / "store")
    assert [sample_hash(sample) for sample in store] == [sample_hash(sample) for sample in data]
    assert store.isolated_atom_energies() == data.isolated_atom_energies() == {"H": -3.25, "O": -3.25}
    # Labels that are wrong do not matter where the atom is not a sample.
    odd = ISOLATED.replace("config_type", 'virial="0 0 0 0 0 0 0 0 0" config_type')
    assert len(ExtxyzDataset(file(odd + frame_text()), optional_labels=("stress",))) == 1


def test_isolated_atoms_come_in_chunks(file):
    path = file(ISOLATED + frame_text())
    assert [sample.isolated for sample in items(ExtxyzDataset(path))] == [True, False]
    kept = items(ExtxyzDataset(path, include_isolated_atoms=True))
    assert [(sample.isolated, len(sample.atoms)) for sample in kept] == [(True, 1), (False, 1), (False, 2)]


@pytest.mark.parametrize(
    ("name", "content", "known"),
    [
        ("a.xyz", frame_text(), True),
        ("a.extxyz.xz", lzma.compress(frame_text().encode()), True),
        ("a.txt", frame_text(), True),
        ("a.xyz", "hello\n", False),
        ("a.txt", "2\n3\n4\n", False),
        ("a.json", '{"a": 1}', False),
        ("a.bin", b"\xff\xfe", False),
        ("a.xyz", b"", False),
    ],
)
def test_recognition(file, name, content, known):
    path = file(content, name)
    assert ExtxyzDataset.recognise(path) == (Recognition(1) if known else None)
    assert ThreeBPADataset.recognise(path) is None
    assert ExtxyzDataset.recognise(path.parent) is None


def test_other_datasets_do_not_inherit_the_recognition(file):
    class Other(ExtxyzDataset):
        pass

    assert Other.recognise(file(frame_text())) is None
