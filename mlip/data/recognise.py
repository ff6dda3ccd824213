"""Which data set class can read a file: every class is asked, the surest answer counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from os.path import exists
from pathlib import Path

from mlip.core.errors import DataError, did_you_mean
from mlip.data.datasets.base import Dataset, Recognition

MAGIC = (
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x03\x04", "a zip archive (or numpy .npz)"),
    (b"\xfd7zXZ\x00", "xz-compressed"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"BZh", "bzip2-compressed"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"\x93NUMPY", "a numpy array"),
    (b"- of Ulm", "an ASE trajectory"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"<?xml", "an XML file"),
)
LMDB_MAGIC = b"\xde\xc0\xef\xbe"
HEAD = 512
"""Bytes of a file that are looked at to describe it."""


@dataclass(frozen=True)
class Match:
    """A data set that can read a path.

    Attributes:
        name: of the configuration.
        recognition: what its class said.
    """

    name: str
    recognition: Recognition


def recognise(path: str | Path, classes: Mapping[str, type[Dataset]]) -> list[Match]:
    """Ask every class whether a path is its own.

    Args:
        path: a file, a folder or a glob pattern, whose first match is looked at.
        classes: data set class by name of the configuration.

    Returns:
        The surest answers; several if they are equally sure, none if nobody knows the path.

    Raises:
        DataError: nothing is there.
    """
    place = first_match(path)
    matches = []
    for name, kind in classes.items():
        try:
            answer = kind.recognise(place)
        except (DataError, OSError, ValueError):
            # A damaged file is for the reader to describe.
            continue
        if answer is not None:
            matches.append(Match(name, answer))
    best = max((match.recognition.certainty for match in matches), default=0)
    return [match for match in matches if match.recognition.certainty == best]


def first_match(path: str | Path) -> Path:
    """Return a path, or the first match of a pattern.

    Raises:
        DataError: nothing is there; names what is near.
    """
    place = Path(path).expanduser()
    # Unlike `Path.exists` this raises nothing for names that no file can have.
    if exists(place):
        return place
    found = sorted(glob(str(place), recursive=True))
    if found:
        return Path(found[0])
    names = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
    raise DataError(f"There is no file or folder '{path}'.{did_you_mean(place.name, names)}")


def describe_file(path: Path) -> str:
    """Say in a few words what a file or folder looks like, by its first bytes."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        suffixes = sorted({Path(name).suffix for name in names if Path(name).suffix})
        kinds = f" ({', '.join(suffixes[:5])})" if suffixes else ""
        entries = "1 entry" if len(names) == 1 else f"{len(names)} entries"
        return f"a folder of {entries}{kinds}" if names else "an empty folder"
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror or error})"
    if not head:
        return "an empty file"
    for magic, words in MAGIC:
        if head.startswith(magic):
            return words
    if LMDB_MAGIC in head[:32]:
        return "an LMDB database"
    try:
        # A character may be cut at the end of what was read.
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        return "a binary file of an unknown kind"
    if any(ord(character) < 9 for character in text):
        return "a binary file of an unknown kind"
    first = text.lstrip("\ufeff \t\r\n")[:1]
    if first in ("{", "["):
        return "a JSON file"
    line = text.strip().splitlines()[0][:40] if text.strip() else ""
    return f"a text file that begins with {line!r}"
