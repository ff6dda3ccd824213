"""Lines of extxyz files: where frames begin and end, looked at before anything is parsed.

ASE's reader stops without a word at the first blank line, and a number cut in the middle is still a number; so
the layout of a file is checked line by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mlip.core.errors import DataError

BLOCK = 1 << 20
"""Bytes read at once."""

LONGEST_LINE = 1 << 26
"""Bytes; a text with longer lines is no extxyz file."""

MOST_ATOMS = 5 * 10**6
"""Atoms of a frame above which its first line is taken for damaged."""

CHUNK_FRAMES = 2048
CHUNK_BYTES = 1 << 26
"""A chunk ends with the first frame that reaches either."""


@dataclass(frozen=True)
class Section:
    """Consecutive frames of a file: ``count`` from number ``first``, in the bytes ``start`` to ``stop``."""

    first: int
    count: int
    start: int
    stop: int


class Lines:
    """Lines of a binary stream without their ends, decoded block by block.

    Args:
        stream: UTF-8 text with ends of lines ``\\n`` or ``\\r\\n``.
        where: name of the file, for messages.
    """

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream = stream
        self._where = where
        self._lines: list[str] = []
        self._next = 0
        self._rest = b""
        self._ended = False
        self.unterminated = False
        """Whether the last line of the stream has been read and has no end."""

    def take(self, number: int) -> list[str]:
        """Return the next lines; fewer where the stream ends.

        Raises:
            DataError: the stream is no text, or cannot be read.
        """
        while len(self._lines) - self._next < number and not self._ended:
            self._fill()
        first = self._next
        self._next = min(first + number, len(self._lines))
        return self._lines[first : self._next]

    def _fill(self) -> None:
        try:
            block = self._stream.read(BLOCK)
        except OSError as error:
            raise DataError(f"Cannot read '{self._where}': {error.strerror or error}.") from error
        self._ended = not block
        text = self._rest + block
        whole = len(text) if self._ended else text.rfind(b"\n") + 1
        text, self._rest = text[:whole], text[whole:]
        if len(self._rest) > LONGEST_LINE:
            raise DataError(_too_long(self._where))
        if not text:
            return
        self.unterminated = not text.endswith(b"\n")
        try:
            decoded = text.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise DataError(f"'{self._where}' is not a text file, an extxyz file was expected.") from error
        if "\r" in decoded:
            raise DataError(_lone_return(self._where))
        lines = decoded.split("\n")
        self._lines = self._lines[self._next :] + (lines if self.unterminated else lines[:-1])
        self._next = 0


def raw_frames(stream: BinaryIO, where: str, first: int = 0) -> Iterator[tuple[int, str, list[str]]]:
    """Cut a stream into frames without parsing them.

    Args:
        stream: from the beginning of a frame.
        where: name of the file, for messages.
        first: number of the first frame, for messages.

    Yields:
        Number of the frame, its comment line, and the lines of its atoms.

    Raises:
        DataError: the stream is truncated or no extxyz.
    """
    lines = Lines(stream, where)
    number = first
    while header := lines.take(1):
        if not header[0].strip():
            while rest := lines.take(10_000):
                if any(map(str.strip, rest)):
                    raise DataError(_after_blank(where, number))
            return
        num_atoms = parse_header(header[0], where, number)
        comment = lines.take(1)
        if not comment:
            raise DataError(_no_comment(where, number))
        rows = lines.take(num_atoms)
        if len(rows) < num_atoms or not all(map(str.strip, rows)):
            there = next((k for k, row in enumerate(rows) if not row.strip()), len(rows))
            raise DataError(_truncated(where, number, there, num_atoms))
        if lines.unterminated and not lines.take(1):
            raise DataError(_no_end(where, number))
        yield number, comment[0], rows
        number += 1


def sections(path: Path) -> Iterator[Section]:
    """Cut a file at frames into sections of `CHUNK_FRAMES` or `CHUNK_BYTES`, without decoding or parsing it.

    Raises:
        DataError: the file cannot be read, is truncated, or no extxyz; what comes before has been handed out.
    """
    where = str(path)
    first = number = start = stop = 0
    try:
        with path.open("rb", buffering=BLOCK) as stream:
            for header in iter(partial(_line, stream, where), b""):
                if not header.strip():
                    if any(map(bytes.strip, stream)):
                        raise DataError(_after_blank(where, number))
                    break
                stop += len(header) + _skip_frame(stream, header, where, number)
                number += 1
                if number - first >= CHUNK_FRAMES or stop - start >= CHUNK_BYTES:
                    yield Section(first, number - first, start, stop)
                    first, start = number, stop
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    if number > first:
        yield Section(first, number - first, start, stop)
    if number == 0:
        raise DataError(empty(where))


def _line(stream: BinaryIO, where: str) -> bytes:
    """Read a line; a file without line ends is no reason to hold all of it."""
    line = stream.readline(LONGEST_LINE)
    if len(line) == LONGEST_LINE:
        raise DataError(_too_long(where))
    return line


def _skip_frame(stream: BinaryIO, header: bytes, where: str, number: int) -> int:
    """Read past the comment and the atoms of a frame; return their bytes."""
    num_atoms = parse_header(header, where, number)
    size = len(_line(stream, where))
    if not size:
        raise DataError(_no_comment(where, number))
    rows = list(islice(stream, num_atoms))
    if len(rows) < num_atoms or not all(map(bytes.strip, rows)):
        there = next((k for k, row in enumerate(rows) if not row.strip()), len(rows))
        raise DataError(_truncated(where, number, there, num_atoms))
    if not rows[-1].endswith(b"\n"):
        raise DataError(_no_end(where, number))
    return size + sum(map(len, rows))


def parse_header(header: str | bytes, where: str, number: int) -> int:
    """Return the number of atoms that the first line of a frame states.

    Raises:
        DataError: it states none, or no sensible one.
    """
    try:
        num_atoms = int(header)
    except ValueError as error:
        try:
            text = header.decode("utf-8") if isinstance(header, bytes) else header
        except UnicodeDecodeError:
            raise DataError(f"'{where}' is not a text file, an extxyz file was expected.") from error
        if "\r" in text.strip():
            raise DataError(_lone_return(where)) from error
        raise DataError(
            f"'{where}' is not an extxyz file: frame {number} must begin with the number of atoms, "
            f"got {text.strip()[:40]!r}."
        ) from error
    if not 1 <= num_atoms <= MOST_ATOMS:
        least = "at least one atom" if num_atoms < 1 else f"at most {MOST_ATOMS} atoms"
        raise DataError(f"{where}:{number} must have {least}, got {num_atoms}.")
    return num_atoms


def empty(where: str) -> str:
    """Say that a file holds no frame."""
    return f"'{where}' is empty, an extxyz file with at least one frame was expected."


def _too_long(where: str) -> str:
    return f"'{where}' is not an extxyz file: it has a line of more than {LONGEST_LINE} bytes."


def _lone_return(where: str) -> str:
    return f"'{where}' has carriage returns without line feeds. Convert it to usual line ends."


def _after_blank(where: str, number: int) -> str:
    return f"{where}: there are more lines after a blank line where frame {number} should begin. Remove the blank line."


def _no_comment(where: str, number: int) -> str:
    return f"'{where}' is truncated: frame {number} has no comment line."


def _truncated(where: str, number: int, there: int, num_atoms: int) -> str:
    return f"'{where}' is truncated: frame {number} has {there} of {num_atoms} atoms."


def _no_end(where: str, number: int) -> str:
    # Half a number is a number: 0.1234 cut to 0.12 would be read without complaint.
    return (
        f"'{where}' may be truncated: the last line of frame {number} has no line end. If the file is whole, add one."
    )


def looks_like_extxyz(path: Path, by_name: bool) -> bool:
    """Whether the first lines of a file are those of a frame; with a name that says so, the first one is enough."""
    try:
        with path.open("rb") as stream:
            lines = [stream.readline(1 << 16) for _ in range(3)]
        parse_header(lines[0], str(path), 0)
        atom = lines[2].split()
        return by_name or (len(atom) >= 4 and bool([float(word) for word in atom[1:4]]))
    except (OSError, ValueError, DataError):
        return False
