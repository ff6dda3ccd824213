"""Random numbers that belong to a structure: drawn from its positions, the same wherever and whenever it appears."""

import torch
from torch import Tensor

from mlip.ops.segment import segment_sum

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def structure_draws(positions: Tensor, batch: Tensor, num_graphs: int, count: int) -> Tensor:
    """Return numbers uniform in [0, 1) that depend on the bits of a structure's positions and on nothing else.

    Neither the batch, the order of the atoms, the device nor a random state changes them. The bits are mixed by the
    finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); structures that are equal to the last bit have equal
    numbers, others have nothing to do with each other.

    Args:
        positions: ``(atoms, 3)`` float64.
        batch: ``(atoms,)`` graph of every atom.
        num_graphs: number of graphs.
        count: numbers for each structure.

    Returns:
        ``(num_graphs, count)`` float64.
    """
    # Adding zero turns −0.0 into 0.0, which has other bits.
    bits = (positions.detach() + 0.0).view(torch.int64)
    axes = torch.arange(1, bits.shape[1] + 1, device=bits.device) * _signed(_GOLDEN)
    atoms = _mix(_mix(bits + axes).sum(dim=1))
    keys = segment_sum(atoms, batch, num_graphs)
    streams = torch.arange(1, count + 1, device=bits.device) * _signed(_GOLDEN)
    return _right(_mix(keys[:, None] + streams), 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    """Map 64-bit integers to 64-bit integers, one to one; overflow wraps."""
    x = (x ^ _right(x, 30)) * _signed(_FIRST)
    x = (x ^ _right(x, 27)) * _signed(_SECOND)
    return x ^ _right(x, 31)


def _right(x: Tensor, shift: int) -> Tensor:
    """Shift right and fill up with zeros, where ``>>`` repeats the sign."""
    return (x >> shift) & ((1 << (64 - shift)) - 1)


def _signed(value: int) -> int:
    """Return the signed integer of the same 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
