"""Workers as the supervisor sees them: they take chunks and report, and they may die."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mlip.simulate.screening.chunks import Chunk


@dataclass(frozen=True)
class Began:
    """A worker begins with a structure.

    Attributes:
        chunk: number of the chunk.
        structure: number of the structure.
    """

    chunk: int
    structure: int


@dataclass(frozen=True)
class Ended:
    """A structure has ended.

    Attributes:
        chunk: number of the chunk.
        line: of its record.
    """

    chunk: int
    line: bytes


@dataclass(frozen=True)
class Finished:
    """A chunk has ended.

    Attributes:
        chunk: its number.
        lines: of all its records, whether or not they came before.
    """

    chunk: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True)
class Broken:
    """A chunk has not ended.

    Attributes:
        chunk: its number.
        error: what was raised; None if the worker died.
    """

    chunk: int
    error: BaseException | None = None


Report = Began | Ended | Finished | Broken


class Pool(Protocol):
    """Workers."""

    def submit(self, chunk: Chunk) -> None:
        """Hand a chunk to the next worker that is free."""
        ...

    def report(self, seconds: float) -> Report | None:
        """Return what comes next, or None after so many seconds. Those of a chunk come in order."""
        ...

    def kill(self, chunk: int) -> None:
        """Withdraw a chunk and kill the worker that has it; what is reported of it does not matter any more."""
        ...

    def alive(self) -> int:
        """Return how many workers there are now."""
        ...
