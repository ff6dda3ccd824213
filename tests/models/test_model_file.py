"""The model file: what comes back is bit for bit what went in, and all else is refused in a sentence."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlip.core.errors import MlipError, ModelFileError
from mlip.models.build import build_model
from mlip.models.convolution_network import ConvolutionNetwork
from mlip.models.header import FORMAT_VERSION, read_header
from mlip.models.model_file import load_model, save_model
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import molecule
from tests.components import component_names, compose_model, random_model, small_facet
from tests.models.hamiltonian_cases import HAMILTONIANS, hamiltonian_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.safetensors"
    save_model(target, small_facet().to(torch.float32), {"data": "invented", "energy_rmse": 1.5})
    return target


def tamper(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """Write a copy with another header or other weights."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["mlip"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, weights)
    target = path.with_name("tampered.safetensors")
    save_file(weights, target, {"mlip": json.dumps(header)})
    return target


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", component_names("tensor_product"))
def test_round_trip_is_bit_equal(tmp_path: Path, dtype: torch.dtype, backend: str) -> None:
    model = small_facet(f"model/tensor_product={backend}", "model/pair_term=[zbl]").to(dtype)
    save_model(tmp_path / "m.safetensors", model, {"note": "é"})
    loaded = load_model(tmp_path / "m.safetensors")
    atoms = molecule(model.elements)
    before, after = evaluate(model, atoms), evaluate(loaded, atoms)
    assert all((before[name] == after[name]).all() for name in before)
    assert loaded.dtype == dtype
    assert loaded.metadata == {"note": "é"}
    assert loaded.elements == model.elements
    assert not loaded.training


@pytest.mark.parametrize("name", component_names(""))
def test_every_shipped_model_round_trips(tmp_path: Path, name: str) -> None:
    # Networks of Hamiltonians take seconds at full size.
    model = hamiltonian_model(name) if name in HAMILTONIANS else random_model(compose_model(name))
    save_model(tmp_path / "m.safetensors", model)
    atoms = molecule(model.elements)
    before, after = evaluate(model, atoms), evaluate(load_model(tmp_path / "m.safetensors"), atoms)
    assert set(model.fields) <= set(before)
    assert all((before[field] == after[field]).all() for field in before)
    assert all(np.any(before[field]) for field in model.fields)


def test_backends_share_model_files(tmp_path: Path) -> None:
    """The weights of one Clebsch–Gordan backend run in the other."""
    model = small_facet("model/tensor_product=clebsch_gordan")
    save_model(tmp_path / "m.safetensors", model)
    other = tamper(
        tmp_path / "m.safetensors",
        lambda header, _: header["config"].update(
            tensor_product={
                "_target_": "mlip.ops.tensor_product.clebsch_gordan_dense.ClebschGordanDense",
                "_partial_": True,
            }
        ),
    )
    atoms = molecule(model.elements)
    assert evaluate(load_model(other), atoms)["forces"] == pytest.approx(evaluate(model, atoms)["forces"], abs=1e-11)


def test_dtype_is_the_callers_choice_and_loses_nothing(path: Path) -> None:
    single, double = load_model(path), load_model(path, dtype="float64")
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    state = double.state_dict()
    assert all(torch.equal(value, state[name].float()) for name, value in single.state_dict().items())
    # Constants of the float64 model have all their digits although the file is float32.
    fresh = build_model(double.config, dtype=torch.float64)
    assert all(torch.equal(value, dict(double.named_buffers())[name]) for name, value in fresh.named_buffers())
    round_trip = load_model(path, dtype="float32").to(torch.float64)
    atoms = molecule(double.elements)
    assert (evaluate(round_trip, atoms)["forces"] == evaluate(double, atoms)["forces"]).all()


def test_header_is_the_card(path: Path) -> None:
    header = read_header(path)
    assert header["format_version"] == FORMAT_VERSION
    assert header["elements"] == ["H", "C", "O"]
    assert header["units"]["stress"] == "eV/Å³"
    assert header["metadata"] == {"data": "invented", "energy_rmse": 1.5}


def test_saving_again_keeps_the_card(path: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again.safetensors", load_model(path))
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("device", ["nonsense", "cuda:999"])
def test_missing_device_is_one_sentence(path: Path, device: str) -> None:
    with pytest.raises(MlipError, match="device"):
        load_model(path, device=device)


@pytest.mark.parametrize("dtype", ["float16", "double", 64])
def test_unknown_dtype_is_one_sentence(path: Path, dtype: object) -> None:
    with pytest.raises(MlipError, match="dtype must be one of float32, float64"):
        load_model(path, dtype=dtype)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.3, 0.999])
def test_truncated_file_is_refused(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelFileError, match="truncated or not a safetensors file"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError):
        load_model(tmp_path / "model.safetensors")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelFileError, match="no model file"):
            load_model(path)


def test_foreign_safetensors_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "b.safetensors", {"format": "pt"})
    save_file({"w": torch.ones(2)}, tmp_path / "c.safetensors", {"mlip": "{not json"})
    save_file({"w": torch.ones(2)}, tmp_path / "d.safetensors", {"mlip": "[1, 2]"})
    save_file({"w": torch.ones(2)}, tmp_path / "e.safetensors", {"mlip": '{"format_version": 2}'})
    for name, words in zip("abcde", ("not one of mlip", "not one of mlip", "damaged", "damaged", "lacks config")):
        with pytest.raises(ModelFileError, match=words):
            load_model(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_unknown_format_version_is_refused(path: Path, version: object) -> None:
    with pytest.raises(ModelFileError, match=f"format version {version}"):
        load_model(tamper(path, lambda header, _: header.update(format_version=version)))


@pytest.mark.parametrize(
    "malicious",
    [
        {"_target_": "os.system", "command": "touch MARK"},
        {"_target_": "mlip.core.files.write_text_atomically", "path": "MARK", "text": "x"},
        {"_target_": "mlip.core.build.import_module", "name": "antigravity"},
        {"_target_": "mlip.models.model_file.load_model", "path": "MARK"},
        {"_target_": "torch.load", "f": "MARK"},
    ],
    ids=lambda config: config["_target_"],
)
@pytest.mark.parametrize("place", ["model", "activation", "list"])
def test_model_file_cannot_call_anything(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, malicious: dict[str, str], place: str
) -> None:
    """A file from a stranger names classes of models and nothing else, ours included."""
    monkeypatch.chdir(tmp_path)

    def change(header: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        if place == "model":
            header["config"] = malicious
        else:
            header["config"]["activation"] = [{"x": malicious}] if place == "list" else malicious

    with pytest.raises(ModelFileError, match=r"not allowed|no part of a model|has no"):
        load_model(tamper(path, change))
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize("config", [{}, [], "Facet", None, 3, {"_target_": "mlip.nn.activations.SiLU"}])
def test_configuration_that_is_no_model_is_refused(path: Path, config: object) -> None:
    with pytest.raises(ModelFileError, match=r"cannot build|damaged: config"):
        load_model(tamper(path, lambda header, _: header.update(config=config)))


@pytest.mark.parametrize(("part", "option"), [("envelope", "p"), ("norm", "initial_scale")])
def test_numbers_that_overflow_are_one_sentence(path: Path, part: str, option: str) -> None:
    with pytest.raises(ModelFileError, match="cannot build") as caught:
        load_model(tamper(path, lambda header, _: header["config"][part].update({option: 1e300})))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", [1]),
        ("elements", "H"),
        ("elements", [1, 6, 8]),
        ("cutoff", "4"),
        ("metadata", [1]),
        ("dtype", 32),
        ("elements", ["H", "C", "N"]),
        ("cutoff", 5.0),
    ],
)
def test_damaged_or_contradictory_header(path: Path, key: str, value: object) -> None:
    """What mlip info shows is what the model is."""
    with pytest.raises(ModelFileError, match=f"damaged: .*{key}"):
        load_model(tamper(path, lambda header, _: header.update({key: value})))


def test_nested_header(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "deep.safetensors", {"mlip": "[" * 100_000 + "]" * 100_000})
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(tmp_path / "deep.safetensors")


def test_weights_that_do_not_fit_are_refused(path: Path) -> None:
    def wrong_shape(header: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        weights["embedding"] = torch.zeros(2, 6)

    def missing(header: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        del weights["heads.energy.readouts.0.weights.0"]

    def surplus(header: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        weights["heads.secret"] = torch.zeros(2)

    cases = [
        (wrong_shape, r"'embedding' should have shape \(3, 6\), has \(2, 6\)"),
        (missing, "missing .*heads.energy.readouts"),
        (surplus, "unexpected .*heads.secret"),
    ]
    for change, words in cases:
        with pytest.raises(ModelFileError, match=words):
            load_model(tamper(path, change))


def test_weights_that_are_not_finite_are_refused(path: Path) -> None:
    def change(header: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        weights["heads.energy.readouts.0.weights.0"][0] = float("nan")

    with pytest.raises(ModelFileError, match=r"heads\.energy\.readouts.*not finite"):
        load_model(tamper(path, change))


@pytest.mark.parametrize("dtype", ["float16", 3, None, []])
def test_damaged_dtype_is_refused(path: Path, dtype: object) -> None:
    with pytest.raises(MlipError, match="dtype"):
        load_model(tamper(path, lambda header, _: header.update(dtype=dtype)))


def test_only_models_with_a_configuration_are_saved(tmp_path: Path) -> None:
    model = small_facet()
    model.config = {}
    with pytest.raises(ModelFileError, match="build_model"):
        save_model(tmp_path / "m.safetensors", model)
    assert os.listdir(tmp_path) == []


def test_metadata_that_is_not_json_is_refused_and_nothing_is_written(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ModelFileError, match="metadata"):
        save_model(path, small_facet(), {"model": ConvolutionNetwork})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_full_disk_keeps_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    model = load_model(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The limit makes the write fail half-way, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(MlipError, match="Nothing was written"):
            save_model(path, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.slow
def test_loading_imports_neither_lightning_nor_hydra(path: Path) -> None:
    code = (
        "import sys; import mlip; mlip.load_model(sys.argv[1]); "
        "heavy = ('lightning', 'pytorch_lightning', 'hydra', 'omegaconf', 'matplotlib'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
