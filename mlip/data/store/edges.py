"""The edges of a structure: counted, or kept as bytes in the order of the neighbour list."""

from __future__ import annotations

import zlib

import numpy as np
from vesin import NeighborList

from mlip.data.neighbours import Pairs, check_positions, complete_cell, neighbour_list
from mlip.data.store.streams import CHECKSUM_BYTES, checksum, damaged

_BAND = 1e-9
"""Relative distance to the cutoff within which `neighbour_list` itself decides."""

_WIDE = 30.0
"""Cutoffs above which it counts, too: vesin ends the process for some wide and thin structures."""

_HEAD = 11
_LARGEST = 2**32
"""Bytes of a list; a record that claims more is damaged or made to fill the memory."""


class EdgeCounter:
    """Counts as many edges as `mlip.data.neighbours.neighbour_list` lists, in half the time.

    Args:
        cutoff: Å.
    """

    def __init__(self, cutoff: float) -> None:
        self.cutoff = float(cutoff)
        self._finder = NeighborList(cutoff=self.cutoff * (1 + _BAND), full_list=False)

    def __call__(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> int:
        """Return the number of directed edges; arguments and errors as `neighbour_list`."""
        largest = check_positions(positions)
        box = complete_cell(cell, pbc)
        if max(2 * largest, 1.8 * float(np.abs(box).max())) > _WIDE * self.cutoff:
            return len(neighbour_list(positions, cell, pbc, self.cutoff)[0])
        (distances,) = self._finder.compute(points=positions, box=box, periodic=pbc, quantities="d")
        if distances.max(initial=0.0) > self.cutoff * (1 - _BAND):
            return len(neighbour_list(positions, cell, pbc, self.cutoff)[0])
        return 2 * len(distances)


def pack_pairs(pairs: Pairs, num_atoms: int) -> bytes:
    """Return a neighbour list that is ordered by receivers as one record.

    Receivers are stored as the number of edges of each atom, a shift as its number in the box of those that occur.
    """
    senders, receivers, shifts = pairs
    low = shifts.min(axis=0, initial=0)
    span = shifts.max(axis=0, initial=0) - low + 1
    cells = ((shifts[:, 0] - low[0]) * span[1] + (shifts[:, 1] - low[1])) * span[2] + (shifts[:, 2] - low[2])
    parts = (np.bincount(receivers, minlength=num_atoms), senders, cells)
    kinds = [np.min_scalar_type(int(part.max(initial=0))).newbyteorder("<") for part in parts]
    head = np.array([num_atoms, len(senders), *low, *span, *(kind.itemsize for kind in kinds)], dtype="<i8")
    body = b"".join(part.astype(kind).tobytes() for part, kind in zip(parts, kinds, strict=True))
    content = zlib.compress(head.tobytes() + body, 1)
    return checksum(content) + content


def unpack_pairs(record: bytes, where: str) -> Pairs:
    """Return the neighbour list.

    Raises:
        DataError: the record is not what was written.
    """
    if checksum(record[CHECKSUM_BYTES:]) != record[:CHECKSUM_BYTES]:
        raise damaged(where)
    try:
        content = zlib.decompressobj().decompress(record[CHECKSUM_BYTES:], _LARGEST)
        head = np.frombuffer(content, "<i8", count=_HEAD)
        num_atoms, edges = head[:2].tolist()
        low, span = head[2:5], head[5:8]
        arrays, at = [], head.nbytes
        for count, size in zip((num_atoms, edges, edges), head[8:].tolist(), strict=True):
            arrays.append(np.frombuffer(content, f"<u{size}", count=count, offset=at).astype(np.int64))
            at += count * size
        degrees, senders, cells = arrays
        rest, last = np.divmod(cells, span[2])
        shifts = np.stack([*np.divmod(rest, span[1]), last], axis=1) + low
        return senders, np.repeat(np.arange(num_atoms), degrees), shifts
    except (zlib.error, ValueError, IndexError, TypeError) as error:
        raise damaged(where) from error
