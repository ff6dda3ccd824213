"""Compilers: which is found, what it is asked for, and what is left of a library that was cut off."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.ops.kernels import compiler as module
from mlip.ops.kernels.compiler import NoCompiler, compile_library, compiler, has_threads, is_whole
from mlip.ops.kernels.convolution_source import convolution_source
from mlip.ops.layout import natural_irreps
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from tests.ops.kernels.programs import SOURCE, fake_compiler


@pytest.fixture(autouse=True)
def _fresh() -> None:
    compiler.cache_clear()
    try:
        compiler()
    except NoCompiler as error:
        pytest.skip(str(error))
    compiler.cache_clear()
    yield
    compiler.cache_clear()


def test_the_users_choice_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = fake_compiler(tmp_path, 'echo "my compiler 1.0"')
    monkeypatch.setenv("CXX", str(mine))
    assert compiler() == (str(mine), "my compiler 1.0")


@pytest.mark.parametrize("program", ["exit 1", "", "\x00"], ids=["fails", "says nothing", "is no program"])
def test_what_does_not_run_is_passed_over(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = fake_compiler(tmp_path, program, "" if program == "\x00" else "#!/bin/sh\n")
    monkeypatch.setenv("CXX", str(broken))
    assert compiler()[0] != str(broken)


def test_none_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    with pytest.raises(NoCompiler, match=r"no C\+\+ compiler"):
        compile_library(SOURCE, tmp_path / "x.so")


def test_code_that_does_not_compile_says_where(tmp_path: Path) -> None:
    with pytest.raises(NoCompiler, match=r"could not build a kernel: .*error"):
        compile_library("int answer( {", tmp_path / "x.so")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoCompiler):
        compile_library(SOURCE, tmp_path / "none" / "x.so")


def test_whole_or_not(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    assert not is_whole(path)
    compile_library(SOURCE, path)
    content = path.read_bytes()
    assert is_whole(path)
    changed = bytearray(content)
    changed[100] ^= 1
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"no library", bytes(changed)):
        path.write_bytes(damaged)
        assert not is_whole(path)


def test_a_compiler_without_openmp_builds_for_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a clang without libomp: the first attempt fails, the second has no option for threads."""
    real, _ = compiler()
    script = f'case "$*" in *-fopenmp*) echo "error: cannot find -lomp" >&2; exit 1;; esac\nexec {real} "$@"'
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, script)))
    compiler.cache_clear()
    assert not compile_library(SOURCE, tmp_path / "x.so")
    assert is_whole(tmp_path / "x.so")
    assert not has_threads()


@pytest.mark.slow
@pytest.mark.parametrize(("lmax", "seconds"), [(2, 15), (3, 60)])
def test_seconds_to_build(lmax: int, seconds: float, tmp_path: Path) -> None:
    """CPU time of the compiler, for 64 channels of natural parity."""
    irreps = natural_irreps(lmax, 64)
    product = ClebschGordanDense(irreps, natural_irreps(lmax), Irreps(irreps), mode="uvu")
    for scalar in ("float", "double"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        compile_library(convolution_source(product.form, scalar), tmp_path / "x.so")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < seconds
    assert torch.get_default_dtype() == torch.float32
