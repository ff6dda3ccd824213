"""The interface of a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from mlip.data.sample import Sample


class Dataset(ABC):
    """A sequence of `Sample`s in the package's units, with a statement of what it is.

    A data set pickles (loader workers get a copy), is read-only, and raises `DataError` for anything in the
    file that cannot be right.

    Attributes:
        provides: names of the fields that every sample is labelled with.
        units: units of the file, before conversion, by quantity.
        licence: licence of the data, or "not stated".
        citation: how to cite them, or "not stated".
    """

    provides: tuple[str, ...]
    units: dict[str, str]
    licence: str
    citation: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return one sample; `IndexError` past the end."""

    @abstractmethod
    def isolated_atom_energies(self) -> dict[str, float]:
        """Energies of single atoms by symbol, eV; empty where the data have none."""

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
