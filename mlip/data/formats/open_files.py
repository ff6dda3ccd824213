"""Files that stay open for random access, but not too many of them: a process may have about a thousand."""

from __future__ import annotations

from typing import Protocol

MOST_OPEN = 256


class Closable(Protocol):
    """What opens by itself when it is read."""

    def close(self) -> None:
        """Close it until it is read again."""


class OpenFiles:
    """Closes the file that has not been used for longest when there are more than so many."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._recent: dict[int, Closable] = {}

    def use(self, number: int, file: Closable) -> None:
        """Note that a file, known by a number, was or will be read now."""
        self._recent.pop(number, None)
        self._recent[number] = file
        if len(self._recent) > self._most:
            self._recent.pop(next(iter(self._recent))).close()
