"""Libraries in the cache: built once, safe with many processes, and what happens without a compiler."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from mlip.ops.kernels import compiler as module
from mlip.ops.kernels.compiler import NoCompiler, compiler, library_path, load_library

SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path))
    try:
        compiler()
    except NoCompiler as error:
        pytest.skip(str(error))
    return tmp_path


def test_built_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_library(SOURCE).answer() == 42
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("built twice"))
    assert load_library(SOURCE).answer() == 42
    assert library_path(SOURCE) != library_path(SOURCE.replace("42", "43"))


def _answer(_: int) -> int:
    return load_library(SOURCE).answer()


def test_many_processes_at_once(cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_answer, range(4)) == [42] * 4
    assert [path.suffix for path in (cache / "kernels").iterdir()] == [".so"]


def test_code_that_does_not_compile_says_where() -> None:
    with pytest.raises(NoCompiler, match=r"could not build a kernel: .*error"):
        load_library("int answer( {")


def test_a_damaged_library_is_no_crash() -> None:
    path = library_path(SOURCE)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no library")
    with pytest.raises(NoCompiler, match="cannot be loaded"):
        load_library(SOURCE)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.cache_clear()
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    try:
        with pytest.raises(NoCompiler, match="no C\\+\\+ compiler"):
            load_library(SOURCE)
    finally:
        compiler.cache_clear()
