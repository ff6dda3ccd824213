"""MPtrj as published: one JSON object of 12 GB, read in pieces."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mlip.core.errors import DataError, did_you_mean
from mlip.core.units import KBAR
from mlip.data.datasets.base import Chunk
from mlip.data.datasets.mptrj_frame import MPtrjFrame, frame_ids
from mlip.data.datasets.mptrj_pieces import Piece, check_ends, next_key, parse, pieces
from mlip.data.formats.bounded import open_binary, without_compression
from mlip.data.formats.json_values import array, plain
from mlip.data.formats.pymatgen_structure import read_structure

CHUNK_BYTES = 1 << 24
"""Bytes of a chunk: about 2000 frames."""

HEAD = 1 << 16
_KEYS = ("structure", "uncorrected_total_energy", "corrected_total_energy", "force", "stress", "magmom")


class MPtrjJson:
    """The JSON file, or a compressed one, which is read in one pass.

    Args:
        path: of the file.

    Raises:
        DataError: no such file, an empty one, no MPtrj JSON, or one whose end is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._compressed = without_compression(path) != path.name
        try:
            self._size = path.stat().st_size
            if not self._compressed:
                with path.open("rb") as stream:
                    head = stream.read(HEAD)
                    stream.seek(max(0, self._size - HEAD))
                    check_ends(head, stream.read(HEAD), str(path))
        except OSError as error:
            raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error

    def chunks(self) -> Iterator[Chunk]:
        """Cut the file about every `CHUNK_BYTES` at a material; a compressed file is one chunk.

        Only a few kilobytes at every cut are read.
        """
        if self._compressed:
            yield Chunk(self.path.name, (0, None), num_bytes=self._size)
            return
        start = 0
        while start < self._size:
            with self._open() as stream:
                cut = next_key(stream, start + CHUNK_BYTES, str(self.path))
            stop = self._size if cut is None else cut
            yield Chunk(f"{self.path.name}:{start}", (start, stop), num_bytes=stop - start)
            start = stop

    def frames(self, chunk: Chunk) -> Iterator[MPtrjFrame | DataError]:
        """Read the frames of a chunk; a material that is damaged gives one error."""
        start, stop = chunk.location
        where = str(self.path)
        with self._open() as stream:
            if start:
                stream.seek(start)
            for piece in pieces(stream, start, stop, where, ends=stop in (None, self._size)):
                yield from _read(piece, where)

    def _open(self) -> BinaryIO:
        if self._compressed:
            return open_binary(self.path)
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(f"Cannot read '{self.path}': {error.strerror or error}.") from error


def _read(piece: Piece, where: str) -> list[MPtrjFrame | DataError]:
    """Return the frames of a piece.

    The collector of cycles would go again and again through the many objects of parsed JSON, which have none: without
    it reading is three times as fast. They are gone when it is switched on again.
    """
    collects = gc.isenabled()
    gc.disable()
    found: list[MPtrjFrame | DataError] = []
    try:
        for members, stated in parse(piece, where):
            _check_members(members, stated, f"'{where}', byte {piece.start}")
            found.extend(_frames(members, where))
    except DataError as error:
        found.append(error)
    finally:
        if collects:
            gc.enable()
    return found


def _check_members(members: dict[str, Any], stated: int, where: str) -> None:
    for mp_id, frames in members.items():
        if not isinstance(frames, dict):
            raise DataError(f"{where}: material '{mp_id}' must be an object of frames, got {type(frames).__name__}.")
    # An object keeps the last of several members with one name: the others would be lost without a word.
    found = sum(map(len, members.values()))
    if stated > found:
        raise DataError(
            f"{where}, from material {next(iter(members), '?')}: {stated} structures have only {found} different "
            "names. Remove the repeated materials or frames."
        )


def _frames(members: dict[str, Any], where: str) -> Iterator[MPtrjFrame | DataError]:
    for mp_id, frames in members.items():
        for frame_id, content in frames.items():
            try:
                yield _frame(content, mp_id, frame_id, f"{where}:{mp_id}/{frame_id}")
            except DataError as error:
                yield error


def _frame(content: Any, mp_id: str, frame_id: str, where: str) -> MPtrjFrame:
    if not isinstance(content, dict):
        raise DataError(f"{where}: a frame must be an object, got {type(content).__name__}.")
    for key in _KEYS:
        if key not in content:
            there = ", ".join(content) or "nothing"
            raise DataError(f"{where} has no '{key}'.{did_you_mean(key, content)} It has: {there}.")
    if content.get("mp_id") not in (None, mp_id):
        raise DataError(f"{where} says that it belongs to the material {content['mp_id']!r:.40}.")
    stress = content["stress"]
    return MPtrjFrame(
        where=where,
        atoms=read_structure(content["structure"], where),
        mp_id=mp_id,
        corrected=content["corrected_total_energy"],
        uncorrected=content["uncorrected_total_energy"],
        energy_per_atom=content.get("energy_per_atom"),
        forces=content["force"],
        # VASP's sign: pressure is positive.
        stress=None if stress is None else array(stress, "stress", (3, 3), where) * -KBAR,
        magmoms=content["magmom"],
        info=frame_ids(frame_id) | plain({"bandgap": content.get("bandgap")}),
    )


def looks_like_json(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an MPtrj JSON."""
    text = head.lstrip()
    return text.startswith((b'{"mp-', b'{"mvc-', b'{ "mp-', b'{ "mvc-')) and b'"structure"' in text[:400]
