"""QH9 files that are cut, changed or something else: one sentence, and never other numbers."""

from __future__ import annotations

import random
import sqlite3

import numpy as np
import pytest

from mlip.core.errors import ConfigError, DataError
from mlip.data import pyscf_extra
from mlip.data.datasets.qh9 import QH9Dataset
from mlip.data.formats.sqlite_file import SqliteFile
from tests.data.fixtures import qh9 as fixture


def read_all(path):
    data = QH9Dataset(path, "dynamic_300k")
    return [item for chunk in data.chunks() for item in data.read(chunk)]


def test_no_file_or_another_one(tmp_path):
    text = tmp_path / "notes.db"
    text.write_text("hello")
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE molecules (id INTEGER)")
    connection.close()
    stem = tmp_path / "folder"
    stem.mkdir()
    (stem / "QH9Stable.db").touch()
    for path, message in (
        (tmp_path / "none.db", "No such file.*Set data.path"),
        (text, "is not an SQLite file"),
        (stem / "QH9Stable.db", "not an SQLite file but empty"),
        (other, r"a table 'data' with id, N, Z, pos, Ham was expected, there: molecules"),
        (stem, r"has no data\.mdb.*such as QH9Stable\.db"),
    ):
        with pytest.raises(DataError, match=message):
            QH9Dataset(path)


def test_unknown_options(tmp_path):
    path = fixture.write_stable(tmp_path / "s.db", [0])
    for options, message in (
        ({"overlap": "computed"}, r"overlap must be false, compute, got 'computed'\. Did you mean 'compute'\?"),
        ({"initial_guess": "minao"}, "initial_guess must be false, compute, file"),
        ({"unconverged": "drop"}, "unconverged must be refuse, skip, keep"),
        ({"split_rule": "mine"}, "split_rule must be official, this_file"),
        ({"length_unit": "nm"}, "length_unit must be Angstrom, Bohr"),
    ):
        with pytest.raises(ConfigError, match=message):
            QH9Dataset(path, **options)
    with pytest.raises(DataError, match="basis must be named"):
        QH9Dataset(path, basis="../x")


def test_pyscf_is_asked_for_before_anything_is_read(tmp_path, monkeypatch):
    path = fixture.write_stable(tmp_path / "s.db", [0])
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    for option in ("overlap", "initial_guess"):
        with pytest.raises(DataError, match=r"pip install 'mlip-kit\[qm\]'"):
            QH9Dataset(path, **{option: "compute"})
    assert QH9Dataset(path)[0].labels["hamiltonian"].shape == (24, 24)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("N", 2, "atomic numbers must have 8 bytes, got 12"),
        ("N", "three", "number of atoms must be a positive integer"),
        ("N", 0, "number of atoms must be a positive integer"),
        ("Z", b"\0" * 12, "must be 1 to 118, got"),
        ("Z", None, "must be bytes or an array"),
        ("pos", b"\0" * 71, "positions must have 72 bytes, got 71"),
        ("pos", b"\0" * 72, "closest atoms would be 0.000 Å apart"),
        ("pos", np.full(9, 1e300).tobytes(), "an atom is .*e.299 Å from the origin"),
        ("Ham", b"\0" * 8, "Hamiltonian must have 4608 bytes for 24 orbitals in def2-svp, got 8"),
        ("Ham", np.full(576, np.inf).tobytes(), "must be finite"),
        ("Ham", np.random.default_rng(0).normal(size=576).tobytes(), "must be symmetric"),
        ("epot", "low", "energy epot must be a number of Hartree, got 'low'"),
        ("epot", 1e300, "energy epot must be a number of Hartree"),
        ("converged", 2, "converged must be 0 or 1, got 2"),
        ("id", b"\0" * 4, "id must be an integer or one of 8 bytes, got 4 bytes"),
        ("geo_id", b"\0", "id must be an integer or one of 8 bytes, got 1 bytes"),
    ],
)
def test_one_damaged_row(column, value, message, tmp_path):
    path = fixture.write(tmp_path).files[0]
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE data SET {column} = ? WHERE rowid = 5", (value,))
    connection.commit()
    connection.close()
    items = read_all(path)
    assert [isinstance(item, DataError) for item in items] == [False] * 4 + [True, False]
    with pytest.raises(DataError, match=message) as caught:
        raise items[4]
    assert f"{path}:4" in str(caught.value)


def test_deleted_rows_leave_gaps(tmp_path):
    case = fixture.write(tmp_path)
    connection = sqlite3.connect(case.files[0])
    connection.execute("DELETE FROM data WHERE rowid IN (2, 3)")
    connection.commit()
    connection.close()
    found = read_all(case.files[0])
    assert [sample.info["qm9_id"] for sample in found] == [7, 9, 9, 9]
    for sample, wanted in zip(found, [case.samples[k] for k in (0, 3, 4, 5)], strict=True):
        assert np.array_equal(sample.labels["hamiltonian"], wanted.labels["hamiltonian"])


def test_files_without_columns_or_rows(tmp_path):
    path = fixture.write(tmp_path).files[0]
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE data DROP COLUMN converged")
    connection.close()
    with pytest.raises(DataError, match="like QH9 Dynamic, but its table 'data' lacks converged"):
        QH9Dataset(path, "dynamic_300k")
    empty = fixture.write_dynamic(tmp_path / "e.db", [])
    with pytest.raises(DataError, match="has no rows"):
        len(QH9Dataset(empty, "dynamic_300k"))
    failed = fixture.write_dynamic(tmp_path / "u.db", [fixture.dynamic_row(0, 0, 0, converged=0)])
    with pytest.raises(DataError, match=r"No SCF in .* converged"):
        len(QH9Dataset(failed, "dynamic_300k", unconverged="skip"))


def test_a_view_is_no_table(tmp_path):
    """A view runs a query of its author's; it is not read."""
    path = tmp_path / "view.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE VIEW data AS SELECT 1 AS id, 1 AS N, x'01' AS Z, x'01' AS pos, zeroblob(9) AS Ham")
    connection.close()
    with pytest.raises(DataError, match="a table 'data'"):
        QH9Dataset(path)


def test_truncated_at_every_kind_of_place(tmp_path):
    """SQLite reads a page that is cut as if it were filled with zeros; that is not let happen."""
    case = fixture.write(tmp_path)
    path = case.files[0]
    data = path.read_bytes()
    rng = random.Random(0)
    sizes = [0, 1, 50, 99, 100, 4095, 4096, len(data) - 1, len(data) - 4096, len(data) // 2]
    for size in sizes + [rng.randrange(len(data)) for _ in range(30)]:
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"is cut|not an SQLite file"):
            read_all(path)


def test_changed_bytes_give_an_error_or_the_same_or_other_blobs(tmp_path):
    """Raw blobs have no checksum; but nothing else than a DataError comes out, and the rows stay what they were."""
    case = fixture.write(tmp_path)
    path = case.files[0]
    data = path.read_bytes()
    rng = random.Random(1)
    for number in range(200):
        changed = bytearray(data)
        changed[rng.randrange(4096 if number % 2 else len(data))] ^= rng.randrange(1, 256)
        path.write_bytes(bytes(changed))
        try:
            items = read_all(path)
        except DataError:
            continue
        assert len(items) == 6
        for item, wanted in zip(items, case.samples, strict=True):
            if not isinstance(item, DataError):
                assert item.labels["hamiltonian"].shape == (24, 24)
                assert np.array_equal(item.atoms.numbers, wanted.atoms.numbers)


def test_unicode_and_special_characters_in_a_read_only_folder(tmp_path):
    folder = tmp_path / "daten ü 数据 #1?mode=rw&x=%20"
    folder.mkdir()
    case = fixture.write(folder)
    before = sorted(entry.name for entry in folder.iterdir())
    folder.chmod(0o555)
    try:
        found = read_all(case.files[0])
    finally:
        folder.chmod(0o755)
    assert len(found) == 6
    assert found[0].info["source"] == f"{case.files[0]}:0"
    assert sorted(entry.name for entry in folder.iterdir()) == before


def test_unfinished_changes_are_refused(tmp_path):
    path = fixture.write(tmp_path).files[0]
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM data WHERE rowid = 1")
    connection.commit()
    with pytest.raises(DataError, match=r"unfinished changes in 'QH9Dynamic_300k\.db-wal'"):
        QH9Dataset(path, "dynamic_300k")
    connection.close()
    assert len(read_all(path)) == 5  # still marked as write-ahead, but whole


def test_sqlite_file_pickles_and_reports(tmp_path):
    path = fixture.write_stable(tmp_path / "s.db", [1, 5])
    file = SqliteFile(path)
    assert file.columns("data")["Ham"] == "BLOB"
    assert file.columns("other") == {}
    assert file.tables() == ["data"]
    assert file.all("SELECT id FROM data WHERE id > ?", (1,)) == [(5,)]
    with pytest.raises(DataError, match="cannot be read"):
        file.all("SELECT nothing FROM nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        file.all("DELETE FROM data")
