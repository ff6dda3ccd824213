"""Open files that may be compressed without trusting what they claim: streams of flat memory, with limits.

A few kilobytes of xz can be a gigabyte of zeros. What is read here is never held whole, and a file that expands as
data do not is refused.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from mlip.core.errors import DataError
from mlip.data.formats.bounded_streams import FORMATS, FREE_BYTES, MAX_RATIO, CheckedText, Decompressed, Source

_BUFFER = 2**18
_ZSTD = (b"\x28\xb5\x2f\xfd", ".zst")


def open_binary(path: str | PathLike[str]) -> BinaryIO:
    """Open a file for reading its content, decompressed where it is xz, gzip or bzip2.

    The first bytes say what it is; a name that claims otherwise (``.xz``) is refused.

    Raises:
        DataError: no such file, or of an unknown compression. When it is read: the compressed data are truncated,
            damaged, or expand more than `MAX_RATIO` times once above `FREE_BYTES`.
    """
    return cast(BinaryIO, io.BufferedReader(_content(Path(path)), _BUFFER))


def open_text(path: str | PathLike[str]) -> TextIO:
    """Open a text file (UTF-8), decompressed where it is xz, gzip or bzip2; see `open_binary`.

    Raises:
        DataError: as `open_binary`. When it is read: it is no text, or has a line of more than `MAX_LINE` bytes.
    """
    return _text(_content(Path(path)), f"'{path}'")


def without_compression(path: str | PathLike[str]) -> str:
    """Return a file's name without ``.xz``, ``.gz`` and the like: ``0.extxyz`` of ``folder/0.extxyz.xz``."""
    name = Path(path).name
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix in (*FORMATS, "zst") else name


def inflate(data: bytes, limit: int, where: str) -> bytes:
    """Return what a piece of zlib data holds, at most ``limit`` bytes.

    Raises:
        DataError: it holds more, or is damaged.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise DataError(f"{where} is damaged ({error}). Copy or download the file again.") from error
    if len(content) > limit:
        raise DataError(f"{where} expands to more than {limit} bytes, as no data do: it is refused.")
    if not stream.eof:
        raise DataError(f"{where} is truncated: its compressed data have no end. Copy or download the file again.")
    return content


def parse_json(data: bytes | str, where: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        DataError: it is no JSON, or is nested more deeply than data are.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply, as no data are: it is refused.") from error
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON ({error}).") from error


@dataclass(frozen=True)
class Member:
    """A file in a zip archive.

    Attributes:
        name: with its folders.
        size: bytes of the content.
        packed: bytes in the archive.
    """

    name: str
    size: int
    packed: int


class ZipArchive:
    """The files of a zip archive, read as streams; nothing is unpacked to disk.

    Opened when it is first read, in every process for itself; pickles as its path.

    Args:
        path: of the archive.

    Raises (when it is first read):
        DataError: no such file, no zip archive, a truncated one, or one that claims to hold more than it can.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    @cached_property
    def members(self) -> list[Member]:
        """Files in the archive, in its order."""
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        size = self.path.stat().st_size
        packed = sum(info.compress_size for info in infos)
        if packed > size:
            raise DataError(f"'{self.path}' claims to hold {packed} bytes in {size}: it is refused.")
        for info in infos:
            if info.file_size > FREE_BYTES and info.file_size > MAX_RATIO * info.compress_size:
                raise DataError(
                    f"'{info.filename}' in '{self.path}' expands to more than {MAX_RATIO} times its size, as no data "
                    "do: it is refused."
                )
        return [Member(info.filename, info.file_size, info.compress_size) for info in infos]

    def open_binary(self, name: str) -> BinaryIO:
        """Open a file of the archive.

        Raises:
            DataError: no such file. When it is read: damaged data.
        """
        return cast(BinaryIO, io.BufferedReader(self._content(name), _BUFFER))

    def open_text(self, name: str) -> TextIO:
        """Open a text file of the archive (UTF-8), see `open_text`."""
        return _text(self._content(name), f"'{name}' in '{self.path}'")

    def _content(self, name: str) -> io.RawIOBase:
        _ = self.members  # The limits are checked there.
        where = f"'{name}' in '{self.path}'"
        try:
            return _ZipContent(self._archive.open(name), where)
        except KeyError as error:
            raise DataError(f"'{self.path}' has no file '{name}'.") from error
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
            raise DataError(f"{where} cannot be read ({error}).") from error

    def close(self) -> None:
        """Close the archive; it opens again when it is read."""
        _, archive = self.__dict__.pop("_opened", (0, None))
        if archive is not None:
            archive.close()

    @property
    def _archive(self) -> zipfile.ZipFile:
        known = self.__dict__.get("_opened")
        if known is not None and known[0] == os.getpid():
            return known[1]
        try:
            archive = zipfile.ZipFile(self.path)
        except OSError as error:
            raise DataError(f"Cannot read '{self.path}': {error.strerror or error}.") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise DataError(f"'{self.path}' is truncated or not a zip archive ({error}).") from error
        # A process that was forked shares the position in the file with its parent.
        self.__dict__["_opened"] = (os.getpid(), archive)
        return archive


class _ZipContent(io.RawIOBase):
    """A file in a zip archive; what is wrong is a `DataError`. Its checksum is compared at the end."""

    def __init__(self, source: Any, where: str) -> None:
        self._source = source
        self._where = where

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._source.read(len(view))
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
            raise DataError(f"{self._where} is damaged ({error}). Copy or download the archive again.") from error
        view[: len(data)] = data
        return len(data)


def _content(path: Path) -> io.RawIOBase:
    """Return the raw content of a file."""
    try:
        source = path.open("rb")
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    try:
        head = source.peek(6)
        if head.startswith(_ZSTD[0]) or path.name.endswith(_ZSTD[1]):
            raise DataError(
                f"'{path}' is compressed with Zstandard, which is not read. Decompress it: unzstd '{path}'."
            )
        for suffix, (magic, make) in FORMATS.items():
            if head.startswith(magic):
                return Decompressed(cast(Source, source), f"'{path}'", make)
            if path.name.endswith(f".{suffix}"):
                raise DataError(f"'{path}' is not a {suffix} file (it begins with {head[:6]!r}), or is empty.")
    except OSError as error:
        source.close()
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except DataError:
        source.close()
        raise
    source.close()
    return path.open("rb", buffering=0)


def _text(content: io.RawIOBase, where: str) -> TextIO:
    checked = CheckedText(cast(Source, io.BufferedReader(content, _BUFFER)), where)
    return io.TextIOWrapper(io.BufferedReader(checked, _BUFFER), encoding="utf-8", newline=None)
