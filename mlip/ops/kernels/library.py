"""Libraries of kernels: built once for a source, a compiler and a processor, kept in the cache, or shipped prebuilt."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import ParamSpec

from torch import Tensor

from mlip.core.errors import MlipError
from mlip.core.files import cache_folder, write_atomically
from mlip.ops.kernels.compiler import FLAGS, NoCompiler, compile_library, compiler, is_whole
from mlip.ops.kernels.processor import LEVELS, portable_levels, processor

log = logging.getLogger(__name__)

P = ParamSpec("P")

PREBUILT = Path(__file__).parent / "prebuilt"
"""Folder of the libraries that are shipped for machines without a compiler; may be missing."""

PORTABLE = ("-s", "-static-libgcc", "-Wl,--as-needed")
"""Options of prebuilt libraries: they need nothing but the C library and OpenMP's, which torch has loaded."""


def kernels_folder() -> Path:
    """Return where libraries are kept."""
    return cache_folder() / "kernels"


def library_path(source: str) -> Path:
    """Return where the library of a source is kept for this compiler and processor.

    Raises:
        NoCompiler: see :func:`~mlip.ops.kernels.compiler.compiler`.
    """
    return kernels_folder() / f"{_stem(source)}-{_digest(*compiler())[:8]}.so"


def find_library(source: str) -> Path | None:
    """Return the whole library of a source in the cache: this compiler's, or, where there is none, anyone's."""
    try:
        candidates = [library_path(source)]
    except NoCompiler:
        candidates = sorted(kernels_folder().glob(f"{_stem(source)}-*.so"))
    return next((path for path in candidates if is_whole(path)), None)


def build_library(source: str) -> Path:
    """Build the library of a source into the cache; return its path.

    Several processes may do so at the same time: each builds it, the last one's file stays.

    Raises:
        NoCompiler: there is no compiler, or it fails.
        MlipError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="mlip-kernel-") as folder:
        built = Path(folder) / "kernel.so"
        compile_library(source, built)
        return _keep(source, built)


def load_library(source: str) -> ctypes.CDLL:
    """Return the library of a source: from the cache, built now, or prebuilt.

    Where the cache cannot be written to, it is built for this process alone.

    Raises:
        NoCompiler: there is no compiler or it fails, and nothing is prebuilt.
    """
    kept = find_library(source)
    if kept is not None:
        try:
            return _open(kept)
        except NoCompiler:
            log.debug("%s cannot be loaded and is built anew.", kept)
    try:
        return _build_and_open(source)
    except NoCompiler:
        prebuilt = find_prebuilt(source)
        if prebuilt is None:
            raise
        return _open(prebuilt)


def prebuilt_path(source: str, level: str, folder: Path = PREBUILT) -> Path:
    """Return where the library of a source is for one of :data:`~mlip.ops.kernels.processor.LEVELS`."""
    return folder / f"{_digest(source, *FLAGS, *PORTABLE)[:32]}-{level}.so"


def find_prebuilt(source: str, folder: Path | None = None) -> Path | None:
    """Return the prebuilt library of a source for the best level that this processor has; None if there is none."""
    candidates = (prebuilt_path(source, level, folder or PREBUILT) for level in portable_levels())
    return next((path for path in candidates if is_whole(path)), None)


def prebuild(source: str, folder: Path) -> list[Path]:
    """Build the library of a source for all levels, those that are there left out; return the paths of all.

    Raises:
        NoCompiler: there is no compiler, it fails, or nothing can be written.
    """
    paths = [prebuilt_path(source, level, folder) for level in LEVELS]
    folder.mkdir(parents=True, exist_ok=True)
    for path, level in zip(paths, LEVELS):
        if not is_whole(path) and not compile_library(source, path, level, PORTABLE):
            path.unlink()
            raise NoCompiler("the compiler has no OpenMP: prebuilt kernels would run on one thread")
    return paths


def remembered(load: Callable[P, ctypes.CDLL]) -> Callable[P, ctypes.CDLL]:
    """Have a function asked once for every set of arguments, also where it raises `NoCompiler`.

    A compiler that fails would otherwise be run at every step.
    """

    @lru_cache(maxsize=256)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> ctypes.CDLL | str:
        try:
            return load(*args, **kwargs)
        except NoCompiler as error:
            return str(error)

    @wraps(load)
    def loaded(*args: P.args, **kwargs: P.kwargs) -> ctypes.CDLL:
        found = attempt(*args, **kwargs)
        if isinstance(found, str):
            raise NoCompiler(found)
        return found

    loaded.cache_clear = attempt.cache_clear
    return loaded


def pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    """Return where the numbers of tensors begin, as functions of libraries take it; null for None."""
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def _build_and_open(source: str) -> ctypes.CDLL:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mlip-kernel-") as folder:
        built = Path(folder) / "kernel.so"
        compile_library(source, built)
        try:
            kept = _keep(source, built)
        except MlipError:
            _warn_of_cache(kernels_folder())
            # The file may go once it is open.
            return _open(built)
    log.info("A kernel was built in %.1f s and is kept in %s.", time.perf_counter() - start, kept.parent)
    return _open(kept)


def _keep(source: str, built: Path) -> Path:
    path = library_path(source)
    write_atomically(path, lambda temporary: temporary.write_bytes(built.read_bytes()) and None)
    return path


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoCompiler(f"the compiled kernel cannot be loaded: {error}") from error


def _stem(source: str) -> str:
    return _digest(source, *FLAGS, processor())[:32]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@lru_cache(maxsize=1)
def _warn_of_cache(folder: Path) -> None:
    log.warning("Kernels are built anew in every process: %s cannot be written to. Set MLIP_CACHE.", folder)
