"""Floating-point numbers that came from decimal text, as integers: exactly, and in a third of the space.

``-5.96479136`` is the integer -596479136 and "8 decimals"; a stress that was converted from kbar is an integer, a
number of decimals and the factor. What arithmetic on the way has left in the last bits is kept beside it, so that
every number, −0.0 too, comes back bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlip.core.units import BOHR, GPA, HARTREE, KBAR, KCAL_PER_MOL
from mlip.data.store.streams import Reader, Writer

FACTORS = (1.0, KBAR, KCAL_PER_MOL, HARTREE, HARTREE / BOHR, BOHR, GPA, KCAL_PER_MOL / 4.184)
"""Conversions that numbers may have been through."""

MOST_DECIMALS = 15
# Not by arithmetic: vectorised powers are off by a bit on some processors.
POWERS = np.array([float(f"1e{k}") for k in range(MOST_DECIMALS + 1)])
_PROBES = 32
_NEAR = 2.0**-10
"""How near to a whole number counts as one; no chance for dozens of unrelated numbers."""

_EXACT = 2.0**53
_WORTHWHILE = 2.0**40
"""Larger integers with remainders take no less space than the numbers themselves."""

EXCEPTION = -128
"""The remainder of a number that is too far from the expected one, and is stored as it is."""

_PLAIN, _DECIMAL = 0, 1


class Multiples(NamedTuple):
    """Numbers as ``integers / 10**decimals * factor``, but for remainders in the last bits."""

    integers: np.ndarray
    decimals: int
    factor: float


def find_multiples(values: np.ndarray) -> Multiples | None:
    """Return numbers (n,) as integers of as few digits as possible; None if they are no decimals."""
    # Written so that NaN and infinity are none, either.
    if not np.abs(values).max(initial=0.0) < _EXACT:
        return None
    probes = values[values != 0.0]
    probes = probes[:: max(1, len(probes) // _PROBES)]
    for factor in FACTORS:
        scaled = (probes / factor)[:, None] * POWERS
        near = (np.abs(scaled - np.rint(scaled)) <= _NEAR) & (np.abs(scaled) < _EXACT)
        for decimals in np.flatnonzero(near.all(axis=0)):
            found = _try(values, int(decimals), factor)
            if found is not None:
                return found
    return None


def _try(values: np.ndarray, decimals: int, factor: float) -> Multiples | None:
    scaled = values / factor * POWERS[decimals]
    whole = np.rint(scaled)
    largest = np.abs(whole).max(initial=0.0)
    if np.abs(scaled - whole).max(initial=0.0) > _NEAR or largest >= _EXACT:
        return None
    steps = remainders(values, from_multiples(whole, decimals, factor))
    if np.count_nonzero(steps == EXCEPTION) > len(values) // 8 or (largest >= _WORTHWHILE and steps.any()):
        return None
    return Multiples(whole.astype(np.int64), decimals, factor)


def from_multiples(integers: np.ndarray, decimals: int, factor: float) -> np.ndarray:
    """Return the floating-point numbers; the same bits on every machine."""
    return integers / POWERS[decimals] * factor


def put_floats(writer: Writer, values: np.ndarray) -> None:
    """Append float64 of any shape, in the smallest of the forms that this module knows."""
    values = np.ascontiguousarray(values, dtype=np.float64).ravel()
    found = find_multiples(values)
    if found is None:
        writer.byte(_PLAIN)
        writer.floats(values)
        return
    writer.byte(_DECIMAL)
    put_grid(writer, found.decimals, found.factor)
    writer.words(np.abs(found.integers))
    negative = np.signbit(values)
    writer.flags(negative)
    put_remainders(writer, values, _signed(np.abs(found.integers), negative, found.decimals, found.factor))


def take_floats(reader: Reader, count: int) -> np.ndarray:
    """Return the (count,) float64 that `put_floats` appended."""
    if reader.byte() == _PLAIN:
        return reader.floats(count)
    decimals, factor = take_grid(reader)
    magnitudes = reader.words(count)
    return take_remainders(reader, _signed(magnitudes, reader.flags(count), decimals, factor))


def _signed(magnitudes: np.ndarray, negative: np.ndarray, decimals: int, factor: float) -> np.ndarray:
    values = from_multiples(magnitudes, decimals, factor)
    return np.negative(values, out=values, where=negative)


def put_grid(writer: Writer, decimals: int, factor: float) -> None:
    """Append decimals and factor; the factor's value, as constants of nature are revised."""
    writer.byte(decimals | (0 if factor == 1.0 else 128))
    if factor != 1.0:
        writer.number(factor)


def take_grid(reader: Reader) -> tuple[int, float]:
    """Return decimals and factor."""
    code = reader.byte()
    return code & 15, reader.number() if code & 128 else 1.0


def remainders(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return (n,) int8: how many representable numbers lie between; −128 where too many do."""
    steps = _ordered(values) - _ordered(expected)
    return np.where((steps > EXCEPTION) & (steps < -EXCEPTION), steps, EXCEPTION).astype(np.int8)


def put_remainders(writer: Writer, values: np.ndarray, expected: np.ndarray) -> None:
    """Append what leads from the expected numbers to the true ones."""
    steps = remainders(values, expected)
    writer.byte(bool(steps.any()))
    if steps.any():
        writer.text(steps.tobytes())
        writer.floats(values[steps == EXCEPTION])


def take_remainders(reader: Reader, expected: np.ndarray) -> np.ndarray:
    """Return the true numbers."""
    if not reader.byte():
        return expected
    steps = np.frombuffer(reader.text(), np.int8)
    values = _unordered(_ordered(expected) + steps)
    exceptions = steps == EXCEPTION
    values[exceptions] = reader.floats(np.count_nonzero(exceptions))
    return values


def _ordered(values: np.ndarray) -> np.ndarray:
    """Return int64 in the order of the numbers, neighbours one apart; −0.0 is −1."""
    bits = np.ascontiguousarray(values).view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))


def _unordered(keys: np.ndarray) -> np.ndarray:
    return (keys ^ ((keys >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))).view(np.float64)
