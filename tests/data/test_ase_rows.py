"""Rows of ASE databases: against ASE's own reader, and what damaged or odd files give."""

import json
import os
import pickle
import shutil
import sqlite3
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.db import connect

from mlip.core.errors import DataError
from mlip.data.formats import ase_rows_lmdb
from mlip.data.formats.ase_rows import AseRows
from tests.data.ase_files import crystal, row_of, write_aselmdb

RESULTS = ("energy", "free_energy", "forces", "stress", "magmoms", "charges", "dipole", "tags", "initial_magmoms")


def assert_as_ase_reads(rows: AseRows, file) -> None:
    theirs = list(connect(file).select())
    assert len(rows) == len(theirs)
    for index, other in enumerate(theirs):
        row = rows.row(index)
        assert row["id"] == other.id
        for name in ("numbers", "positions", "cell", "pbc"):
            assert np.array_equal(row[name], other[name])
        for name in RESULTS:
            assert (name in row) == (name in other), name
            if name in row:
                assert np.array_equal(row[name], other[name]), name
        assert row["key_value_pairs"] == other.key_value_pairs
        assert row["data"].keys() == other.data.keys()
        for key, value in other.data.items():
            assert np.array_equal(row["data"][key], value), key
        held = [c.index for c in other.constraints if isinstance(c, FixAtoms)]
        if held:
            assert np.array_equal(np.flatnonzero(row["fixed"]), np.sort(held[0]))


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["oc20/oxides/oxides.db", "mptrj/10_thin_mp_traj_systems.db", "oc20/raw/adsorbates.db"]
)
def test_real_sqlite_files_as_ase_reads_them(reference_data, tmp_path, name):
    shutil.copy(reference_data / name, tmp_path / "copy.db")
    rows = AseRows(reference_data / name)
    assert_as_ase_reads(rows, tmp_path / "copy.db")
    assert np.array_equal(rows.num_atoms(), [len(rows.row(k)["numbers"]) for k in range(len(rows))])


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_everything_that_ase_writes(tmp_path, name):
    atoms = Atoms("CO2", positions=np.arange(9.0).reshape(3, 3), cell=[3, 4, 5], pbc=[True, False, True])
    atoms.set_tags([0, 1, 2])
    atoms.set_initial_magnetic_moments([0.5, 0, 0])
    atoms.set_constraint([FixAtoms([2]), FixCartesian([0], (True, True, False)), FixCartesian([1])])
    forces = np.random.default_rng(0).normal(size=(3, 3))
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1.5, free_energy=-1.75, forces=forces, stress=np.arange(6) / 7, magmoms=[1.0, 2.0, 3.0]
    )
    nested = {"matrix": np.eye(2), "deep": {"ints": np.arange(3)}, "text": "ü", "none": None}
    database = connect(tmp_path / name)
    database.write(atoms, name="x", number=3, data=nested)
    database.write(Atoms("H"))
    rows = pickle.loads(pickle.dumps(AseRows(tmp_path / name)))
    row = rows.row(0)
    assert np.array_equal(row["forces"], forces), "not those with zeros on fixed atoms"
    assert row["fixed"].tolist() == [False, True, True], "held in all directions"
    assert row["pbc"].tolist() == [True, False, True]
    assert np.array_equal(row["data"]["deep"]["ints"], [0, 1, 2])
    assert row["data"]["text"] == "ü"
    assert row["key_value_pairs"] == {"name": "x", "number": 3}
    assert "energy" not in rows.row(1)
    assert not rows.row(1)["cell"].any()


def test_ids_have_gaps_and_files_are_sorted(tmp_path):
    samples = [crystal(k) for k in range(4)]
    write_aselmdb(tmp_path / "b" / "z.aselmdb", {1: row_of(samples[3])})
    write_aselmdb(tmp_path / "a.aselmdb", {k: row_of(s) for k, s in zip((1, 7, 11), samples)}, deleted_ids=[3])
    rows = AseRows(tmp_path)
    assert [rows.row(k)["id"] for k in range(4)] == [1, 7, 11, 1]
    assert [rows.row(k)["energy"] for k in range(4)] == [float(s.labels["energy"]) for s in samples]
    assert rows.locate(3) == (1, 0)
    assert [span[1:] for span in rows.spans()] == [(0, 3), (3, 4)]
    assert rows.source(2) == f"{tmp_path / 'a.aselmdb'}:2"
    with pytest.raises(IndexError):
        rows.row(4)
    assert len(AseRows(str(tmp_path / "*.aselmdb"))) == 3
    assert len(AseRows([tmp_path / "b" / "z.aselmdb", tmp_path / "a.aselmdb"])) == 4


def test_deleted_rows_stay_deleted(tmp_path):
    file = write_aselmdb(tmp_path / "a.aselmdb", {k: row_of(crystal(k)) for k in (1, 2, 3)}, deleted_ids=[2])
    assert [AseRows(file).row(k)["id"] for k in range(2)] == [1, 3]
    database = connect(tmp_path / "a.db")
    for _ in range(3):
        database.write(Atoms("H"))
    del database[2]
    assert [AseRows(tmp_path / "a.db").row(k)["id"] for k in range(2)] == [1, 3]


@pytest.mark.parametrize("special", [{"nextid": None, "metadata": None}, {"nextid": 99}, {"nextid": "x"}])
def test_rows_are_found_without_a_right_nextid(tmp_path, special):
    file = write_aselmdb(tmp_path / "a.aselmdb", {k: row_of(crystal(k)) for k in range(1, 13)}, **special)
    assert [AseRows(file).row(k)["id"] for k in range(12)] == list(range(1, 13)), "10 comes after 9"


def test_ases_marks_and_old_constraints(tmp_path):
    row = row_of(crystal(0))
    marked = row | {
        "positions": {"__ndarray__": [[2, 3], "float64", [0, 1, 2, 3, 4, 5]]},
        "cell": {"array": {"__ndarray__": [[3, 3], "float64", [1, 0, 0, 0, 2, 0, 0, 0, 3]]}, "__ase_objtype__": "cell"},
        "constraints": [{"__name__": "ase.constraints.FixAtoms", "indices": [1]}],
    }
    found = AseRows(write_aselmdb(tmp_path / "a.aselmdb", {1: marked})).row(0)
    assert found["positions"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["cell"].diagonal().tolist() == [1, 2, 3]
    assert found["fixed"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": [11, 0]}, r"atom 1 has the atomic number 0"),
        ({"numbers": [11.5, 17]}, r"integers"),
        ({"numbers": None}, r"no atomic numbers"),
        ({"positions": [[0, 0, 0]]}, r"positions must have shape \(2, 3\), got \(1, 3\)"),
        ({"positions": [[0, 0, None], [0, 0, 1]]}, r"positions are not finite"),
        ({"cell": [[1, 2], [3, 4]]}, r"cell must have shape"),
        ({"pbc": "yes"}, r"pbc must be"),
        ({"forces": [[1, 2, 3]]}, r"forces must have shape \(2, 3\)"),
        ({"forces": [["a", 2, 3], [1, 2, 3]]}, r"forces must be numbers"),
        ({"tags": [1]}, r"tags must have shape"),
        ({"data": [1]}, r"data must be a JSON object"),
        ({"constraints": [{"name": "FixAtoms", "kwargs": {"indices": [2]}}]}, r"atoms that the row does not have"),
        ({"positions": {"__ndarray__": [[9, 9], "float64", [1]]}}, r"array of the row is damaged"),
        ({"positions": {"__ndarray__": [[1], "object", [1]]}}, r"array of the row is damaged"),
    ],
)
def test_rows_that_cannot_be_right(tmp_path, change, message):
    file = write_aselmdb(tmp_path / "a.aselmdb", {1: row_of(crystal(0)), 2: row_of(crystal(1)) | change})
    rows = AseRows(file)
    assert rows.row(0)["id"] == 1
    with pytest.raises(DataError, match=rf"a\.aselmdb:1 \(id 2\).*{message}"):
        rows.row(1)


def test_expansion_and_nesting_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(ase_rows_lmdb, "LARGEST_ROW", 2**20)
    path = str(tmp_path / "a.aselmdb")
    with lmdb.open(path, subdir=False, lock=False, map_size=2**24) as environment, environment.begin(write=True) as put:
        put.put(b"1", zlib.compress(b"[" * 2**21, 9))
        put.put(b"2", zlib.compress(b'{"a":' * 5000 + b"1" + b"}" * 5000))
        put.put(b"3", zlib.compress(b'{"a":' * 1015 + b"1" + b"}" * 1015))
        put.put(b"4", b"not zlib")
    rows = AseRows(tmp_path / "a.aselmdb")
    for position, message in enumerate(["expands", "nested|JSON", "nested|atomic numbers", "damaged"]):
        with pytest.raises(DataError, match=message):
            rows.row(position)


def edit(file, *statements) -> None:
    with sqlite3.connect(file) as connection:
        for statement in statements:
            connection.execute(*statement) if isinstance(statement, tuple) else connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE information SET value = '10' WHERE name = 'version'", r"version 10 .* 5 to 9 are known\. Update mlip"),
        ("UPDATE information SET value = '3' WHERE name = 'version'", r"version 3 .*ase\.db\.convert"),
        ("DROP TABLE systems", r"not an ASE database"),
        (
            ("UPDATE systems SET forces = ?", (np.zeros((2, 3), np.float32).tobytes(),)),
            r"forces must be 6 numbers of 8",
        ),
        (("UPDATE systems SET tags = ?", (b"12345",)), r"tags must be integers of 4 bytes for 2 atoms, got 5 bytes"),
        ("UPDATE systems SET numbers = 'H'", r"numbers must be integers"),
        ("UPDATE systems SET pbc = 9", r"pbc must be an integer from 0 to 7"),
        ("UPDATE systems SET key_value_pairs = '{'", r"key_value_pairs is not valid JSON"),
        (("UPDATE systems SET data = ?", (b"\x00" * 8,)), r"binary data of the row are damaged"),
        (("UPDATE systems SET data = ?", (b"\x08" + b"\0" * 7 + b'{"__ndarray__":[[9],"float64",8]}',)), r"damaged"),
    ],
)
def test_sqlite_files_that_cannot_be_right(tmp_path, statement, message):
    connect(tmp_path / "a.db").write(Atoms("HO", positions=[[0, 0, 0], [0, 0, 1]]), data={"a": np.eye(2)})
    edit(tmp_path / "a.db", statement)
    with pytest.raises(DataError, match=message):
        AseRows(tmp_path / "a.db").row(0)


def test_a_view_in_place_of_the_table_is_not_run(tmp_path):
    connect(tmp_path / "a.db").write(Atoms("H"))
    edit(
        tmp_path / "a.db",
        "DROP TABLE systems",
        "CREATE VIEW systems AS WITH RECURSIVE x(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM x) SELECT id FROM x",
    )
    with pytest.raises(DataError, match="not an ASE database"):
        AseRows(tmp_path / "a.db")


def test_unfinished_changes_are_not_overlooked(tmp_path):
    file = tmp_path / "a.db"
    connect(file).write(Atoms("H"))
    writer = sqlite3.connect(file)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE systems SET energy = 7")
    writer.commit()
    with pytest.raises(DataError, match="unfinished changes"):
        AseRows(file)
    writer.close()
    assert AseRows(file).row(0)["energy"] == 7


def test_files_that_are_none(tmp_path, file):
    (tmp_path / "empty").mkdir()
    for path, message in [
        (file("", "a.db"), "is empty"),
        (file("hello" * 5000, "b.aselmdb"), "LMDB"),
        (file("SQLite format 3\0" + "x" * 5000, "c.db"), "cut|damaged|read"),
        (tmp_path / "empty", r"has no \.aselmdb, \.db or \.traj"),
        (tmp_path / "nothing.db", "No file matches"),
        ([], "empty"),
        ("???", "needs a path"),
        ([tmp_path / "a.db", tmp_path / "a.db"], "repeated"),
    ]:
        with pytest.raises(DataError, match=message):
            AseRows(path)


def energies(rows: AseRows) -> list[float]:
    return [rows.row(index)["energy"] for index in range(len(rows))]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_other_processes_read_the_same(tmp_path, start):
    atoms = Atoms("H")
    atoms.calc = SinglePointCalculator(atoms, energy=2.5)
    connect(tmp_path / "b.db").write(atoms)
    write_aselmdb(tmp_path / "a.aselmdb", {k: row_of(crystal(k)) for k in (1, 2)})
    rows = AseRows(tmp_path)
    here = energies(rows)
    assert energies(pickle.loads(pickle.dumps(rows))) == here
    with ProcessPoolExecutor(1, mp_context=get_context(start)) as pool:
        assert pool.submit(energies, rows).result() == here


def test_read_only_folders_and_odd_names(tmp_path):
    folder = tmp_path / "größe #1 50%?"
    folder.mkdir()
    connect(folder / "a.db").write(Atoms("H"))
    write_aselmdb(folder / "b.aselmdb", {1: row_of(crystal(1))})
    before = sorted(os.listdir(folder))
    folder.chmod(0o500)
    try:
        assert len(AseRows(folder)) == 2
        assert AseRows(folder).row(1)["id"] == 1
        assert sorted(os.listdir(folder)) == before
    finally:
        folder.chmod(0o700)


def test_nan_is_left_to_those_who_use_the_number(tmp_path):
    row = json.loads(json.dumps(row_of(crystal(0))))
    file = write_aselmdb(tmp_path / "a.aselmdb", {1: row | {"energy": float("nan")}})
    assert np.isnan(AseRows(file).row(0)["energy"])
