"""Work row by row in pieces that stay in the cache of a CPU."""

from collections.abc import Callable

import torch
from torch import Tensor

CACHE_BYTES = 2_000_000
"""Size of the intermediate results of one piece. Measured on a CPU core for grid products of 64 channels: 1 to 2 MB are
best, smaller pieces lose to the overhead of the calls, and all rows at once are 3 to 8 times slower (large tensors are
fresh memory from the operating system each time)."""


def in_row_chunks(function: Callable[..., Tensor], *tensors: Tensor, row_bytes: int) -> Tensor:
    """Evaluate a function that treats rows independently, piece by piece on a CPU and at once elsewhere.

    Where gradients are wanted autograd keeps what every piece needs for its backward pass, as it would without pieces.

    Args:
        function: takes pieces of the tensors and returns as many rows.
        tensors: with the same number of rows.
        row_bytes: memory that one row needs inside the function.

    Returns:
        ``function(*tensors)``.
    """
    rows = max(1, CACHE_BYTES // max(1, row_bytes))
    whole = tensors[0].device.type != "cpu" or torch.compiler.is_compiling()
    if whole or rows >= len(tensors[0]):
        return function(*tensors)
    return torch.cat([function(*pieces) for pieces in zip(*(tensor.split(rows) for tensor in tensors))])
