"""Functions of one variable as tables of cubics, fine enough for a stated error of their values and slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST, MOST = 240, 1920
"""Intervals that are tried, each twice the last. 240 has many divisors: a kink at a tenth of the range is at a knot."""

SAMPLES = (0.5 - 12**-0.5, 0.5, 0.5 + 12**-0.5)
"""Where in every interval a table is compared with the function: where values and slopes of cubics are off the most."""


class Table(NamedTuple):
    """In every cell the cubic that has the values and slopes of functions at both ends (Hermite).

    Attributes:
        cells: ``(cells, 4, functions)``: coefficients of 1, t, t² and t³, t from 0 to 1 in the cell. They are kept
            rather than the values, whose differences would lose digits in float32.
        steps: cells a unit of the variable, from 0 on.
        error: largest error of a value, as a fraction of the largest value of all functions, beyond the first cell.
        slope_error: largest error of a slope, as a fraction of the largest slope of all functions, likewise.
    """

    cells: Tensor
    steps: float
    error: float
    slope_error: float

    def within(self, tolerance: float, slope_tolerance: float) -> bool:
        """Whether both errors are."""
        return self.error <= tolerance and self.slope_error <= slope_tolerance


def tabulate_functions(
    function: Callable[[Tensor], Tensor], start: float, stop: float, tolerance: float, slope_tolerance: float
) -> Table:
    """Tabulate functions from 0 to ``stop`` with the fewest intervals that keep to tolerances, or the most there are.

    Args:
        function: takes ``(n,)`` float64, returns ``(n, functions)``, row by row; differentiable in forward mode.
        start: the functions are not evaluated below it, which is to be within the first cell.
        stop: end of the table, such as the cutoff.
        tolerance, slope_tolerance: of `Table.error` and `Table.slope_error`.
    """
    intervals = FEWEST
    while True:
        table = _interpolate(function, start, stop, intervals)
        if table.within(tolerance, slope_tolerance) or intervals >= MOST:
            return table
        intervals *= 2


def _with_slopes(function: Callable[[Tensor], Tensor], r: Tensor) -> tuple[Tensor, Tensor]:
    return torch.func.jvp(function, (r,), (torch.ones_like(r),))


def _interpolate(function: Callable[[Tensor], Tensor], start: float, stop: float, intervals: int) -> Table:
    width = stop / intervals
    r = (torch.arange(intervals + 1, dtype=torch.float64) * width).clamp(min=start)
    values, slopes = _with_slopes(function, r)
    slopes = slopes * width
    left, right, rise = slopes[:-1], slopes[1:], values[1:] - values[:-1]
    cells = torch.stack([values[:-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise], dim=1)
    table = Table(cells, 1.0 / width, 0.0, 0.0)
    cell, inside = torch.arange(1, intervals, dtype=torch.float64), torch.tensor(SAMPLES, dtype=torch.float64)
    points = ((cell[:, None] + inside) * width).flatten()
    true, found = _with_slopes(function, points), _with_slopes(lambda x: evaluate(table, x), points)
    error, slope_error = (_share(*pair) for pair in zip(found, true))
    return table._replace(error=error, slope_error=slope_error)


def _share(found: Tensor, expected: Tensor) -> float:
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / largest if largest else 0.0


def evaluate(table: Table, r: Tensor) -> Tensor:
    """Return the functions at ``r`` ``(n,)`` as the kernels do: ``(n, functions)``."""
    place = r * table.steps
    cell = place.detach().long().clamp(0, len(table.cells) - 1)
    t = (place - cell)[:, None]
    c0, c1, c2, c3 = table.cells[cell].unbind(1)
    return c0 + t * (c1 + t * (c2 + t * c3))
