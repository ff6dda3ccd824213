"""What stands for the objects of a pickle while it is read, and how plain values are made of it at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from mlip.core.errors import DataError

MAX_DEPTH = 100
"""Nesting of lists, tuples and dictionaries; data have less than ten."""

MAX_ITEMS = 200_000_000
"""Values, with those that are shared counted where they occur: ten lists of ten of the next one are not small."""

Maker = Callable[[tuple[Any, ...]], Any]
"""What stands for a callable in a pickle: takes its arguments, returns a value."""


class Global:
    """A name that a pickle may use, and what stands for it.

    Args:
        name: ``module.name``.
        make: called where the pickle calls the name or makes an instance of it; None where it may not.
    """

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Maker | None = None) -> None:
        self.name = name
        self.make = make


class Instance(ABC):
    """An object of an allowed class, until the pickle is read to its end."""

    def set_state(self, state: Any) -> None:
        """Take the state that the pickle gives the object.

        Raises:
            DataError: such an object has no such state.
        """
        raise DataError(f"a {type(self).__name__.lower()} has a state, which it cannot have")

    @abstractmethod
    def value(self) -> Any:
        """Return the plain value; its parts may be further instances.

        Raises:
            DataError: the object is damaged.
        """


def checked_key(key: Any) -> Any:
    """Return a key of a dictionary or set: text, bytes, a number, None, or a flat tuple of these.

    Raises:
        DataError: anything else.
    """
    for item in key if type(key) is tuple else (key,):
        if not (item is None or type(item) in (str, bytes, bool, float) or (type(item) is int and abs(item) < 2**60)):
            raise DataError(f"a {type(item).__name__} as key of a dictionary")
    return key


_LEAVES = frozenset({str, int, float, bool, type(None), bytes, complex})


class Plain:
    """Turns what a pickle left on the stack into plain values: each object once, however often it is referred to.

    Args:
        max_bytes: of all arrays together; one that is referred to many times can otherwise be copied many times.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._done: dict[int, tuple[Any, int, Any]] = {}

    def __call__(self, value: Any) -> Any:
        """Return the plain value.

        Raises:
            DataError: it contains itself, is nested too deeply, or is larger than the file can be.
        """
        return self._visit(value, 0)[0]

    def _visit(self, value: Any, depth: int) -> tuple[Any, int]:
        """Return (plain value, number of values in it)."""
        kind = type(value)
        if kind in _LEAVES:
            return value, 1
        if kind is Global:
            return value.name, 1
        if id(value) in self._done:
            known, size, _ = self._done[id(value)]
            if size == 0:
                raise DataError("an object contains itself")
            return known, size
        if depth > MAX_DEPTH:
            raise DataError(f"more than {MAX_DEPTH} levels of nesting")
        self._done[id(value)] = (None, 0, value)
        plain, size = self._convert(value, depth)
        if size > MAX_ITEMS:
            raise DataError(f"more than {MAX_ITEMS} values")
        # The original is kept, or its id could be given to another object.
        self._done[id(value)] = (plain, size, value)
        return plain, size

    def _convert(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, dict):
            pairs = {key: self._visit(item, depth + 1) for key, item in value.items()}
            return {key: item for key, (item, _) in pairs.items()}, 1 + sum(size for _, size in pairs.values())
        if isinstance(value, list | tuple):
            items = [self._visit(item, depth + 1) for item in value]
            kind = tuple if isinstance(value, tuple) else list
            return kind(item for item, _ in items), 1 + sum(size for _, size in items)
        if isinstance(value, Instance):
            made = value.value()
            if isinstance(made, np.ndarray):
                self._left -= made.nbytes
                if self._left < 0:
                    raise DataError("arrays that are larger than the file")
                return made, 1
            return self._visit(made, depth + 1) if isinstance(made, dict | Instance) else (made, 1)
        return value, len(value) if isinstance(value, set | frozenset) else 1
