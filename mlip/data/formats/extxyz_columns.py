"""The columns of an extxyz frame: what ``Properties=species:S:1:pos:R:3:…`` says, and the numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from ase.data import atomic_numbers

DEFAULT_PROPERTIES = "species:S:1:pos:R:3"
"""What a frame has that does not say."""

ASE_NAMES = {"pos": "positions", "Z": "numbers", "charge": "charges", "species": "symbols"}
"""Names that columns get in ASE."""

# Atoms takes these for itself, or a column of this name would hide another: left to ASE's own reader.
_UNUSUAL = frozenset({"positions", "numbers", "symbols", "initial_charges"})
_LOGICAL = {"T": True, "True": True, "F": False, "False": False}


@dataclass(frozen=True)
class Column:
    """One property: ``width`` columns of type R, I, S or L from ``start``, named as in ASE."""

    name: str
    type: str
    start: int
    width: int


@dataclass(frozen=True)
class Layout:
    """What is in which column.

    Attributes:
        width: number of columns.
        real: indices of all columns of type R, in order.
        reals: properties of type R, with ``start`` counted within these.
        others: further properties.
    """

    width: int
    real: tuple[int, ...]
    reals: tuple[Column, ...]
    others: tuple[Column, ...]


@lru_cache(maxsize=256)
def parse_layout(properties: str) -> Layout | None:
    """Return the layout that a ``Properties`` value describes, None for one that is left to ASE's reader.

    Raises:
        ValueError: an unknown type, a width that is no number, or no columns of elements and positions.
    """
    fields = properties.split(":")
    names, types, widths = fields[::3], fields[1::3], [int(text) for text in fields[2::3]]
    columns: list[Column] = []
    start = 0
    for name, kind, width in zip(names, types, widths):
        if kind not in ("R", "I", "S", "L"):
            raise ValueError(f"the column {name} has the unknown type {kind}; R, I, S and L are known")
        columns.append(Column(ASE_NAMES.get(name, name), kind, start, width))
        start += width
    shapes = {column.name: (column.type, column.width) for column in columns}
    if "positions" not in shapes or not shapes.keys() & {"numbers", "symbols"}:
        # ASE would put all atoms at the origin, or take them for no element.
        raise ValueError(f"Properties={properties} must name the columns of species (or Z) and pos")
    usual = (
        len(shapes) == len(columns)
        and not _UNUSUAL & set(names)
        and min(column.width for column in columns) > 0
        and shapes.get("positions") == ("R", 3)
        and (shapes.get("numbers") == ("I", 1) or ("numbers" not in shapes and "symbols" in shapes))
        and shapes.get("symbols", ("S", 1)) == ("S", 1)
        and shapes.get("move_mask", ("L", 1)) in (("L", 1), ("I", 1))
    )
    if not usual:
        return None
    real = [index for c in columns if c.type == "R" for index in range(c.start, c.start + c.width)]
    reals = [Column(c.name, "R", real.index(c.start), c.width) for c in columns if c.type == "R"]
    return Layout(start, tuple(real), tuple(reals), tuple(column for column in columns if column.type != "R"))


def read_columns(lines: Sequence[str], layout: Layout) -> dict[str, np.ndarray]:
    """Return the arrays of a frame by name: ``positions`` (atoms, 3), ``numbers`` (atoms,), others as they come.

    Columns beyond the layout are passed over, as ASE does.

    Raises:
        ValueError: a line with too few columns, or an entry that is not what its type says.
    """
    rows = list(map(str.split, lines))
    if set(map(len, rows)) != {layout.width}:
        rows = [_cut(row, number, layout.width) for number, row in enumerate(rows)]
    columns = list(zip(*rows))
    words = chain.from_iterable([columns[index] for index in layout.real])
    # Python's float is correctly rounded, and no slower than numpy's conversions of text.
    reals = np.array(list(map(float, words))).reshape(len(layout.real), len(rows))
    arrays: dict[str, np.ndarray] = {}
    for name, start, width in [(column.name, column.start, column.width) for column in layout.reals]:
        arrays[name] = reals[start] if width == 1 else np.ascontiguousarray(reals[start : start + width].T)
    for column in layout.others:
        values = [_convert(column, columns[column.start + k]) for k in range(column.width)]
        arrays[column.name] = values[0] if column.width == 1 else np.stack(values, axis=1)
    symbols = arrays.pop("symbols", None)
    if "numbers" not in arrays:
        arrays["numbers"] = symbols
    return arrays


def _cut(row: list[str], number: int, width: int) -> list[str]:
    if len(row) < width:
        raise ValueError(f"atom {number} has {len(row)} of {width} columns")
    return row[:width]


def _convert(column: Column, words: Sequence[str]) -> np.ndarray:
    """Return one column as integers, bools, atomic numbers (of symbols) or texts."""
    if column.name == "symbols":
        try:
            return np.array([atomic_numbers[word] for word in words])
        except KeyError:
            return np.array([_number_of(word) for word in words])
    if column.type == "I":
        return np.array(list(map(int, words)), dtype=np.int64)
    if column.type == "L":
        if not _LOGICAL.keys() >= set(words):
            strange = next(word for word in words if word not in _LOGICAL)
            raise ValueError(f"the column {column.name} must hold T and F, got {strange}")
        return np.array([_LOGICAL[word] for word in words])
    texts: Any = np.empty(len(words), dtype=object)
    texts[:] = words
    return texts


def _number_of(symbol: str) -> int:
    """Return the atomic number of a symbol in any capitals."""
    if symbol.capitalize() not in atomic_numbers:
        raise ValueError(f"there is no element {symbol}")
    return atomic_numbers[symbol.capitalize()]
