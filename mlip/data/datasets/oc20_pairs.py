"""OC20 as downloaded: ``k.extxyz.xz`` with ``k.txt.xz``, or a trajectory per system with one ``system.txt``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlip.core.errors import DataError
from mlip.data.datasets.base import Chunk
from mlip.data.datasets.oc20_record import Layout, Record, finite, system_number, whole
from mlip.data.datasets.oc20_references import SidecarLine, read_references, read_sidecar
from mlip.data.formats.bounded import open_binary, without_compression
from mlip.data.formats.extxyz_frames import frames_from
from mlip.data.formats.extxyz_lines import raw_frames
from mlip.data.formats.frame import Frame

SYSTEM_TABLE = "system.txt"
LARGEST_KEPT = 2**27
"""Bytes of text of a file that is kept in memory between counting and reading; OC20's have about 5e7."""
_TRAJECTORY = re.compile(r"random\d+")


class Pairs(Layout):
    """Extxyz files of S2EF frames, each with a table of the systems that they belong to.

    Args:
        files: the extxyz files.

    Raises:
        DataError: a table is missing.
    """

    words = "S2EF frames in extxyz files"
    random_access = False

    def __init__(self, files: list[Path]) -> None:
        self.files = sorted(files, key=_order)
        self._tables = {file: _table_of(file) for file in self.files}

    def first(self) -> Record:
        """Return the first record."""
        for record in self._read(self.files[0], check=False):
            if isinstance(record, DataError):
                raise record
            return record
        raise DataError(f"'{self.files[0]}' is empty.")

    def chunks(self) -> Iterator[Chunk]:
        """One chunk a file."""
        for number, file in enumerate(self.files):
            yield Chunk(f"{number}:{file.name}", number, None, max(file.stat().st_size, 1))

    def records(self, chunk: Chunk) -> Iterator[Record | DataError]:
        """Read the frames of a file."""
        return self._read(self.files[chunk.location], check=True)

    def _read(self, file: Path, check: bool) -> Iterator[Record | DataError]:
        """Read a file; ``check`` counts its frames first: with a line too few, others would be mixed up."""
        table = self._tables[file]
        lines: list[SidecarLine] | None = None
        if table is not None and table.name != _same_suffix(SYSTEM_TABLE, table):
            lines = read_sidecar(table)
        system = None if lines is not None else system_number(_stem(file), f"'{file}'")
        reference = None if system is None else self._reference(file, table, system)
        counted = check and lines is not None
        with _counted(file, table, len(lines or ())) if counted else open_binary(file) as stream:
            for number, frame in enumerate(frames_from(stream, str(file))):
                if isinstance(frame, DataError):
                    yield frame
                    continue
                if lines is not None and number >= len(lines):
                    raise DataError(f"'{table}' has {len(lines)} lines, but '{file}' has more frames.")
                line = lines[number] if lines is not None else SidecarLine(system or 0, number, reference)
                try:
                    yield _record(frame, line, f"{file}:{number}")
                except DataError as error:
                    yield error

    def _reference(self, file: Path, table: Path | None, system: int) -> float | None:
        if table is None:
            return None
        if system not in self._systems[table]:
            raise DataError(f"'{table}' has no line of {_stem(file)}, whose trajectory '{file}' is.")
        return self._systems[table][system]

    @cached_property
    def _systems(self) -> dict[Path, dict[int, float]]:
        """Reference energies by system, of every ``system.txt``."""
        tables = {table for table in self._tables.values() if table is not None}
        return {table: read_references(table) for table in tables if table.name == _same_suffix(SYSTEM_TABLE, table)}


def is_frames(path: Path) -> bool:
    """Whether a file is one of frames by its name."""
    return without_compression(path).endswith((".extxyz", ".xyz"))


def find_table(file: Path) -> Path | None:
    """Return the table that belongs to a file of frames, None if there is none."""
    for name in (f"{_stem(file)}.txt", SYSTEM_TABLE):
        for suffix in ("", ".xz", ".gz", ".bz2"):
            table = file.with_name(name + suffix)
            if table.is_file():
                return table
    return None


def _table_of(file: Path) -> Path | None:
    table = find_table(file)
    if table is None and not _TRAJECTORY.fullmatch(_stem(file)):
        raise DataError(
            f"'{file}' lacks its table '{_stem(file)}.txt' (or .txt.xz), which says which system each frame belongs to "
            "and its reference energy. Copy it next to the file; both are in the same archive."
        )
    return table


def _stem(file: Path) -> str:
    return without_compression(file).rpartition(".")[0]


def _order(file: Path) -> tuple[str, int, str]:
    """Sort 2 before 10."""
    stem = _stem(file)
    return (str(file.parent), int(stem) if stem.isdecimal() else 0, stem)


def _same_suffix(name: str, table: Path) -> str:
    """Return a name with the compression that a table has."""
    return name + table.name[len(without_compression(table)) :]


def _counted(file: Path, table: Path | None, lines: int) -> BinaryIO:
    """Open a file of frames after these were counted; it is decompressed once where it is not too large."""
    with open_binary(file) as stream:
        content = stream.read(LARGEST_KEPT + 1)
    if len(content) <= LARGEST_KEPT:
        _check_count(BytesIO(content), file, table, lines)
        return BytesIO(content)
    del content
    with open_binary(file) as stream:
        _check_count(stream, file, table, lines)
    return open_binary(file)


def _check_count(stream: BinaryIO, file: Path, table: Path | None, number: int) -> None:
    frames = sum(1 for _ in raw_frames(stream, str(file)))
    if frames != number:
        raise DataError(
            f"'{table}' has {number} lines, but '{file}' has {frames} frames: they do not belong together, or one is "
            "truncated. Copy both again."
        )


def _record(frame: Frame, line: SidecarLine, source: str) -> Record:
    number = len(frame.numbers)
    energy, forces = frame.results.get("energy"), frame.results.get("forces")
    tags = frame.arrays.get("tags")
    for key, value, stated in (("sid", line.system, "system"), ("fid", line.frame, "frame")):
        inside = frame.info.get(key)
        if inside is not None and str(inside).removeprefix("random").removeprefix("frame") != str(value):
            raise DataError(f"{source}: its {key} is {inside}, but the table says {stated} {value}.")
    return Record(
        source,
        frame.numbers.astype(np.int64),
        frame.positions,
        frame.cell,
        frame.pbc,
        line.system,
        line.frame,
        energy=None if energy is None else float(finite(energy, (), "the energy", source)),
        stored="total",
        reference=line.reference,
        forces=None if forces is None else finite(forces, (number, 3), "the forces", source),
        tags=None if tags is None else whole(tags, (number,), "the tags", source),
        fixed=frame.fixed,
    )
