"""The C++ compiler of this machine, and how generated code becomes a library."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

FLAGS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-std=c++17", "-shared", "-fPIC")
"""Fused multiply-adds are wanted; nothing that treats NaN or infinity as if they could not be."""

THREADS = "-fopenmp"

SEAL = b"mlip"
"""Before the hash that ends a library: what a crash or a full disk has cut off, the loader would trip over."""


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
        try:
            found = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        except OSError:
            # Such as one of another architecture.
            continue
        if found.returncode == 0 and found.stdout:
            return path, found.stdout.splitlines()[0]
    raise NoCompiler("there is no C++ compiler (g++ or clang++)")


def compile_library(source: str, path: Path, march: str = "native", options: tuple[str, ...] = ()) -> bool:
    """Compile and seal a library, see :func:`is_whole`.

    Args:
        source: C++.
        path: of the library, in a folder that is there.
        march: processors that it is for.
        options: more for the compiler.

    Returns:
        Whether it can use several threads: a clang without OpenMP's library builds kernels of one.

    Raises:
        NoCompiler: there is no compiler, it fails, or nothing can be written.
    """
    command, _ = compiler()
    try:
        with tempfile.TemporaryDirectory(prefix="mlip-kernel-") as folder:
            code = Path(folder) / "kernel.cpp"
            code.write_text(source)
            for threads in ((THREADS,), ()):
                arguments = [command, *FLAGS, f"-march={march}", *threads, *options, "-o", str(path), str(code)]
                result = subprocess.run(arguments, capture_output=True, text=True, check=False)
                if result.returncode == 0:
                    content = path.read_bytes()
                    path.write_bytes(content + SEAL + hashlib.sha256(content).digest())
                    return bool(threads)
    except OSError as error:
        raise NoCompiler(f"a kernel cannot be compiled here: {error.strerror or error}") from error
    reason = next((line for line in result.stderr.splitlines() if "error" in line), "no reason given")
    raise NoCompiler(f"{command} could not build a kernel: {reason[:200]}")


def is_whole(path: Path) -> bool:
    """Whether a library is there as :func:`compile_library` has written it, to the last byte."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    end = len(content) - hashlib.sha256().digest_size
    start = end - len(SEAL)
    return start > 0 and content[start:end] == SEAL and hashlib.sha256(content[:start]).digest() == content[end:]


def has_threads() -> bool:
    """Whether the compiler builds kernels of several threads.

    Raises:
        NoCompiler: see :func:`compile_library`.
    """
    with tempfile.TemporaryDirectory(prefix="mlip-kernel-") as folder:
        return compile_library(
            "#include <omp.h>\nint threads() { return omp_get_max_threads(); }\n", Path(folder) / "x.so"
        )
