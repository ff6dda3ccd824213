"""Memory of freed tensors."""

import platform
import subprocess
import sys

import pytest

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
