"""``mlip kernels``, and ``--kernels`` of the commands that use a model, as a user calls them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import Result
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.models.model_file import save_model
from mlip.ops.kernels import convolution
from mlip.ops.kernels.compiler import NoCompiler, compiler
from tests.components import small_facet

SIZE = ("model.elements=[H,O]", "model.irreps_hidden=2x0e+2x1o", "model.lmax_edge=1", "model.num_layers=1")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one kernel: its only layer reads scalars."""
    path = tmp_path_factory.mktemp("kernels") / "model.safetensors"
    save_model(path, small_facet(*SIZE).float(), {})
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    compiler.cache_clear()
    convolution.functions.cache_clear()
    try:
        compiler()
    except NoCompiler as error:
        pytest.skip(str(error))
    yield tmp_path / "cache"
    compiler.cache_clear()
    convolution.functions.cache_clear()


def invoke(*arguments: object) -> str:
    result: Result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """Run what fails; return the one sentence that it says."""
    result: Result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def test_build_list_and_build_again(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = invoke("kernels", "build", path)
    words = r"model\.safetensors, float32: 1 kernel: 1 built in [\d.]+ s, 0 in the cache already$"
    assert re.search(words, output.strip())
    (library,) = (cache / "kernels").iterdir()
    assert library.suffix == ".so"
    assert "1 kernel: 0 built in 0.0 s, 1 in the cache already" in invoke("kernels", "build", path, path)
    told = " ".join(invoke("kernels", "info").split())
    assert "1 kernel, 0.0" in told
    assert compiler()[0] in told
    # A node without a compiler finds them there.
    monkeypatch.setattr(shutil, "which", lambda _: None)
    compiler.cache_clear()
    assert "1 in the cache already" in invoke("kernels", "build", path)
    sentence = refused("kernels", "build", path, "--dtype", "float64")
    words = "No kernel can be built: there is no C++ compiler (g++ or clang++). Install g++ or clang, or set CXX."
    assert sentence.endswith(words)
    assert "there is no C++ compiler" in " ".join(invoke("kernels", "info").split())


@pytest.mark.slow
def test_all_that_a_model_asks_for(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions and many-body products, in training and inference: nothing is compiled afterwards."""
    import torch

    from mlip.nn.derivatives import predict
    from mlip.ops.kernels import library, polynomial
    from mlip.testing.evaluate import graph_for
    from tests.components import compose_model, random_model

    model = random_model(compose_model("mace", "model.irreps_hidden=4x0e+4x1o", "model.lmax_edge=2"))
    save_model(tmp_path / "m.safetensors", model, {})
    polynomial._functions.cache_clear()
    output = invoke("kernels", "build", tmp_path / "m.safetensors", "--dtype", "float64")
    assert "m.safetensors, float64: 4 kernels: 4 built in" in output
    monkeypatch.setattr(library, "compile_library", lambda *_: pytest.fail("built again"))
    model.use_kernels("on")
    for mode in (model.train(), model.eval()):
        predict(mode, graph_for(model, molecule("CH3CH2OH")), create_graph=mode.training)["forces"].sum()
    assert len(list((cache / "kernels").iterdir())) == 4
    assert model.dtype == torch.float64


@pytest.mark.slow
def test_a_cache_that_cannot_be_written(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "file"))
    assert refused("kernels", "build", path).count("Cannot write ") == 1


def test_bad_input(tmp_path: Path, path: Path) -> None:
    assert "no model file" in refused("kernels", "build", tmp_path / "none.safetensors")
    assert "dtype must be one of" in refused("kernels", "build", path, "--dtype", "half")


def test_models_without_kernels(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", small_facet(*SIZE, "model/tensor_product=clebsch_gordan"), {})
    output = invoke("kernels", "build", tmp_path / "m.safetensors")
    assert output.strip().endswith("m.safetensors, float64: none of its products has a kernel")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("kernels", ["off", pytest.param("on", marks=pytest.mark.slow)])
def test_evaluate_with_the_kernels_that_are_chosen(kernels: str, path: Path, tmp_path: Path, cache: Path) -> None:
    frame = molecule("H2O")
    frame.calc = SinglePointCalculator(frame, energy=-1.0, forces=frame.positions)
    write(tmp_path / "water.xyz", [frame] * 2)
    folder = tmp_path / "results"
    invoke("evaluate", path, f"data={tmp_path / 'water.xyz'}", "--output", folder, "--kernels", kernels)
    assert json.loads((folder / "metrics.json").read_text())["kernels"] == kernels
    assert (cache / "kernels").exists() == (kernels == "on")


@pytest.mark.slow
@pytest.mark.parametrize("command", [("relax", "--steps", "2"), ("md", "--steps", "2")])
def test_commands_that_move_atoms(command: tuple[str, ...], path: Path, tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "water.xyz", molecule("H2O"))
    for kernels in ("off", "on"):
        arguments = (command[0], tmp_path / "water.xyz", "--model", path, *command[1:])
        invoke(*arguments, "--output", tmp_path / kernels, "--kernels", kernels)
        assert (cache / "kernels").exists() == (kernels == "on")


@pytest.mark.slow
def test_the_doctor_names_the_compiler(path: Path) -> None:
    write(path.parent / "water.xyz", molecule("H2O"))
    output = CliRunner().invoke(app, ["doctor", str(path), str(path.parent / "water.xyz")]).output
    assert f"Kernels: {compiler()[0]}" in output
    assert "with OpenMP" in output or "one thread" in output
