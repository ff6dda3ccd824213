"""Libraries of kernels: kept once, safe with many processes, damaged or unwritable caches, none, and prebuilt ones."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.kernels import choice, convolution, library, processor
from mlip.ops.kernels.compiler import NoCompiler, compile_library, compiler, is_whole
from mlip.ops.kernels.library import build_library, find_library, find_prebuilt, library_path, load_library, prebuild
from mlip.ops.tensor_product import fused
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from tests.components import repository_root
from tests.ops.kernels.programs import SOURCE, fake_compiler


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "PREBUILT", tmp_path / "none")
    remembered = compiler, convolution.functions, choice._say_once, library._warn_of_cache
    for one in remembered:
        one.cache_clear()
    try:
        compiler()
    except NoCompiler as error:
        pytest.skip(str(error))
    yield tmp_path / "cache"
    for one in remembered:
        one.cache_clear()


def lose_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)


def product(irreps: str = "2x0e") -> ClebschGordanDense:
    return ClebschGordanDense(Irreps(irreps), Irreps("0e+1o"), Irreps("0e+1o"), mode="uvu")


def convolved(tp: ClebschGordanDense, kernels: str) -> list[Tensor]:
    """Return sums of messages and their gradients."""
    generator = torch.Generator().manual_seed(0)
    sizes = (4, tp.irreps_in1.dim), (9, tp.irreps_in2.dim), (9, tp.weight_numel)
    tensors = [torch.randn(*size, generator=generator).requires_grad_() for size in sizes]
    senders = torch.randint(4, (9,), generator=generator)
    tp.kernels = kernels
    out = tp.convolve(*tensors, senders, torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3]), 4)
    return [out, *torch.autograd.grad(out.sin().sum(), tensors)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_built_once_and_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert find_library(SOURCE) is None
    assert load_library(SOURCE).answer() == 42
    monkeypatch.setattr(library, "compile_library", lambda *_: pytest.fail("built twice"))
    assert load_library(SOURCE).answer() == 42
    assert library_path(SOURCE) != library_path(SOURCE.replace("42", "43"))
    assert [path.suffix for path in (cache / "kernels").iterdir()] == [".so"]


def test_another_compiler_builds_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = library_path(SOURCE)
    monkeypatch.setattr(library, "compiler", lambda: ("/bin/g++", "g++ 99"))
    assert library_path(SOURCE) != first


def _answer(_: int) -> int:
    return load_library(SOURCE).answer()


@pytest.mark.slow
def test_many_processes_at_once(cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_answer, range(6), chunksize=1) == [42] * 6
    assert [is_whole(path) for path in (cache / "kernels").iterdir()] == [True]


def test_a_damaged_library_is_built_anew() -> None:
    path = build_library(SOURCE)
    content = path.read_bytes()
    for damaged in (b"no library", b"", content[: len(content) // 2]):
        path.write_bytes(damaged)
        assert find_library(SOURCE) is None
    assert load_library(SOURCE).answer() == 42
    assert is_whole(path)


@pytest.mark.slow
def test_a_library_that_does_not_load_is_built_anew() -> None:
    """Such as one of another C library, in a home that several machines share."""
    path = library_path(SOURCE)
    path.parent.mkdir(parents=True)
    compile_library("int nothing();\nint x = nothing();\n", path, options=("-Wl,-z,now",))
    assert find_library(SOURCE) == path
    assert load_library(SOURCE).answer() == 42


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO):
        assert load_library(SOURCE).answer() == 42
        assert load_library(SOURCE.replace("42", "43")).answer() == 43
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be written to. Set MLIP_CACHE" in caplog.text


def test_without_a_compiler_plain_torch_and_one_line(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(fused, "ENOUGH_IN_TRAINING", 0)
    lose_compilers(monkeypatch)
    with caplog.at_level(logging.INFO):
        for tp in (product(), product("3x0e+1x1o")):
            for _ in range(2):
                for one, other in zip(convolved(tp, "auto"), convolved(tp, "off")):
                    assert torch.equal(one, other)
    assert [record.getMessage() for record in caplog.records] == [
        "Plain torch is used, several times slower than generated kernels: there is no C++ compiler (g++ or clang++)."
    ]
    with pytest.raises(ConfigError, match=r"^kernels=on cannot be done: there is no C\+\+ compiler"):
        convolved(product(), "on")


def test_a_compiler_that_fails_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(fused, "ENOUGH_IN_TRAINING", 0)
    script = 'case "$1" in --version) echo "mine 1.0"; exit 0;; esac\n'
    script += f'echo x >> {tmp_path}/calls; echo "fatal error: cc1plus not found" >&2; exit 1'
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, script)))
    compiler.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert_same(convolved(product(), "auto"), convolved(product(), "off"))
    assert (tmp_path / "calls").read_text() == "x\n" * 2, "once with threads, once without"
    assert len(caplog.records) == 1
    assert "cc1plus not found" in caplog.text


def test_what_is_in_the_cache_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    build_library(SOURCE)
    lose_compilers(monkeypatch)
    assert load_library(SOURCE).answer() == 42
    with pytest.raises(NoCompiler):
        load_library(SOURCE.replace("42", "43"))


def with_flags(*flags: str) -> str:
    return f"processor\t: 0\nmodel name\t: A processor\nflags\t\t: fpu {' '.join(flags)}"


@pytest.mark.parametrize(
    ("flags", "levels"),
    [
        (processor.LEVELS["x86-64-v4"], ["x86-64-v4", "x86-64-v3"]),
        (processor.LEVELS["x86-64-v3"], ["x86-64-v3"]),
        (("avx", "avx2"), []),
    ],
)
def test_levels_of_processors(flags: tuple[str, ...], levels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_told", lambda: with_flags(*flags))
    assert processor.portable_levels() == levels


def test_the_best_prebuilt_library_that_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not processor.portable_levels():
        pytest.skip("prebuilt libraries are for Linux on x86-64-v3 and above")
    best, other = prebuild(SOURCE, tmp_path)
    monkeypatch.setattr(library, "PREBUILT", tmp_path)
    monkeypatch.setattr(processor, "_told", lambda: with_flags(*processor.LEVELS["x86-64-v4"]))
    assert find_prebuilt(SOURCE) == best
    best.write_bytes(best.read_bytes()[:1000])
    assert find_prebuilt(SOURCE) == other
    monkeypatch.setattr(processor, "_told", lambda: "")
    assert find_prebuilt(SOURCE) is None
    assert prebuild(SOURCE, tmp_path) == [best, other]
    assert is_whole(best)


@pytest.mark.slow
def test_prebuilt_kernels_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    if not processor.portable_levels():
        pytest.skip("prebuilt libraries are for Linux on x86-64-v3 and above")
    (source,) = product().kernel_sources(torch.float32)
    prebuild(source, tmp_path)
    monkeypatch.setattr(library, "PREBUILT", tmp_path)
    lose_compilers(monkeypatch)
    with caplog.at_level(logging.INFO):
        assert_same(convolved(product(), "on"), convolved(product(), "off"))
    assert not caplog.records


@pytest.mark.slow
def test_prebuilt_kernels_in_a_process_without_compilers(tmp_path: Path) -> None:
    if not processor.portable_levels():
        pytest.skip("prebuilt libraries are for Linux on x86-64-v3 and above")
    (source,) = product().kernel_sources(torch.float32)
    prebuild(source, tmp_path)
    code = (
        "from pathlib import Path; from mlip.ops.kernels import library\n"
        f"library.PREBUILT = Path({str(tmp_path)!r})\n"
        "from tests.ops.kernels.test_library import assert_same, convolved, product\n"
        "assert_same(convolved(product(), 'on'), convolved(product(), 'off')); print('same')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CXX"} | {"PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=repository_root(), capture_output=True, text=True
    )
    assert done.stdout == "same\n", done.stderr
