"""Streams that decompress with limits, and streams of checked text."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mlip.core.errors import DataError

MAX_RATIO = 1000
"""Expansion above which a file is a bomb: text of structures compresses 3 to 15 times, gzip can do at most 1032."""
FREE_BYTES = 64 * 2**20
"""So much may always come out: it fits into memory, and a short file of one repeated frame compresses well."""
MAX_LINE = 64 * 2**20
"""Bytes of a line of text; a line is held in memory, and those of structures have some kilobytes."""
MAX_DICTIONARY = 2**30
"""Bytes that decompressing xz may hold; ``xz -9`` needs 65 MB."""
_PIECE = 2**18


class Source(Protocol):
    """What bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return some bytes, none at the end."""

    def close(self) -> None:
        """Close it."""


class _Inflate:
    """Makes zlib's decompressor behave as those of bz2 and lzma: input that is left over is kept."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._left = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._left

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        found = self._inner.decompress(self._left + data, max_length)
        self._left = self._inner.unconsumed_tail
        return found


FORMATS: Mapping[str, tuple[bytes, Callable[[], Any]]] = {
    "xz": (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY)),
    "gz": (b"\x1f\x8b", _Inflate),
    "bz2": (b"BZh", bz2.BZ2Decompressor),
}
"""First bytes, and what makes a decompressor, by suffix."""
_DAMAGE = (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError)


class Decompressed(io.RawIOBase):
    """The content of a compressed file, read in pieces.

    Args:
        source: the compressed bytes; closed with this.
        where: names the file in messages.
        make: makes a decompressor.

    Raises (when it is read):
        DataError: the file is truncated, damaged, or expands as data do not.
    """

    def __init__(self, source: Source, where: str, make: Callable[[], Any]) -> None:
        self._source = source
        self._where = where
        self._make = make
        self._stream = make()
        self._rest = b""
        self._taken = 0
        self._given = 0
        self._whole = False

    def readable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Close this and the source."""
        self._source.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; 0 at the end."""
        view = memoryview(buffer).cast("B")
        piece = b""
        while not piece and not self._whole and len(view):
            piece = self._next(len(view))
        view[: len(piece)] = piece
        self._given += len(piece)
        if self._given > FREE_BYTES and self._given > MAX_RATIO * self._taken:
            raise DataError(
                f"{self._where} expands to more than {MAX_RATIO} times its size, as no data do: it is refused."
            )
        return len(piece)

    def _next(self, size: int) -> bytes:
        """Return some bytes; none at the end of a stream or of the file."""
        if self._stream.eof:
            self._begin_next()
            return b""
        data = self._rest
        self._rest = b""
        if not data and getattr(self._stream, "needs_input", True):
            data = self._source.read(_PIECE)
            self._taken += len(data)
            if not data:
                raise DataError(f"{self._where} is truncated: its compressed data have no end. Copy it again.")
        try:
            return bytes(self._stream.decompress(data, size))
        except _DAMAGE as error:
            raise DataError(f"{self._where} is damaged ({error}). Copy or download it again.") from error

    def _begin_next(self) -> None:
        """Go on behind a stream: parallel compressors write several in a row, with zeros between them."""
        rest = self._stream.unused_data
        while True:
            rest = rest.lstrip(b"\0")
            if len(rest) >= 6:
                break
            more = self._source.read(_PIECE)
            self._taken += len(more)
            if not more:
                break
            rest += more
        if not rest:
            self._whole = True
            return
        self._stream = self._make()
        self._rest = rest


class CheckedText(io.RawIOBase):
    """Bytes that are text: UTF-8, in lines of bounded length.

    Args:
        source: the bytes; closed with this.
        where: names the file in messages.

    Raises (when it is read):
        DataError: it is no text.
    """

    def __init__(self, source: Source, where: str) -> None:
        self._source = source
        self._where = where
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._in_line = 0

    def readable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Close this and the source."""
        self._source.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise DataError(f"{self._where} is not a text file, text in UTF-8 was expected.") from error
        last = data.rfind(b"\n")
        self._in_line = self._in_line + len(data) if last < 0 else len(data) - 1 - last
        if self._in_line > MAX_LINE:
            raise DataError(f"{self._where} has a line of more than {MAX_LINE} bytes: it is no text of structures.")
        view[: len(data)] = data
        return len(data)
