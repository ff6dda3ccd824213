"""A model file from a stranger takes no more time and memory than its weights need, whatever its header asks for."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mlip.core.errors import ConfigError, ModelFileError
from mlip.models.build import build_model
from mlip.models.model_file import load_model, save_model
from mlip.models.size_limit import LARGEST_CONSTANT, no_more_than
from tests.components import compose_model, small_facet

HUGE = 10**9


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    save_model(path, small_facet("model/activation=silu"))
    return path


@pytest.mark.parametrize(
    "damage",
    [
        {"num_layers": 10_000},
        {"num_layers": 90},
        {"num_layers": HUGE},
        {"irreps_hidden": f"{HUGE}x0e"},
        {"irreps_hidden": "16000x0e+16000x1o"},
        {"irreps_hidden": "6x0e+4x500e"},
        {"lmax_edge": 500},
        {"radial": {"num_basis": HUGE}},
        {"radial": {"num_basis": 900}},
        {"envelope": {"p": HUGE}},
        {"nonlinearity": {"resolution": [10, HUGE]}},
        {"nonlinearity": {"resolution": [10_000, 10]}},
        {"radial_weights": {"_target_": "mlip.nn.radial_weights.mlp.RadialMLP", "_partial_": True, "hidden": [HUGE]}},
    ],
    ids=str,
)
def test_sizes_that_the_file_does_not_hold_are_refused_at_once(
    file: Path, tmp_path: Path, damage: dict[str, Any]
) -> None:
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["mlip"])
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name, value in damage.items():
        if isinstance(value, dict) and "_target_" not in value:
            value = header["config"][name] | value
        header["config"][name] = value
    save_file(weights, tmp_path / "damaged.safetensors", {"mlip": json.dumps(header)})
    before = time.process_time()
    with pytest.raises(ModelFileError, match="cannot build") as caught:
        load_model(tmp_path / "damaged.safetensors")
    assert time.process_time() - before < 2
    assert "\n" not in str(caught.value)


def test_the_bound_counts_parameters_and_lets_the_right_number_pass() -> None:
    config = compose_model("nequip", "model.num_layers=2", "model.irreps_hidden=4x0e+4x1o")
    weights = build_model(config).state_dict()
    tensors, numbers = len(weights), sum(value.numel() for value in weights.values())
    with no_more_than(tensors, numbers):
        build_model(config)
    for few in ((tensors // 5, numbers), (tensors, numbers // 5)):
        with pytest.raises(ConfigError, match="asks for far more weights than"), no_more_than(*few):
            build_model(config)
    # The bound ends with the block.
    build_model(config)


def test_a_single_tensor_is_refused_before_its_memory_is_taken() -> None:
    with pytest.raises(ConfigError, match="asks for far more weights"), no_more_than(1, 10):
        torch.zeros(10**6, 10**6)
    with pytest.raises(ConfigError, match="asks for far more weights"), no_more_than(1, 10):
        torch.arange(2 * LARGEST_CONSTANT)


def test_other_threads_are_not_counted() -> None:
    done = []
    other = threading.Thread(target=lambda: done.append(nn.Linear(100, 100)))
    with no_more_than(1, 10):
        other.start()
        other.join()
    assert len(done) == 1
