"""The most memory that a process, or its tensors on a GPU, have held."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def peak_memory(device: torch.device | None = None) -> int | None:
    """Return the highest memory so far in bytes; None where unknown.

    Args:
        device: of a GPU: that of the tensors there is meant; else, and by default, that of this process.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count what the program had that started this one.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def forget_peak_memory(device: torch.device | None = None) -> None:
    """Have :func:`peak_memory` begin anew with what is held now, where the system can do that (on a CPU: Linux).

    Args:
        device: as there.
    """
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
