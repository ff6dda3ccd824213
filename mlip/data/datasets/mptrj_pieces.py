"""Cut one huge JSON object ``{"mp-1": {...}, "mp-2": {...}, ...}`` at its top-level keys, without parsing it.

A candidate for a cut is ``}}, "mp-1": {``. In JSON a quote that follows a comma is never part of a string's text, so a
candidate is a true key, but perhaps one deeper inside. That cannot pass: every piece is parsed as a run of whole
members of one object, and a piece that begins at the top level and ends deeper has braces without their partners.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from mlip.core.errors import DataError

BLOCK = 1 << 22
"""Bytes read at once."""

LARGEST_PIECE = 1 << 25
"""Bytes of one material above which a file is refused."""

AT_ONCE = 1 << 21
"""Bytes that are parsed at once; their objects take about twelve times as much."""

_KEY = re.compile(rb'\}\s{0,256}\}\s{0,256},\s{0,256}("(?:mp|mvc)-\d{1,12}"\s{0,256}:\s{0,256}\{)')
_FRAME = re.compile(rb'\}\s*,\s*("[^"\\]{1,64}-\d{1,9}-\d{1,9}"\s*:\s*\{)')
_MATERIAL = re.compile(rb'\s*"((?:mp|mvc)-\d{1,12})"\s*:\s*\{')
_LONGEST_KEY = 2048
_CLOSED = re.compile(rb"\}\s*\}\s*\}\s*$")
_EMPTY = re.compile(rb"^\s*\{\s*\}\s*$")


@dataclass(frozen=True)
class Piece:
    """A run of members of the top-level object.

    Attributes:
        start: its first byte in the file.
        text: what it is, with the comma behind it.
        last: whether the object ends with it.
    """

    start: int
    text: bytes
    last: bool


def pieces(stream: BinaryIO, start: int, stop: int | None, where: str, ends: bool) -> Iterator[Piece]:
    """Cut a stream at top-level keys.

    Args:
        stream: at ``start``.
        start: byte that it is at.
        stop: byte to stop at; None reads to the end.
        where: file, for messages.
        ends: whether the object ends where the stream does.

    Raises:
        DataError: a piece is larger than `LARGEST_PIECE`, or the stream cannot be read.
    """
    buffer, searched, position = b"", 0, start
    while True:
        block = _read(stream, BLOCK if stop is None else min(BLOCK, stop - position), where)
        if not block:
            break
        position += len(block)
        buffer += block
        begin = 0
        for match in _KEY.finditer(buffer, max(0, searched - _LONGEST_KEY)):
            yield Piece(start + begin, buffer[begin : match.start(1)], last=False)
            begin = match.start(1)
        searched = len(buffer) - begin
        start, buffer = start + begin, buffer[begin:]
        if len(buffer) > LARGEST_PIECE:
            raise DataError(_too_large(where, start))
    if stop is not None and position < stop:
        raise DataError(f"'{where}' ends at byte {position}, before {stop}: it has changed while it was read.")
    if buffer:
        yield Piece(start, buffer, last=ends)


def next_key(stream: BinaryIO, position: int, where: str) -> int | None:
    """Return the first byte of the next top-level key from a byte on, None if there is none.

    Raises:
        DataError: there is none within `LARGEST_PIECE`, though the file goes on.
    """
    stream.seek(position)
    tail = b""
    first = position
    while block := _read(stream, BLOCK // 16, where):
        text = tail + block
        if match := _KEY.search(text):
            return position - len(tail) + match.start(1)
        position += len(block)
        tail = text[-_LONGEST_KEY:]
        if position - first > LARGEST_PIECE:
            raise DataError(_too_large(where, first))
    return None


def parse(piece: Piece, where: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Parse a piece; a large material comes in several parts, cut at its frames by the same reasoning.

    Yields:
        Members, and how often their text says ``"structure"``.

    Raises:
        DataError: it is not a run of whole members: the file is damaged or truncated, or was cut at a wrong place.
    """
    text = piece.text.strip()
    if piece.start == 0:
        if not text.startswith(b"{"):
            raise DataError(f"'{where}' is not an MPtrj JSON: it must begin with '{{'.")
        text = text[1:]
    text = _without_end(text, b"}" if piece.last else b",", piece, where)
    material = _MATERIAL.match(text)
    if len(text) <= AT_ONCE or material is None:
        yield _loads(text, piece, where), text.count(b'"structure"')
        return
    text = _without_end(text.rstrip(), b"}", piece, where)
    name = material.group(1).decode()
    begin = material.end()
    for match in _FRAME.finditer(text, begin):
        if match.start(1) - begin >= AT_ONCE:
            part = _without_end(text[begin : match.start(1)].rstrip(), b",", piece, where)
            yield {name: _loads(part, piece, where)}, part.count(b'"structure"')
            begin = match.start(1)
    yield {name: _loads(text[begin:], piece, where)}, text.count(b'"structure"', begin)


def _without_end(text: bytes, end: bytes, piece: Piece, where: str) -> bytes:
    if not text.endswith(end):
        raise DataError(_damaged(piece, where, "the end is missing"))
    return text[:-1]


def _loads(members: bytes, piece: Piece, where: str) -> dict[str, Any]:
    try:
        return orjson.loads(b"{" + members + b"}")
    except orjson.JSONDecodeError as error:
        reason = "it holds NaN or Infinity" if b"NaN" in members or b"Infinity" in members else error.msg
        raise DataError(_damaged(piece, where, reason)) from error


def check_ends(head: bytes, tail: bytes, where: str) -> None:
    """Look at the first and last bytes of a file.

    Raises:
        DataError: it is empty, no JSON object, or its end is missing.
    """
    if not head.strip():
        raise DataError(f"'{where}' is empty, an MPtrj JSON was expected.")
    if not head.lstrip().startswith(b"{"):
        raise DataError(f"'{where}' is not an MPtrj JSON: one object {{mp_id: {{frame_id: {{…}}}}}} was expected.")
    if not _CLOSED.search(tail) and not _EMPTY.match(tail):
        raise DataError(f"'{where}' is truncated: it does not end with '}}}}}}'. Copy or download it again.")


def _read(stream: BinaryIO, size: int, where: str) -> bytes:
    try:
        return stream.read(size)
    except OSError as error:
        raise DataError(f"Cannot read '{where}': {error.strerror or error}.") from error


def _too_large(where: str, start: int) -> str:
    return (
        f"'{where}': no material ends within {LARGEST_PIECE >> 20} MB after byte {start}. "
        'Keys "mp-…" or "mvc-…" with an object of frames each were expected.'
    )


def _damaged(piece: Piece, where: str, reason: str) -> str:
    name = piece.text.lstrip(b" \t\r\n{").split(b":", 1)[0].strip()[:40].decode("utf-8", "replace")
    return (
        f"'{where}', bytes {piece.start} to {piece.start + len(piece.text)}, from material {name}: not valid JSON "
        f"({reason}). The file is damaged; copy or download it again."
    )
