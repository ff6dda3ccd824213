"""``metadata.npz`` beside `.aselmdb` files: the size of every row and, in OMol25, its domain."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from mlip.core.errors import DataError
from mlip.data.formats.ase_rows import AseRows
from mlip.data.formats.bounded import ZipArchive
from mlip.data.formats.safe_pickle import loads

log = logging.getLogger(__name__)

FILE_NAME = "metadata.npz"
LARGEST_ITEM = 4096
"""Bytes of one row in the file; larger ones are no sizes or names."""
LARGEST_PICKLE = 2**26
"""Bytes of names as Python objects, some 30 million of them; reading more would take minutes in every process."""

_BLOCK = 2**18


class FolderMetadata:
    """The arrays of one file, read when first asked for.

    Args:
        path: of the file.
        num_rows: that the databases of the folder have together.

    Raises:
        DataError: the file is damaged, or has another number of rows.
    """

    def __init__(self, path: Path, num_rows: int) -> None:
        self.path = path
        self.num_rows = num_rows
        self._archive = ZipArchive(path)
        sizes = {member.name.removesuffix(".npy"): member.size for member in self._archive.members}
        if "natoms" not in sizes:
            raise DataError(f"'{path}' has no array 'natoms', it has: {', '.join(sizes) or 'nothing'}.")
        with self._array("natoms"):
            pass  # Its header is checked.
        self._has_domains = "data_ids" in sizes and self._can_name_domains(sizes["data_ids"])
        self._natoms: np.ndarray | None = None
        self._domains: tuple[np.ndarray, list[str]] | None = None

    def natoms(self) -> np.ndarray:
        """Return (rows,) int32 atoms."""
        if self._natoms is None:
            with self._array("natoms") as (handle, dtype):
                if dtype.kind not in "iu":
                    raise DataError(f"'{self.path}': natoms must be integers, got {dtype}.")
                blocks = [block.astype(np.int32) for block in _read_blocks(handle, dtype, self.num_rows)]
            self._natoms = np.concatenate(blocks)
        return self._natoms

    def domain(self, position: int) -> str | None:
        """Return the domain (``data_ids``) of a row, None where the file has none."""
        if not self._has_domains:
            return None
        if self._domains is None:
            with self._array("data_ids") as (handle, dtype):
                self._domains = _encode(self._name_blocks(handle, dtype))
        codes, names = self._domains
        return names[codes[position]]

    def _can_name_domains(self, size: int) -> bool:
        with self._array("data_ids") as (_, dtype):
            if dtype.hasobject and size > LARGEST_PICKLE:
                log.warning("%s: data_ids are Python objects, too many to read; domains are left out", self.path)
                return False
        return True

    def _name_blocks(self, handle: IO[bytes], dtype: np.dtype) -> Iterator[np.ndarray]:
        """Read names in blocks; those in an array of Python objects, which is a pickle, all at once."""
        if not dtype.hasobject:
            if dtype.kind not in "iuUS" or dtype.itemsize > LARGEST_ITEM:
                raise DataError(f"'{self.path}': data_ids must be names, got {dtype}.")
            yield from _read_blocks(handle, dtype, self.num_rows)
            return
        advice = f"Remove '{self.path}' to read the rows without their domains."
        try:
            names = loads(handle.read(LARGEST_PICKLE), f"'{self.path}', data_ids,")
        except DataError as error:
            raise DataError(f"{error} {advice}") from error
        if not isinstance(names, np.ndarray) or names.shape != (self.num_rows,):
            raise DataError(f"'{self.path}': data_ids are no list of {self.num_rows} names. {advice}")
        yield names

    @contextmanager
    def _array(self, name: str) -> Iterator[tuple[IO[bytes], np.dtype]]:
        """Open an array behind its header, which must say that it has the right size."""
        try:
            with self._archive.open_binary(f"{name}.npy") as handle:
                version = np.lib.format.read_magic(handle)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(handle)
                if shape != (self.num_rows,):
                    raise DataError(
                        f"'{self.path}': {name} must have one entry for each of the {self.num_rows} rows beside it, "
                        f"got shape {shape}. Files may be missing, or the metadata belong to others."
                    )
                yield handle, dtype
        except (ValueError, EOFError) as error:
            raise DataError(
                f"'{self.path}' is damaged ({error}). Fetch it again, or remove it to read without it."
            ) from error


class RowMetadata:
    """What metadata files say of the rows of databases, for those folders that were opened as a whole.

    Args:
        rows: of the databases.

    Raises:
        DataError: see `FolderMetadata`.
    """

    def __init__(self, rows: AseRows) -> None:
        self._rows = rows
        folders: dict[Path, list[tuple[int, int]]] = {}
        for number, (file, start, stop) in enumerate(rows.spans()):
            folders.setdefault(file.parent, []).append((number, stop - start))
        self._of_file: dict[int, tuple[FolderMetadata, int]] = {}
        for folder, parts in folders.items():
            whole = {file.name for file in folder.glob("*.aselmdb") if not file.name.startswith(".")}
            if (folder / FILE_NAME).is_file() and whole == {rows.files[number].name for number, _ in parts}:
                self._add(folder / FILE_NAME, parts)

    def _add(self, path: Path, parts: list[tuple[int, int]]) -> None:
        # The list behind the path may name the files in another order than the metadata, which go by name.
        parts = sorted(parts, key=lambda part: str(self._rows.files[part[0]]))
        metadata = FolderMetadata(path, sum(size for _, size in parts))
        start = 0
        for number, size in parts:
            self._of_file[number] = (metadata, start)
            start += size

    def num_atoms(self) -> np.ndarray | None:
        """Return (rows,) atoms, None unless every file has metadata."""
        spans = self._rows.spans()
        if len(self._of_file) < len(spans):
            return None
        parts = []
        for number, (_, start, stop) in enumerate(spans):
            metadata, offset = self._of_file[number]
            parts.append(metadata.natoms()[offset : offset + stop - start])
        return np.concatenate(parts).astype(np.int64)

    def check_size(self, index: int, num_atoms: int) -> None:
        """Compare a row's size with the metadata.

        Raises:
            DataError: it is another one, so that the metadata belong to other rows.
        """
        number, position = self._rows.locate(index)
        if number in self._of_file:
            metadata, offset = self._of_file[number]
            stated = int(metadata.natoms()[offset + position])
            if stated != num_atoms:
                raise DataError(
                    f"{self._rows.source(index)} has {num_atoms} atoms, '{metadata.path}' says {stated}: it does not "
                    "belong to these files, or a file is damaged."
                )

    def domain(self, index: int) -> str | None:
        """Return the domain of a row, None where it is not stated."""
        number, position = self._rows.locate(index)
        if number not in self._of_file:
            return None
        metadata, offset = self._of_file[number]
        return metadata.domain(offset + position)


def _read_blocks(handle: IO[bytes], dtype: np.dtype, num_rows: int) -> Iterator[np.ndarray]:
    for start in range(0, num_rows, _BLOCK):
        count = min(_BLOCK, num_rows - start)
        data = handle.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise EOFError("an array is truncated")
        yield np.frombuffer(data, dtype)


def _encode(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Return the few different names, and which one every row has."""
    names: dict[str, int] = {}
    codes = []
    for block in blocks:
        if block.dtype.hasobject:
            codes.append(np.array([names.setdefault(str(name), len(names)) for name in block], dtype=np.int32))
            continue
        found, inverse = np.unique(block.astype(str), return_inverse=True)
        numbers = np.array([names.setdefault(str(name), len(names)) for name in found], dtype=np.int32)
        codes.append(numbers[inverse])
    return np.concatenate(codes), list(names)
