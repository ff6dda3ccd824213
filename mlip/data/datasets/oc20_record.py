"""One structure of OC20 as a file has it, and what the layouts of its files have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.datasets.base import CHUNK_SAMPLES, Chunk

_SYSTEM = re.compile(r"(?:random)?(\d{1,18})")


@dataclass
class Record:
    """One structure as the file has it.

    Attributes:
        source: "file:index".
        numbers: (atoms,) int64.
        positions: (atoms, 3) Å.
        cell: (3, 3) Å.
        pbc: (3,) bool.
        system: number of the system (of ``random<number>``), None if it is not stated.
        frame: number of the frame in the relaxation, None if it is not stated.
        energy: eV, or None; of an IS2RE record that of the relaxed structure.
        initial_energy: of an IS2RE record, eV, or None.
        stored: what the energies are, "total" or "adsorption"; None where the file does not say.
        reference: energy of the clean slab and the adsorbate in the gas phase, eV, or None.
        forces: (atoms, 3) eV/Å as calculated, also of fixed atoms, or None.
        tags: (atoms,) int64, or None.
        fixed: (atoms,) bool, or None.
        relaxed_positions: of an IS2RE record, (atoms, 3) Å, or None.
        kind: "s2ef" or "is2re", None if nothing shows it (test data).
    """

    source: str
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    system: int | None = None
    frame: int | None = None
    energy: float | None = None
    initial_energy: float | None = None
    stored: str | None = None
    reference: float | None = None
    forces: np.ndarray | None = None
    tags: np.ndarray | None = None
    fixed: np.ndarray | None = None
    relaxed_positions: np.ndarray | None = None
    kind: str | None = "s2ef"


class Layout(ABC):
    """Files of OC20 in one of its layouts.

    Attributes:
        words: the layout in words, for messages.
        files: of the data.
        random_access: whether `record` can be asked for any index.
    """

    words: str
    files: list[Path]
    random_access: bool

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """Cut the files into chunks."""

    @abstractmethod
    def records(self, chunk: Chunk) -> Iterator[Record | DataError]:
        """Read the records of a chunk in order, a damaged one as its `DataError`."""

    @abstractmethod
    def first(self) -> Record:
        """Return the first record.

        Raises:
            DataError: it is damaged.
        """


class RandomLayout(Layout):
    """Files whose records are read in any order."""

    random_access = True

    @abstractmethod
    def spans(self) -> list[tuple[Path, int, int]]:
        """Return (file, first index, index past the last) for every file."""

    @abstractmethod
    def record(self, index: int) -> Record:
        """Return a record by its index over all files; `IndexError` past the end.

        Raises:
            DataError: it is damaged.
        """

    def __len__(self) -> int:
        return self.spans()[-1][2]

    def first(self) -> Record:
        """Return the first record."""
        return self.record(0)

    def chunks(self) -> Iterator[Chunk]:
        """Cut each file into runs of records."""
        for number, (file, start, stop) in enumerate(self.spans()):
            size = file.stat().st_size / max(stop - start, 1)
            for first in range(start, stop, CHUNK_SAMPLES):
                last = min(first + CHUNK_SAMPLES, stop)
                key = f"{number}:{file.name}:{first - start}-{last - start - 1}"
                yield Chunk(key, (first, last), last - first, max(int(size * (last - first)), 1))

    def records(self, chunk: Chunk) -> Iterator[Record | DataError]:
        """Read the records of a chunk."""
        for index in range(*chunk.location):
            try:
                yield self.record(index)
            except DataError as error:
                yield error


def system_number(value: Any, where: str) -> int:
    """Return the number of a system: 12 of ``random12`` or of 12.

    Raises:
        DataError: it is neither.
    """
    match = _SYSTEM.fullmatch(str(value).strip())
    if match is None:
        raise DataError(f"{where}: a system of OC20 is called random and a number, got {str(value)[:40]!r}.")
    return int(match[1])


def finite(value: Any, shape: tuple[int, ...], what: str, where: str) -> np.ndarray:
    """Return float64 numbers of a shape.

    Raises:
        DataError: they have another shape, are none, or are not finite.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {what} must be numbers.") from error
    if array.shape != shape:
        raise DataError(f"{where}: {what} must have the shape {shape}, got {array.shape}.")
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {what} must be finite (NaN or inf). Remove or repair the structure.")
    return array


def whole(value: Any, shape: tuple[int, ...], what: str, where: str) -> np.ndarray:
    """Return int64 numbers of a shape; files of old versions hold them as floats.

    Raises:
        DataError: they have another shape, are none, or are not whole.
    """
    array = finite(value, shape, what, where)
    if (array != np.rint(array)).any() or (abs(array) > 2**53).any():
        raise DataError(f"{where}: {what} must be whole numbers.")
    return array.astype(np.int64)
