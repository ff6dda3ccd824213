"""What the processor of this machine can do."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

_V3 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS: dict[str, tuple[str, ...]] = {"x86-64-v4": _V4, "x86-64-v3": _V3}
"""Portable levels that a compiler knows by these names, the best first, and the flags of Linux that each needs."""


@lru_cache(maxsize=1)
def _told() -> str:
    try:
        return Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return ""


def processor() -> str:
    """Return what ``-march=native`` depends on: model and instruction sets of the processor."""
    lines = _told().splitlines()
    named = [line for line in lines if line.split(":")[0].strip() in ("model name", "model", "flags", "Features")]
    return f"{platform.machine()} {' '.join(named) or platform.processor()}"


def portable_levels() -> list[str]:
    """Return the levels of `LEVELS` that this processor has, the best first; none on other systems than Linux."""
    found: set[str] = set()
    for line in _told().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            found.update(value.split())
    return [level for level, flags in LEVELS.items() if found.issuperset(flags)]
