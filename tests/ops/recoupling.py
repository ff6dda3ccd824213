"""6j and 9j symbols from Racah's formula in exact fractions, as an oracle that knows no 3j symbol."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import factorial, sqrt


@cache
def wigner_6j(a: int, b: int, c: int, d: int, e: int, f: int) -> float:
    """Return ``{a b c; d e f}`` of integer degrees (Racah 1942)."""
    triads = [(a, b, c), (a, e, f), (d, b, f), (d, e, c)]
    if not all(abs(x - y) <= z <= x + y for x, y, z in triads):
        return 0.0
    sums, pairs = [sum(triad) for triad in triads], [a + b + d + e, b + c + e + f, a + c + d + f]
    total = Fraction(0)
    for t in range(max(sums), min(pairs) + 1):
        term = Fraction((-1) ** t * factorial(t + 1))
        for n in sums:
            term /= factorial(t - n)
        for n in pairs:
            term /= factorial(n - t)
        total += term
    deltas = Fraction(1)
    for x, y, z in triads:
        deltas *= Fraction(factorial(x + y - z) * factorial(x - y + z) * factorial(y + z - x), factorial(x + y + z + 1))
    return float(total) * sqrt(deltas)


@cache
def wigner_9j(*rows: int) -> float:
    """Return ``{a b c; d e f; g h i}`` of integer degrees, given row by row."""
    a, b, c, d, e, f, g, h, i = rows
    return sum(
        (2 * x + 1) * wigner_6j(a, b, c, f, i, x) * wigner_6j(d, e, f, b, x, h) * wigner_6j(g, h, i, x, a, d)
        for x in range(max(abs(a - i), abs(d - h), abs(b - f)), min(a + i, d + h, b + f) + 1)
    )


def wigner_3j_000(a: int, b: int, c: int) -> float:
    """Return ``(a b c; 0 0 0)``, zero where the sum is odd."""
    if (a + b + c) % 2 or not abs(a - b) <= c <= a + b:
        return 0.0
    g = (a + b + c) // 2
    square = Fraction(
        factorial(2 * g - 2 * a) * factorial(2 * g - 2 * b) * factorial(2 * g - 2 * c), factorial(2 * g + 1)
    )
    return (-1) ** g * sqrt(square) * factorial(g) / (factorial(g - a) * factorial(g - b) * factorial(g - c))
