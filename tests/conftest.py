"""Fixtures of the whole suite; keep it small."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
import typer.testing
from hypothesis import settings

# The same examples in every run, however loaded the machine is.
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=25)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Modules and tests stay to the end: to look for garbage among them takes a third of the collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once() -> Iterator[None]:
    """The test runner makes all commands anew for every call, which takes longer than most calls that are refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are slower on many threads, and results then depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Measured choices and statistics of the suite do not end up in, or come from, the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _default_dtype_is_untouched() -> Iterator[None]:
    """Fail a test after which torch's default dtype is another one."""
    before = torch.get_default_dtype()
    yield
    after = torch.get_default_dtype()
    torch.set_default_dtype(before)
    assert after == before, f"the default dtype of torch was changed from {before} to {after}"


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of reference data: MLIP_DATA, or ``shared/data`` next to the checkout."""
    folder = Path(os.environ.get("MLIP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set MLIP_DATA to the folder")
    return folder
