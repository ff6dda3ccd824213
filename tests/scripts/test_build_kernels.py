"""The prebuilt kernels of the shipped models: which there are, and that a second run keeps what is there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from mlip.models.build import build_model
from mlip.ops.kernels import processor
from mlip.ops.kernels.choice import kernel_sources
from mlip.ops.kernels.compiler import NoCompiler, compiler, is_whole
from mlip.ops.kernels.library import find_prebuilt
from tests.components import component_names, compose_model


@pytest.mark.slow
def test_kernels_do_not_depend_on_the_data() -> None:
    """What is built without statistics is what a trained model asks for."""
    script = importlib.import_module("build_kernels")
    assert script.shipped_models() == component_names("")
    built = script.sources_of(["facet", "sevennet"])
    for name in ("facet", "sevennet"):
        model = build_model(compose_model(name))
        for dtype in (torch.float32, torch.float64):
            asked = kernel_sources(model, dtype)
            assert asked
            assert set(asked) <= set(built)


def test_unknown_models() -> None:
    script = importlib.import_module("build_kernels")
    with pytest.raises(SystemExit, match=r"^There is no configuration 'face'; known: facet, "):
        script.main(["face"])


@pytest.mark.slow
def test_built_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        compiler()
    except NoCompiler as error:
        pytest.skip(str(error))
    script = importlib.import_module("build_kernels")
    (tmp_path / "old.so").write_text("of a model that is no more")
    script.main(["facet", "--output", str(tmp_path), "--jobs", "2"])
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(first) == len(script.sources_of(["facet"])) * len(processor.LEVELS) == 8
    assert all(is_whole(path) for path in tmp_path.iterdir())
    script.main(["facet", "--output", str(tmp_path)])
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == first
    assert capsys.readouterr().out.count("4 kernels in 8 libraries") == 2
    if processor.portable_levels():
        assert all(find_prebuilt(source, tmp_path) for source in script.sources_of(["facet"]))
