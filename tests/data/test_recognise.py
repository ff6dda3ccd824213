"""Which data set can read a path, and what a file is where none can."""

import gzip
import io
import lzma
import sqlite3
import zipfile

import h5py
import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from mlip.core.errors import DataError
from mlip.data.datasets.base import Recognition
from mlip.data.recognise import describe_file, first_match, recognise


def kind(certainty, raises=None):
    class Answer:
        @classmethod
        def recognise(cls, path):
            if raises:
                raise raises
            return Recognition(certainty) if certainty else None

    return Answer


def test_the_surest_answer_counts(tmp_path):
    (tmp_path / "x").write_text("")
    classes = {"a": kind(1), "b": kind(3), "c": kind(0), "d": kind(2)}
    assert [match.name for match in recognise(tmp_path / "x", classes)] == ["b"]
    classes["e"] = kind(3)
    assert [match.name for match in recognise(tmp_path / "x", classes)] == ["b", "e"]
    assert recognise(tmp_path / "x", {"c": kind(0)}) == []
    damaged = {"a": kind(1), "b": kind(3, DataError("damaged")), "c": kind(3, OSError("gone"))}
    assert [match.name for match in recognise(tmp_path / "x", damaged)] == ["a"]


def test_a_pattern_stands_for_its_first_match(tmp_path):
    for name in ("b.xyz", "a.xyz"):
        (tmp_path / name).write_text("")
    assert first_match(str(tmp_path / "*.xyz")).name == "a.xyz"
    with pytest.raises(DataError, match=r"Did you mean 'a\.xyz'"):
        first_match(tmp_path / "aa.xyz")
    with pytest.raises(DataError, match="no file or folder"):
        first_match(tmp_path / "nowhere" / "x")


def _database(path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
    connection.close()


def _lmdb(path):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), subdir=False, map_size=2**20) as environment, environment.begin(write=True) as writer:
        writer.put(b"0", b"x")


def _hdf5(path):
    with h5py.File(path, "w") as handle:
        handle["a"] = 1


def _npz(path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    path.write_bytes(buffer.getvalue())


def _zip(path):
    with zipfile.ZipFile(path, "w") as handle:
        handle.writestr("a.txt", "x")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_database, "an SQLite database"),
        (_lmdb, "an LMDB database"),
        (_hdf5, "an HDF5 file"),
        (_zip, "a zip archive"),
        (_npz, "npz"),
        (lambda path: path.write_bytes(lzma.compress(b"text")), "xz-compressed"),
        (lambda path: path.write_bytes(gzip.compress(b"text")), "gzip-compressed"),
        (lambda path: write(path, molecule("H2O"), format="traj"), "an ASE trajectory"),
        (lambda path: path.write_text('\n {"a": 1}'), "a JSON file"),
        (lambda path: path.write_text("hello\nyou"), "a text file that begins with 'hello'"),
        (lambda path: path.write_text("ü" * 600), "a text file"),
        (lambda path: path.write_bytes(b"\x00\x01\x02\xff" * 200), "a binary file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.mkdir(), "an empty folder"),
    ],
)
def test_files_are_described_by_their_first_bytes(tmp_path, make, words):
    make(tmp_path / "file")
    assert words in describe_file(tmp_path / "file")


def test_a_folder_is_described_by_what_is_in_it(tmp_path):
    (tmp_path / "a.xyz").write_text("")
    (tmp_path / "b.dat").write_text("")
    assert describe_file(tmp_path) == "a folder of 2 entries (.dat, .xyz)"
