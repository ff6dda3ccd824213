"""Memory of freed tensors, and the most that was held."""

import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mlip.core.peak_memory import forget_peak_memory, peak_memory

COUNT = """
import resource
import sys

import numpy as np

from mlip import keep_freed_memory

done = keep_freed_memory() if sys.argv[1] == "keep" else None
for turn in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)
    last = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(done, last)
"""


def run(keep: str, **environment: str) -> tuple[str, int]:
    """Return what the function said, and the page faults of the last of six 64 MB arrays."""
    result = subprocess.run(
        [sys.executable, "-c", COUNT, keep], capture_output=True, text=True, check=True, env={**environment}
    )
    said, faults = result.stdout.split()
    return said, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_pages_are_cleared_once() -> None:
    assert run("leave")[1] > 200, "otherwise there is nothing to save"
    assert run("keep") == ("True", pytest.approx(0, abs=50))


def test_the_environment_can_forbid_it() -> None:
    assert run("keep", MLIP_KEEP_MEMORY="0")[0] == "False"


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads the memory of a process from /proc")
def test_peak_memory_is_between_what_is_used_and_what_the_system_says() -> None:
    import resource

    resident = 4096 * int(Path("/proc/self/statm").read_text().split()[1])
    peak = peak_memory()
    # The system's number may be that of a larger process that started this one.
    assert resident <= 1.02 * peak
    assert peak <= 1.02 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system does not begin anew")
def test_a_peak_is_forgotten() -> None:
    size = 200_000_000
    forget_peak_memory()
    before = peak_memory()
    # Not a tensor, whose memory the process may keep.
    with mmap.mmap(-1, size) as block:
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
    high = peak_memory()
    assert high - before > 0.95 * size
    forget_peak_memory()
    assert high - peak_memory() > 0.9 * size
