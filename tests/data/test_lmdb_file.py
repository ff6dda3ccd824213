"""LMDB files: what the library wrote is read, and damage is an error."""

import pickle
import random
import struct
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlip.core.errors import DataError
from mlip.data.formats.lmdb_file import LmdbFile


def write(path: Path, pairs: dict[bytes, bytes], step: int = 500, remove=()) -> None:
    with lmdb.open(str(path), subdir=False, map_size=2**28, lock=False) as environment:
        items = list(pairs.items())
        for start in range(0, len(items), step):
            with environment.begin(write=True) as transaction:
                for key, value in items[start : start + step]:
                    transaction.put(key, value)
        with environment.begin(write=True) as transaction:
            for key in remove:
                transaction.delete(key)


def made(count: int, largest: int) -> dict[bytes, bytes]:
    numbers = random.Random(0)
    order = list(range(count))
    numbers.shuffle(order)
    return {b"%d" % i: numbers.randbytes(numbers.randrange(largest)) for i in order}


@pytest.mark.parametrize(("count", "largest", "step"), [(0, 1, 1), (1, 9, 1), (5000, 40, 3000), (300, 20000, 20)])
def test_reads_what_the_library_wrote(tmp_path, count, largest, step):
    pairs = made(count, largest)
    removed = list(pairs)[: count // 5]
    write(tmp_path / "å.lmdb", pairs, step, removed)
    left = {key: value for key, value in pairs.items() if key not in set(removed)}
    file = LmdbFile(tmp_path / "å.lmdb")
    assert file.num_entries == len(left)
    assert file.keys() == sorted(left)
    assert all(file.get(key) == value for key, value in left.items())
    for missing in (b"", b"-1", b"5x", b"zz", *removed[:3]):
        assert file.find(missing) is None
    with pytest.raises(DataError, match=r"å\.lmdb' has no entry '-1'"):
        file.get(b"-1")


def test_folder_pickling_and_read_only(tmp_path):
    write(tmp_path / "data.mdb", {b"0": b"x" * 5000})
    (tmp_path / "data.mdb").chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        file = pickle.loads(pickle.dumps(LmdbFile(tmp_path)))
        assert file.get(b"0") == b"x" * 5000
        assert [entry.name for entry in tmp_path.iterdir()] == ["data.mdb"], "no lock file"
    finally:
        tmp_path.chmod(0o755)


def test_what_is_no_lmdb_is_refused(tmp_path):
    for content, message in ((b"", "is empty"), (b"x" * 5000, "not an LMDB"), (b"abc", "too early")):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DataError, match=message):
            LmdbFile(tmp_path / "x")
    with pytest.raises(DataError, match="No such file"):
        LmdbFile(tmp_path / "none")
    write(tmp_path / "new", {b"0": b"1"})
    content = bytearray((tmp_path / "new").read_bytes())
    for start in (0, 4096):
        content[start + 92] = 0x04
    (tmp_path / "new").write_bytes(content)
    with pytest.raises(DataError, match=r"special keys \(flags 0x4\)"):
        LmdbFile(tmp_path / "new")
    content[20:24] = struct.pack("<I", 2)
    (tmp_path / "new").write_bytes(content)
    with pytest.raises(DataError, match=r"format 2; format 1 \(LMDB 0\.9\) is read"):
        LmdbFile(tmp_path / "new")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("lmdb") / "x.lmdb"
    pairs = made(300, 300) | {b"big": b"y" * 30000}
    write(path, pairs, 50)
    return path.read_bytes(), pairs, path


def read_all(path: Path, pairs) -> str:
    """Read everything; return what came of it."""
    try:
        file = LmdbFile(path)
        keys = file.keys()
        values = {key: file.get(key) for key in keys}
    except DataError:
        return "error"
    return "same" if values == pairs else "other"


@given(st.integers(0, 2**31))
def test_truncated_files_are_errors(sample, tmp_path_factory, seed):
    content, pairs, path = sample
    cut = path.with_name("cut")
    length = seed % len(content)
    cut.write_bytes(content[:length])
    outcome = read_all(cut, pairs)
    # A whole page at the end may be one that was never in use.
    assert outcome == "error" or (outcome == "same" and length >= len(content) - 4 * 4096)


@given(st.integers(0, 2**31), st.integers(0, 255))
def test_changed_bytes_never_crash(sample, seed, byte):
    content, pairs, path = sample
    changed = bytearray(content)
    for place in random.Random(seed).sample(range(len(content)), 20):
        changed[place] = byte
    path.with_name("changed").write_bytes(changed)
    read_all(path.with_name("changed"), pairs)


def test_bytes_of_headers_may_be_wrong(sample):
    content, pairs, path = sample
    changed = path.with_name("header")
    for start in range(0, 8 * 4096, 4096):
        for place in range(start + 2, start + (152 if start < 8192 else 24), 5):
            for byte in {0xFF, content[place] ^ 1} - {content[place]}:
                wrong = bytearray(content)
                wrong[place] = byte
                changed.write_bytes(wrong)
                read_all(changed, pairs)


def test_pages_in_a_circle(sample):
    """All children of the root are the root."""
    content, pairs, path = sample
    file = LmdbFile(path)
    page = bytearray(content)
    root = file._root * 4096
    for offset in file._nodes(content[root : root + 4096]):
        page[root + offset : root + offset + 4] = struct.pack("<I", file._root)
    path.with_name("circle").write_bytes(page)
    assert read_all(path.with_name("circle"), pairs) == "error"


def test_free_pages_at_the_end_may_be_missing(sample, tmp_path):
    content, pairs, _ = sample
    grown = bytearray(content)
    for start in (0, 4096):  # The number of the last page, in both headers.
        place = start + 16 + 24 + 96
        (last,) = struct.unpack_from("<Q", grown, place)
        struct.pack_into("<Q", grown, place, last + 3)
    (tmp_path / "x").write_bytes(grown)
    assert read_all(tmp_path / "x", pairs) == "same"
    (tmp_path / "x").write_bytes(grown[:-8192])
    with pytest.raises(DataError, match="is truncated: it has"):
        LmdbFile(tmp_path / "x")


@pytest.mark.reference
def test_published_files(reference_data):
    files = [file for file in sorted((reference_data / "oc20").rglob("*lmdb")) if file.is_file()]
    if not files:
        pytest.skip("no LMDB files")
    for path in files:
        with (
            lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment,
            environment.begin() as reader,
        ):
            pairs = dict(reader.cursor())
        file = LmdbFile(path)
        assert file.keys() == sorted(pairs)
        assert all(file.get(key) == value for key, value in pairs.items())
