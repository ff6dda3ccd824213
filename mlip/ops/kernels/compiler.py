"""Generated C++ becomes a library: built once for a source, a compiler and a processor, and kept in the cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from mlip.core.errors import MlipError
from mlip.core.files import cache_folder, write_atomically

log = logging.getLogger(__name__)

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-std=c++17", "-shared", "-fPIC")
"""Fused multiply-adds are wanted; nothing that treats NaN or infinity as if they could not be."""

THREADS = "-fopenmp"


class NoCompiler(Exception):
    """There is no compiler, or it cannot build the source."""


@lru_cache(maxsize=1)
def compiler() -> tuple[str, str]:
    """Return a C++ compiler and its version: ``CXX``, g++, clang++ or c++.

    Raises:
        NoCompiler: none of them is there or runs.
    """
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        path = shutil.which(name) if name else None
        if path is None:
            continue
        found = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if found.returncode == 0 and found.stdout:
            return path, found.stdout.splitlines()[0]
    raise NoCompiler("there is no C++ compiler (g++ or clang++)")


@lru_cache(maxsize=1)
def processor() -> str:
    """Return what ``-march=native`` depends on: model and instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = [line for line in lines if line.split(":")[0].strip() in ("model name", "model", "flags", "Features")]
    return f"{platform.machine()} {' '.join(told)}"


def library_path(source: str) -> Path:
    """Return where the library of a source is kept for this compiler and processor.

    Raises:
        NoCompiler: see :func:`compiler`.
    """
    about = "\n".join((source, *compiler(), *FLAGS, processor()))
    return cache_folder() / "kernels" / f"{hashlib.sha256(about.encode()).hexdigest()[:40]}.so"


def load_library(source: str) -> ctypes.CDLL:
    """Return the library of a source, built if it is not in the cache.

    Several processes may ask for the same one at the same time: each builds it, the last one's file stays.

    Raises:
        NoCompiler: there is no compiler, it fails, or nothing can be written.
    """
    path = library_path(source)
    if not path.is_file():
        _build(source, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoCompiler(f"the compiled kernel cannot be loaded: {error}") from error


def _build(source: str, path: Path) -> None:
    command, _ = compiler()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mlip-kernel-") as folder:
        code = Path(folder) / "kernel.cpp"
        code.write_text(source)
        for threads in ((THREADS,), ()):
            built = Path(folder) / "kernel.so"
            arguments = [command, *FLAGS, *threads, "-o", str(built), str(code)]
            result = subprocess.run(arguments, capture_output=True, text=True, check=False)
            # A clang without OpenMP's library builds kernels of one thread.
            if result.returncode == 0:
                break
        else:
            reason = next((line for line in result.stderr.splitlines() if "error" in line), "no reason given")
            raise NoCompiler(f"{command} could not build a kernel: {reason[:200]}")
        try:
            write_atomically(path, lambda temporary: shutil.copyfile(built, temporary))
        except MlipError as error:
            raise NoCompiler(str(error)) from error
    log.info("A kernel was built in %.1f s and is kept in %s.", time.perf_counter() - start, path.parent)
