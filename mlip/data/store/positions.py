"""Positions in a cell, through the fractional coordinates that the program wrote with eight decimals.

VASP writes fractional coordinates with eight decimals, and what files hold is their product with the cell. These
integers take fewer bits than positions, and symmetric sites repeat them, up to the sign and a half: so each is
stored as its distance to the nearest half, which LZMA finds again. The product is formed anew when reading, in a fixed
order of operations; where the file rounded it, a difference of one in the last decimal is stored as well.
"""

from __future__ import annotations

import numpy as np

from mlip.data.store.decimals import (
    EXCEPTION,
    POWERS,
    find_multiples,
    from_multiples,
    put_floats,
    put_grid,
    put_remainders,
    remainders,
    take_floats,
    take_grid,
    take_remainders,
)
from mlip.data.store.streams import Reader, Writer

_ONE = 10**8
_HALF = _ONE // 2
_ROUNDED = 1.5e-8
"""Å; what rounding to eight decimals leaves."""

_FLAT = 1e-3
"""Volume over product of lengths under which fractional coordinates are not used."""

_FAR = 100.0
"""Cells from the origin beyond which they are not, either."""


def put_positions(writer: Writer, positions: np.ndarray, cells: np.ndarray, num_atoms: np.ndarray) -> None:
    """Append positions.

    Args:
        writer: of the record.
        positions: (atoms, 3) of all structures, Å.
        cells: (structures, 3, 3) Å.
        num_atoms: (structures,).
    """
    owner = np.repeat(np.arange(len(num_atoms)), num_atoms)
    fractions, usable = _fractions(positions, cells, owner)
    product = _product(fractions, cells[owner])
    found = find_multiples(positions.ravel()) if usable.any() else None
    if found is not None and found.factor == 1.0:
        whole = found.integers.reshape(-1, 3)
        steps = whole - np.rint(product * POWERS[found.decimals])
        good = np.abs(steps).max(axis=1) <= 1
        differences = np.where(good[:, None], steps, 0).astype(np.int64)
        expected = from_multiples(whole, found.decimals, 1.0)
    else:
        found = None
        differences = np.zeros(0, dtype=np.int64)
        good = (remainders(positions.ravel(), product.ravel()) != EXCEPTION).reshape(-1, 3).all(axis=1)
        expected = product
    # One atom of a structure may be off, most must fit: a handful of exceptions is cheap in the second case only.
    share = np.bincount(owner, weights=good, minlength=len(num_atoms)) / np.maximum(num_atoms, 1)
    chosen = usable & (share >= (1.0 if found is not None else 0.9))
    writer.flags(chosen)
    mask = chosen[owner]
    put_floats(writer, positions[~mask])
    if not mask.any():
        return
    writer.byte(found is not None)
    if found is not None:
        put_grid(writer, found.decimals, 1.0)
        writer.integers(differences[mask].ravel())
    _put_folded(writer, fractions[mask].ravel())
    put_remainders(writer, positions[mask].ravel(), expected[mask].ravel())


def take_positions(reader: Reader, cells: np.ndarray, num_atoms: np.ndarray) -> np.ndarray:
    """Return the (atoms, 3) positions that `put_positions` appended."""
    chosen = reader.flags(len(num_atoms))
    mask = np.repeat(chosen, num_atoms)
    positions = np.empty((len(mask), 3))
    positions[~mask] = take_floats(reader, 3 * int(np.count_nonzero(~mask))).reshape(-1, 3)
    if not mask.any():
        return positions
    count = 3 * int(np.count_nonzero(mask))
    rounded = reader.byte()
    if rounded:
        decimals, _ = take_grid(reader)
        differences = reader.integers(count)
    product = _product(_take_folded(reader, count).reshape(-1, 3), np.repeat(cells, num_atoms, axis=0)[mask]).ravel()
    if rounded:
        whole = np.rint(product * POWERS[decimals]).astype(np.int64) + differences
        product = from_multiples(whole, decimals, 1.0)
    positions[mask] = take_remainders(reader, product).reshape(-1, 3)
    return positions


def have_fractions(positions: np.ndarray, cell: np.ndarray) -> bool:
    """Whether the positions (atoms, 3) of one structure follow from fractional coordinates with eight decimals."""
    owner = np.zeros(len(positions), dtype=np.int64)
    fractions, usable = _fractions(positions, cell[None], owner)
    return bool(usable.all()) and bool(np.abs(positions - _product(fractions, cell[None][owner])).max() <= _ROUNDED)


def _fractions(positions: np.ndarray, cells: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return fractional coordinates (atoms, 3) in units of 1e-8, and (structures,) whether they can be used."""
    inverse = np.zeros_like(cells)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(cells, axis=2).prod(axis=1)
        volumes = np.abs(np.linalg.det(cells))
        usable = np.isfinite(lengths) & (volumes > _FLAT * lengths) & (volumes > 1e-6)
        inverse[usable] = np.linalg.inv(cells[usable])
        fractions = np.einsum("ai,aij->aj", positions, inverse[owner])
    far = ~(np.abs(fractions).max(axis=1, initial=0.0) < _FAR)
    usable[owner[far]] = False
    fractions[~usable[owner]] = 0.0
    return np.rint(fractions * _ONE).astype(np.int64), usable


def _product(fractions: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return positions (atoms, 3); one operation after the other, so that no machine may fuse them."""
    exact = fractions / float(_ONE)
    return exact[:, 0:1] * cells[:, 0] + exact[:, 1:2] * cells[:, 1] + exact[:, 2:3] * cells[:, 2]


def _put_folded(writer: Writer, fractions: np.ndarray) -> None:
    wrapped = fractions % _ONE
    rest = wrapped % _HALF
    upper = rest > _HALF // 2
    writer.words(np.where(upper, _HALF - rest, rest))
    writer.flags(upper)
    writer.flags(wrapped >= _HALF)
    writer.integers(fractions // _ONE)


def _take_folded(reader: Reader, count: int) -> np.ndarray:
    folded = reader.words(count)
    rest = np.where(reader.flags(count), _HALF - folded, folded)
    return rest + _HALF * reader.flags(count) + _ONE * reader.integers(count)
