"""The interface of a data set: read in chunks, in any order by many processes, or sample by sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.data.content_hash import geometry_hash, sample_hash
from mlip.data.sample import Sample

if TYPE_CHECKING:
    # It imports torch, which takes seconds, and a command says sooner that a file is not there.
    from mlip.data.neighbours import Pairs

Progress = Callable[[float, int], None]
"""Called now and then during long reading, with the share that is done, from 0 to 1, and the number of structures."""

CHUNK_SAMPLES = 2048
"""Samples of a chunk where a data set can be cut anywhere."""


@dataclass(frozen=True)
class Chunk:
    """A run of consecutive samples of a data set: the unit of parallel work and of resuming.

    Attributes:
        key: names the chunk for people and for resuming; unique, and the same whenever the same files are cut.
        location: what `Dataset.read` needs to find it; plain, picklable values.
        num_samples: if known without reading.
        num_bytes: of the files, about, for progress; 0 if unknown.
    """

    key: str
    location: Any
    num_samples: int | None = None
    num_bytes: int = 0


@dataclass(frozen=True)
class Recognition:
    """What a data set class says of files that it can read.

    Attributes:
        certainty: 1 a general format; 2 the layout of this data set; 3 marks that only this data set has.
        options: constructor options besides ``path`` that make the files readable.
        note: a sentence for the user, such as a choice that is theirs; "" for none.
        preview: options that are the user's choice, with values that are good enough to look at the data (``mlip data
            info`` says what was assumed); never to train on or to store.
    """

    certainty: int
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    preview: Mapping[str, Any] = field(default_factory=dict)


class Dataset(ABC):
    """A sequence of `Sample`s in the package's units, with a statement of what it is.

    A data set pickles (loader workers get a copy), is read-only, and raises `DataError` for anything in the
    file that cannot be right.

    A class for files with random access writes ``__len__`` and ``__getitem__``; one for files that are read from
    their beginning subclasses :class:`mlip.data.datasets.streamed.StreamedDataset`.

    Attributes:
        provides: names of the fields that every sample is labelled with.
        units: units of the file, before conversion, by quantity.
        licence: licence of the data, or "not stated".
        citation: how to cite them, or "not stated".
        level_of_theory: functional, basis, code, …, in words, as far as the format fixes it; {} otherwise.
        official_splits: names of the splits that `official_split` knows.
    """

    provides: tuple[str, ...]
    units: Mapping[str, str]
    licence: str
    citation: str
    level_of_theory: Mapping[str, str] = {}
    official_splits: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return one sample; `IndexError` past the end."""

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def isolated_atom_energies(self) -> dict[str, float]:
        """Energies of single atoms by symbol, eV; empty where the data have none."""
        return {}

    def chunks(self) -> Iterator[Chunk]:
        """Cut the data set into runs of consecutive samples, always the same ones.

        Raises:
            DataError: the files cannot be read at all.
        """
        for start in range(0, len(self), CHUNK_SAMPLES):
            stop = min(start + CHUNK_SAMPLES, len(self))
            yield Chunk(f"{start}-{stop - 1}", (start, stop), stop - start)

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the samples of a chunk in order, isolated atoms among them.

        A sample that cannot be right is handed out as the `DataError` that says why, so that a reader of a large
        set can count it, skip it or stop; what makes further reading impossible is raised.
        """
        for index in range(*chunk.location):
            try:
                yield self[index]
            except DataError as error:
                yield error

    def official_split(self, name: str) -> dict[str, Sequence[int]]:
        """Return a published split, ``{"train": indices, "valid": …, "test": …}``.

        Raises:
            ConfigError: the data set has none of this name.
            DataError: the split does not belong to this version of the data.
        """
        known = ", ".join(self.official_splits) or "none"
        raise ConfigError(
            f"{type(self).__name__} has no official split '{name}'.{did_you_mean(str(name), self.official_splits)} "
            f"There: {known}."
        )

    def fields(self) -> set[str] | None:
        """Return the names of the fields that some sample has if that is known without reading, else None."""
        return None

    def label_keys(self) -> dict[str, tuple[str, str]]:
        """Return ``{label: (key in the files, where it was first met)}``, as far as this copy has read.

        Labels from different keys may be of different levels of theory. Each copy compares what it reads itself; who
        reads with several (processes) compares these with :func:`mlip.data.labels.merge_keys`.
        """
        return {}

    def check_labels(self, found: set[str]) -> None:
        """Refuse the whole, when all of it has been read, if something that was asked for is in no sample.

        Args:
            found: names of the fields that some sample has.

        Raises:
            DataError: what is not there.
        """
        return

    def groups(self) -> list[str] | None:
        """Return the group of every sample (``info["group"]``), None where there are none."""
        found = [sample.info.get("group") for sample in self]
        return None if None in found or not found else [str(group) for group in found]

    def digests(self, indices: Sequence[int]) -> np.ndarray:
        """Return (indices,) uint64: a hash of each sample's structure and labels."""
        return np.array([sample_hash(self[index]) for index in indices], dtype=np.uint64)

    def geometry_digests(self, indices: Sequence[int]) -> np.ndarray:
        """Return (indices,) uint64: a hash of each sample's structure, to a millionth of an Å."""
        return np.array([geometry_hash(self[index].atoms) for index in indices], dtype=np.uint64)

    def num_edges(self, cutoff: float) -> np.ndarray | None:
        """Return (samples,) edges at a cutoff if that is known without building graphs, else None."""
        return None

    def num_atoms(self) -> np.ndarray | None:
        """Return (samples,) atoms if that is known without reading the samples, else None."""
        return None

    def pairs(self, index: int, cutoff: float) -> Pairs | None:
        """Return a sample's neighbour list at a cutoff if it is kept with the data, else None."""
        return None

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Say whether a file or folder looks like this data set; reads a few kilobytes, raises nothing.

        A class with a general base class (its own `recognise`) must not inherit the answer by accident.
        """
        return None

    def load(self, progress: Progress | None = None) -> None:  # noqa: B027 (most read on demand)
        """Read into memory what will be there anyway, now and with a report of the progress."""

    @property
    def in_memory(self) -> bool:
        """Whether all samples are in memory anyway, so that their graphs may be, too."""
        return False
