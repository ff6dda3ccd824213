"""What counts as a number in settings: Python's True is none, and neither are NaN and infinity."""

from math import isfinite
from typing import Any


def is_number(value: Any) -> bool:
    """Return whether a value is a finite ``int`` or ``float``.

    >>> [is_number(value) for value in (1, 0.5, True, "1", None, float("nan"))]
    [True, True, False, False, False, False]
    """
    return not isinstance(value, bool) and isinstance(value, int | float) and isfinite(value)


def is_whole(value: Any) -> bool:
    """Return whether a value is an ``int``.

    >>> [is_whole(value) for value in (1, 1.0, True)]
    [True, False, False]
    """
    return not isinstance(value, bool) and isinstance(value, int)
