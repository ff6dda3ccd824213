"""How the process treats memory that tensors have freed."""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4

LARGEST_KEPT = 2**31 - 1
"""Bytes at the end of the heap from which freed memory goes back to the system."""

STEP = 64 * 2**20
"""Bytes by which the heap grows."""


def keep_freed_memory() -> bool:
    """Have the process keep the memory of freed tensors for the next ones, instead of giving it back to the system.

    Otherwise every tensor of more than 32 MB is made of pages that the system has to clear first, which takes longer
    than to compute it: MD of thousands of atoms becomes 1.3 times as fast and more, at the cost of some memory
    (docs/kernels.md has numbers). The ``mlip`` command does this; a script may. It cannot be undone.

    Returns:
        Whether that was possible: glibc only, and not with ``MLIP_KEEP_MEMORY=0`` in the environment.
    """
    if os.environ.get("MLIP_KEEP_MEMORY", "1") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, LARGEST_KEPT), mallopt(_TOP_PAD, STEP)])
