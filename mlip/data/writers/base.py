"""What every writer does: stream samples into a file that is either whole or not there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mlip.core.errors import DataError
from mlip.data.sample import Sample

PRIVATE_INFO = ("source", "id")
"""Entries of ``info`` that say where a sample was read, and would be wrong in another file."""


class Writer(ABC):
    """Writes one format.

    Attributes:
        name: of the format, for messages.
        suffixes: of its files.
        fields: names of the fields that it can hold.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    fields: ClassVar[frozenset[str]]

    @abstractmethod
    def write(self, samples: Iterable[Sample], path: Path, record: Mapping[str, Any] | None = None) -> int:
        """Write samples as they come, in memory of a few of them, and return how many there were.

        Args:
            samples: at least one.
            path: of the file; an old one is replaced when the new one is complete.
            record: what is known of the data as a whole (licence, citation, …), where the format has a place for it.

        Raises:
            DataError: a sample has what the format cannot hold, or there are no samples. Nothing is written.
            MlipError: the file cannot be written.
        """

    def checked(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield the samples, refusing labels that would be lost.

        Raises:
            DataError: which ones; or there is no sample.
        """
        empty = True
        for sample in samples:
            lost = [field for field in sample.labels if field not in self.fields]
            if lost:
                raise DataError(
                    f"{sample.source} has {', '.join(lost)}, which {self.name} files cannot hold. Convert to a store "
                    "(mlip data prepare), which holds everything."
                )
            empty = False
            yield sample
        if empty:
            raise DataError("There are no structures to write.")


def info_to_write(sample: Sample, taken: Iterable[str]) -> dict[str, Any]:
    """Return what to keep of ``info``; keys that the format needs itself get the prefix ``info_``."""
    info = {key: value for key, value in sample.info.items() if key not in PRIVATE_INFO and value is not None}
    if sample.isolated:
        info.setdefault("config_type", "IsolatedAtom")
    reserved = {key.lower() for key in taken}
    return {f"info_{key}" if key.lower() in reserved else key: value for key, value in info.items()}
