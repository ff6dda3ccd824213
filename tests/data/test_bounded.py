"""Compressed files: read as streams, bombs and damage refused."""

import bz2
import gzip
import io
import lzma
import pickle
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.core.errors import DataError
from mlip.data.formats import bounded, bounded_streams
from mlip.data.formats.bounded import (
    ZipArchive,
    inflate,
    open_binary,
    open_text,
    parse_json,
    without_compression,
)

TEXT = "".join(f"{k} Å {k / 7}\n" for k in range(3000))
PACK = {"xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress, "": bytes}


def zeros(path, size, pack) -> None:
    """Write a bomb: zeros, compressed piece by piece."""
    with pack(path, "wb") as handle:
        for _ in range(size // 2**22):
            handle.write(bytes(2**22))


def drain(handle) -> None:
    while handle.read(2**20):
        pass


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("streams", [1, 3])
def test_text_is_read_whatever_it_is_compressed_with(file, suffix, streams):
    path = file(PACK[suffix](TEXT.encode()) * streams, f"å.txt.{suffix}".rstrip("."))
    with open_text(path) as handle:
        assert handle.read() == TEXT * streams
    with open_text(path) as handle:
        assert list(handle) == (TEXT * streams).splitlines(keepends=True)
    with open_binary(path) as handle:
        assert handle.read(11) == TEXT.encode()[:11]
    assert without_compression(path) == "å.txt"


def test_streams_with_zeros_between_them(file):
    """As xz pads its streams, and tapes pad gzip's."""
    for suffix in ("xz", "gz"):
        packed = PACK[suffix](TEXT.encode())
        with open_text(file(packed + bytes(8) + packed + bytes(4), f"x.{suffix}")) as handle:
            assert handle.read() == TEXT * 2


@pytest.mark.parametrize("suffix", ["xz", "gz", "bz2"])
def test_truncated_and_damaged_files(file, suffix):
    packed = PACK[suffix](TEXT.encode())
    for length in (7, 20, len(packed) // 2, len(packed) - 4, len(packed) - 1):
        with open_text(file(packed[:length], f"x.{suffix}")) as handle, pytest.raises(DataError, match="truncated"):
            handle.read()
    wrong = bytearray(packed)
    wrong[len(packed) // 2] ^= 0x55
    with (
        open_text(file(bytes(wrong), f"x.{suffix}")) as handle,
        pytest.raises(DataError, match=r"damaged|truncated|not a text"),
    ):
        handle.read()
    with open_text(file(packed + b"junk at the end", f"x.{suffix}")) as handle, pytest.raises(DataError):
        handle.read()
    for content in (b"", b"3\nplain text\n"):
        with pytest.raises(DataError, match=f"is not a {suffix} file"):
            open_text(file(content, f"x.{suffix}"))


@given(st.sampled_from(["xz", "gz", "bz2"]), st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=30)
def test_a_changed_byte_is_noticed_or_harmless(tmp_path_factory, suffix, place, change):
    packed = bytearray(PACK[suffix](TEXT.encode()))
    packed[place % len(packed)] ^= change
    path = tmp_path_factory.getbasetemp() / f"changed.{suffix}"
    path.write_bytes(packed)
    try:
        with open_text(path) as handle:
            assert handle.read() == TEXT  # A flag or the time in the header of gzip.
    except DataError as error:
        assert "changed" in str(error)  # noqa: PT017


@pytest.mark.parametrize(("suffix", "pack"), [("xz", lzma.open), ("bz2", bz2.open)])
def test_bombs_are_refused_in_flat_memory(tmp_path, suffix, pack, monkeypatch):
    monkeypatch.setattr(bounded_streams, "FREE_BYTES", 2**22)
    path = tmp_path / f"bomb.{suffix}"
    zeros(path, 2**26, pack)
    assert path.stat().st_size < 50_000
    tracemalloc.start()
    with open_binary(path) as handle, pytest.raises(DataError, match="more than 1000 times its size"):
        drain(handle)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    with open_text(path) as handle, pytest.raises(DataError, match=r"more than 1000 times|line of more than"):
        handle.readline()


@pytest.mark.slow
def test_a_gigabyte_of_zeros(tmp_path):
    zeros(tmp_path / "bomb.xz", 2**30, lzma.open)
    with open_binary(tmp_path / "bomb.xz") as handle, pytest.raises(DataError, match="more than 1000 times its size"):
        drain(handle)


def test_large_files_are_read_in_flat_memory(tmp_path, monkeypatch):
    """Text that compresses 1:150, as frames do that hardly differ."""
    monkeypatch.setattr(bounded_streams, "FREE_BYTES", 2**23)
    block = "".join(f"{k} 0.123456 {k * k}\n" for k in range(20000)).encode()
    repeats = 80
    with gzip.open(tmp_path / "x.gz", "wb", compresslevel=1) as handle:
        for _ in range(repeats):
            handle.write(block)
    assert len(block) * repeats > 3 * 2**23
    tracemalloc.start()
    with open_text(tmp_path / "x.gz") as handle:
        size = 0
        while piece := handle.read(2**20):
            size += len(piece)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
    assert size == len(block) * repeats


def test_what_is_no_text_is_refused(file, monkeypatch):
    with open_text(file(b"3\nabc\xff\xfe\n", "x.xyz")) as handle, pytest.raises(DataError, match="not a text file"):
        handle.read()
    with open_text(file("é".encode()[:1], "x.xyz")) as handle, pytest.raises(DataError, match="not a text file"):
        handle.read()
    monkeypatch.setattr("mlip.data.formats.bounded_streams.MAX_LINE", 1000)
    with open_text(file(b"x" * 1001, "x.xyz")) as handle, pytest.raises(DataError, match="a line of more than 1000"):
        handle.readline()
    with open_text(file((b"x" * 999 + b"\n") * 5000, "x.xyz")) as handle:
        assert len(handle.read()) == 5_000_000


def test_other_compressions_and_missing_files(file, tmp_path):
    with pytest.raises(DataError, match=r"Zstandard, which is not read. Decompress it: unzstd"):
        open_text(file(b"\x28\xb5\x2f\xfd" + bytes(20), "x.xyz.zst"))
    with pytest.raises(DataError, match="No such file"):
        open_text(tmp_path / "none.xz")
    with pytest.raises(DataError, match="directory"):
        open_text(tmp_path)


def test_inflate():
    packed = zlib.compress(b"abc" * 1000)
    assert inflate(packed, 3000, "row 1") == b"abc" * 1000
    with pytest.raises(DataError, match="row 1 expands to more than 2999 bytes"):
        inflate(packed, 2999, "row 1")
    for length in range(len(packed)):
        with pytest.raises(DataError, match="row 1 is"):
            inflate(packed[:length], 3000, "row 1")
    bomb = zlib.compress(bytes(2**26))
    tracemalloc.start()
    with pytest.raises(DataError, match="expands to more"):
        inflate(bomb, 10**6, "row 1")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_json():
    assert parse_json(b'{"a": [1, null, "\xc3\x85"]}', "x") == {"a": [1, None, "Å"]}
    for text in ("[" * 10**6, '{"a":' * 10**6):
        with pytest.raises(DataError, match="x is nested too deeply"):
            parse_json(text, "x")
    for text in ("", "{", b"\xff", "[1,]", "9" * 5000):
        with pytest.raises(DataError, match="x is not valid JSON"):
            parse_json(text, "x")


def make_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_zip_archives(tmp_path, method):
    path = make_zip(tmp_path / "å.zip", {"folder/": "", "folder/ä.xyz": TEXT, "b.json": "{}"}, method)
    assert [(member.name, member.size) for member in ZipArchive(path).members] == [
        ("folder/ä.xyz", len(TEXT.encode())),
        ("b.json", 2),
    ]
    archive = ZipArchive(path)
    with archive.open_text("folder/ä.xyz") as handle:
        assert handle.read() == TEXT
    archive = pickle.loads(pickle.dumps(archive))
    with archive.open_binary("b.json") as handle:
        assert handle.read() == b"{}"
    with pytest.raises(DataError, match="has no file 'c'"):
        archive.open_text("c")
    archive.close()


def test_damaged_zip_archives(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a": TEXT})
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(DataError, match="truncated or not a zip archive"):
        list(ZipArchive(path).members)
    wrong = bytearray(content)
    wrong[len(content) // 2] ^= 0x55
    path.write_bytes(wrong)
    archive = ZipArchive(path)
    with archive.open_text("a") as handle, pytest.raises(DataError, match=r"damaged|not a text"):
        handle.read()
    archive.close()
    with pytest.raises(DataError, match="No such file"):
        list(ZipArchive(tmp_path / "none.zip").members)


def test_zip_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "FREE_BYTES", 2**20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(2**23))
    (tmp_path / "x.zip").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"'bomb' in .* expands to more than 1000 times"):
        list(ZipArchive(tmp_path / "x.zip").members)
    # Many members that are all the same bytes of the archive.
    make_zip(tmp_path / "y.zip", {"a": TEXT})
    with zipfile.ZipFile(tmp_path / "y.zip", "a") as archive:
        archive.filelist = archive.filelist * 50
        archive._didModify = True
    with pytest.raises(DataError, match="claims to hold"):
        list(ZipArchive(tmp_path / "y.zip").members)
    monkeypatch.setattr(bounded, "FREE_BYTES", 100)
    make_zip(tmp_path / "z.zip", {"a": TEXT})
    assert len(ZipArchive(tmp_path / "z.zip").members) == 1
