"""Numbers and arrays out of parsed JSON, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlip.core.errors import DataError


def number(value: Any, name: str, where: str) -> float | None:
    """Return a finite number, None for None.

    Raises:
        DataError: it is none.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise DataError(f"{where}: the {name} must be a number, got {value!r:.60}.")
    if not abs(value) < 1e9:
        raise DataError(f"{where}: the {name} is {value!r:.60}, which cannot be.")
    return float(value)


def array(value: Any, name: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return finite float64 numbers of a shape.

    Raises:
        DataError: they are not.
    """
    try:
        values = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: the {name} must be numbers, got something else ({error}).") from error
    if values.shape != shape:
        raise DataError(f"{where}: the {name} must have shape {shape}, got {values.shape}.")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: the {name} are not finite (NaN or inf). Remove or repair the frame.")
    return values


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are strings or finite numbers, numpy's as Python's."""
    pythonic = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
    return {
        key: value
        for key, value in pythonic.items()
        if isinstance(value, str | int) or (isinstance(value, float) and np.isfinite(value))
    }
