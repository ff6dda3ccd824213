"""How fast this machine multiplies matrices and moves memory: the limits that a computation is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIDE = 1024
"""Rows and columns of the matrices: large enough for full speed, small enough for a tenth of a second."""

COPIED = 2**27
"""Bytes of the array that is copied: far more than any cache."""


@dataclass(frozen=True)
class Roofline:
    """Limits of the cores in use, a second of CPU time.

    Attributes:
        flops: floating-point operations a second, of a product of matrices.
        bandwidth: bytes a second, read and written, of a copy between arrays that are far larger than the caches.
    """

    flops: float
    bandwidth: float

    def seconds(self, flops: float, moved: float) -> float:
        """Return the shortest time for so many operations and bytes: whichever takes longer."""
        return max(flops / self.flops, moved / self.bandwidth)


def measure_roofline(dtype: torch.dtype, seconds: float = 0.7) -> Roofline:
    """Measure both limits on the CPU with the threads that torch has now, for ``seconds`` each; the best of all tries.

    Both are of CPU time, so that other work on the machine does not lower them.
    """
    a, b = torch.randn(2, SIDE, SIDE, dtype=dtype)
    product = torch.empty_like(a)
    source = torch.ones(COPIED // dtype.itemsize, dtype=dtype)
    target = torch.zeros_like(source)
    return Roofline(
        flops=2 * SIDE**3 / _fastest(lambda: torch.mm(a, b, out=product), seconds),
        bandwidth=2 * COPIED / _fastest(lambda: target.copy_(source), seconds),
    )


def _fastest(call: Callable[[], object], seconds: float) -> float:
    """Return the CPU seconds of the fastest of the calls that fit into a time, three at least."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return max(min(times), 1e-9)
