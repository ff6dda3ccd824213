"""MPtrj as extxyz: a zip or a folder with a file for every material, or frames of many materials in one file."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ase import Atoms

from mlip.core.errors import DataError
from mlip.data.datasets.base import Chunk
from mlip.data.datasets.mptrj_frame import MPtrjFrame, frame_ids
from mlip.data.formats.bounded import ZipArchive, open_binary, without_compression
from mlip.data.formats.extxyz_frames import frames_from
from mlip.data.formats.extxyz_lines import sections
from mlip.data.formats.frame import Frame
from mlip.data.formats.json_values import plain
from mlip.data.label_units import LabelUnits

CHUNK_BYTES = 1 << 23
"""Bytes of text of a chunk: about 2000 frames."""

_SUFFIXES = (".extxyz", ".xyz")
_MATERIAL = re.compile(r"(?:mp|mvc)-\d+")
_MATERIAL_KEYS = ("material_id", "mp_id", "mptrj_traj_id")
_CORRECTED_KEYS = ("mp2020_corrected_energy", "corrected_total_energy")


class Members(Protocol):
    """Files with a name and a size."""

    path: Path

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file by name, in a fixed order."""

    def open(self, name: str) -> BinaryIO:
        """Open one."""


class ZipMembers:
    """The extxyz files of a zip archive, in its order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = ZipArchive(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_archive": self._archive}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file by name."""
        found = {member.name: member.size for member in self._archive.members if _is_extxyz(member.name)}
        if len(found) < sum(_is_extxyz(member.name) for member in self._archive.members):
            raise DataError(f"'{self.path}' holds several files of one name. Make it anew.")
        return found

    def open(self, name: str) -> BinaryIO:
        """Open one."""
        return self._archive.open_binary(name)


class FolderMembers:
    """The extxyz files of a folder, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file by name."""
        try:
            with os.scandir(self.path) as entries:
                found = {entry.name: entry.stat().st_size for entry in entries if _is_extxyz(entry.name)}
        except OSError as error:
            raise DataError(f"Cannot read '{self.path}': {error.strerror or error}.") from error
        return {name: found[name] for name in sorted(found)}

    def open(self, name: str) -> BinaryIO:
        """Open one."""
        return open_binary(self.path / name)


class MPtrjMembers:
    """Frames of a zip or a folder of extxyz files; a chunk is a run of files.

    Args:
        members: the files.

    Raises:
        DataError: none of the files is extxyz; raised when they are first listed.
    """

    def __init__(self, members: Members) -> None:
        self._members = members

    def chunks(self) -> Iterator[Chunk]:
        """Group files, in order, to about `CHUNK_BYTES`."""
        sizes = self._members.sizes
        if not sizes:
            raise DataError(f"'{self._members.path}' holds no .extxyz files.")
        names: list[str] = []
        total = 0
        for name, size in sizes.items():
            if names and total + size > CHUNK_BYTES:
                yield Chunk(names[0], tuple(names), num_bytes=total)
                names, total = [], 0
            names.append(name)
            total += size
        yield Chunk(names[0], tuple(names), num_bytes=total)

    def frames(self, chunk: Chunk) -> Iterator[MPtrjFrame | DataError]:
        """Read the frames of a chunk; a file that is damaged gives one error after its good frames."""
        for name in chunk.location:
            file = f"{self._members.path}/{name}"
            try:
                with self._members.open(name) as stream:
                    # Read to the end first: there the archive's checksum is compared.
                    text = io.BytesIO(stream.read())
                yield from _frames(text, file, 0, Path(name).name)
            except DataError as error:
                yield error


class MPtrjXyz:
    """Frames of one extxyz file, each of which names its material.

    Args:
        path: of the file; compressed is read as one chunk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def chunks(self) -> Iterator[Chunk]:
        """Cut the file at frames."""
        if without_compression(self.path) != self.path.name:
            yield Chunk(self.path.name, None, num_bytes=self.path.stat().st_size)
            return
        for part in sections(self.path):
            size = part.stop - part.start
            yield Chunk(f"{self.path.name}:{part.first}", (part.first, part.start, size), part.count, size)

    def frames(self, chunk: Chunk) -> Iterator[MPtrjFrame | DataError]:
        """Read the frames of a chunk."""
        with open_binary(self.path) as stream:
            if chunk.location is None:
                yield from _frames(stream, str(self.path), 0, "")
                return
            first, start, size = chunk.location
            stream.seek(start)
            text = stream.read(size)
            if len(text) < size:
                raise DataError(f"'{self.path}' has become shorter while it was read.")
            yield from _frames(io.BytesIO(text), str(self.path), first, "")


def _frames(stream: BinaryIO, where: str, first: int, name: str) -> Iterator[MPtrjFrame | DataError]:
    number = first
    for number, item in enumerate(frames_from(stream, where, first), start=first):
        if isinstance(item, DataError):
            yield item
            continue
        try:
            yield _frame(item, f"{where}:{number}", name)
        except DataError as error:
            yield error


def _frame(frame: Frame, where: str, name: str) -> MPtrjFrame:
    """Return a frame with the names that the two kinds of files use."""
    LabelUnits().check_hints(frame.info, where)
    named = _MATERIAL.match(name)
    mp_id = next((str(frame.info[key]) for key in _MATERIAL_KEYS if key in frame.info), named and named.group())
    if mp_id is None:
        raise DataError(f"{where} does not name its material: one of {', '.join(_MATERIAL_KEYS)} is needed.")
    if named and named.group() != mp_id:
        raise DataError(f"{where} says that it belongs to the material {mp_id}, the file is {name}.")
    ids = {key: frame.info[key] for key in ("task_id", "calc_id", "ionic_step", "bandgap") if key in frame.info}
    results = frame.results
    return MPtrjFrame(
        where=where,
        atoms=Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc),
        mp_id=mp_id,
        corrected=next((frame.info[key] for key in _CORRECTED_KEYS if key in frame.info), None),
        uncorrected=results.get("energy"),
        energy_per_atom=frame.info.get("energy_per_atom"),
        forces=results.get("forces"),
        stress=results.get("stress"),
        magmoms=results.get("magmoms"),
        info=frame_ids(str(frame.info.get("mptrj_snapshot_id", ""))) | plain(ids),
    )


def _is_extxyz(name: str) -> bool:
    return Path(name).name.endswith(_SUFFIXES) and not Path(name).name.startswith((".", "_"))
