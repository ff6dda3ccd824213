"""With and without generated kernels: the contract of models, run on every yaml in configs/model, made small."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Batch

from mlip.models.base import AtomisticModel
from mlip.models.model_file import load_model, save_model
from mlip.nn.derivatives import predict, predictable
from mlip.ops.kernels.choice import kernel_sources
from mlip.ops.kernels.compiler import NoCompiler, compiler
from mlip.testing import suite
from mlip.testing.evaluate import evaluate, graph_for
from mlip.testing.structures import molecule
from tests.components import component_names, compose_model, random_model
from tests.models.checked import check, structures_of
from tests.models.hamiltonian_cases import HAMILTONIANS, configuration

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

TINY = ("model.irreps_hidden=2x0e+2x1o", "model.lmax_edge=1", "model.num_layers=2", "model/activation=quadratic")
EVEN = ("model.irreps_hidden=4x0e+2x1e+2x2e", "model.num_layers=2")
SMALLER = {
    "facet": TINY,
    "facet_s": EVEN,
    "facet_270k": EVEN,
    "nequip": ("model.irreps_hidden=4x0e+4x0o+4x1e+4x1o", "model.num_layers=2"),
    "sevennet": ("model.irreps_hidden=6x0e+4x1e+2x2e", "model.num_layers=2", "model.head.energy_fixed.hidden=[3]"),
    "mace": ("model.irreps_hidden=4x0e+4x1o", "model.lmax_edge=2", "model.head.energy_all_layers.scale=0.3"),
    "shape_classifier": (),
}
"""Overrides; a model that is not here is tested as it ships."""
NAMES = [pytest.param(name, marks=() if name == "facet" else pytest.mark.slow) for name in component_names("")]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}


@cache
def original(name: str) -> AtomisticModel:
    found = configuration(name) if name in HAMILTONIANS else compose_model(name, *SMALLER.get(name, ()))
    model = random_model(found, size=0.1)
    # Hamiltonian networks choose their paths.
    model.begin_step(0)
    return model.eval()


def model_with(name: str, kernels: str, dtype: torch.dtype = torch.float64) -> AtomisticModel:
    model = copy.deepcopy(original(name)).to(dtype)
    model.use_kernels(kernels)
    return model


def results(model: AtomisticModel, atoms: Atoms) -> dict[str, Tensor]:
    """Return all that a model predicts, and the gradients of its parameters from all of it."""
    model.zero_grad(set_to_none=True)
    fields = [name for name in predictable(model) if name != "stress" or atoms.pbc.any()]
    found = predict(model, graph_for(model, atoms), fields, create_graph=True)
    total = sum(value.square().sum() for value in found.values() if value.requires_grad)
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in found.items()} | gradients


def off_by(found: Tensor, expected: Tensor, largest: float) -> float:
    return float((found.double() - expected.double()).abs().max()) / largest if found.numel() else 0.0


def structures(model: AtomisticModel) -> dict[str, Atoms]:
    kinds = ("molecule",) if model.config["_target_"].endswith("HamiltonianNetwork") else ("molecule", "skewed cell")
    return {kind: atoms for kind, atoms in structures_of(model).items() if kind in kinds}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_the_same_results_and_gradients(name: str, dtype: torch.dtype) -> None:
    plain, native = (model_with(name, kernels, dtype) for kernels in ("off", "on"))
    assert kernel_sources(native, dtype)
    assert not kernel_sources(plain, dtype)
    for atoms in structures(plain).values():
        expected, found = results(plain, atoms), results(native, atoms)
        assert found.keys() == expected.keys()
        exact = results(model_with(name, "off"), atoms) if dtype == torch.float32 else expected
        for key, value in expected.items():
            # Gradients of a loss of everything are judged by the largest: some are zero up to rounding.
            same_kind = [v for k, v in expected.items() if (k in predictable(plain)) == (key in predictable(plain))]
            one = key in predictable(plain)
            largest = float((value if one else torch.cat([v.flatten() for v in same_kind])).abs().max())
            # Models lose digits in float32, with or without kernels: what plain torch loses is allowed.
            lost = off_by(value, exact[key], largest)
            assert off_by(found[key], value, largest) <= TOLERANCES[dtype] + 3 * lost, key


@pytest.mark.parametrize("name", NAMES)
def test_files_are_the_same(name: str, tmp_path: Path) -> None:
    plain, native = (model_with(name, kernels) for kernels in ("off", "on"))
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in native.state_dict().items()}
    save_model(tmp_path / "plain.safetensors", plain)
    save_model(tmp_path / "native.safetensors", native)
    assert (tmp_path / "plain.safetensors").read_bytes() == (tmp_path / "native.safetensors").read_bytes()
    loaded = load_model(tmp_path / "native.safetensors")
    loaded.use_kernels("on")
    atoms = molecule(plain.elements)
    for key, value in evaluate(loaded, atoms, plain.fields).items():
        expected = evaluate(plain, atoms, plain.fields)[key]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["facet", pytest.param("mace", marks=pytest.mark.slow)])
def test_batches_and_lonely_atoms(name: str) -> None:
    model = model_with(name, "on")
    check(suite.edge_case_rows(model, structures(model)))
    atoms = molecule(model.elements)
    graphs = [graph_for(model, one) for one in (Atoms(model.elements[0]), atoms, Atoms(model.elements[1]))]
    alone = [float(predict(model, graph, ("energy",))["energy"][0]) for graph in graphs]
    together = predict(model, Batch.from_data_list(graphs), ("energy",))["energy"]
    assert together.tolist() == pytest.approx(alone, rel=1e-13)


def _energy(pickled: bytes) -> float:
    torch.set_num_threads(1)
    model, atoms = pickle.loads(pickled)
    return float(evaluate(model, atoms)["energy"])


@pytest.mark.parametrize("name", ["facet", pytest.param("mace", marks=pytest.mark.slow)])
def test_copies_and_inference_mode(name: str) -> None:
    model = model_with(name, "on")
    atoms = molecule(model.elements)
    expected = float(evaluate(model, atoms)["energy"])
    assert float(evaluate(copy.deepcopy(model), atoms)["energy"]) == expected
    assert _energy(pickle.dumps((model, atoms))) == expected
    with torch.inference_mode():
        assert float(model(graph_for(model, atoms))["energy"]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["facet", "mace"])
def test_in_processes_that_are_spawned(name: str) -> None:
    """As loaders and distributed training do."""
    model = model_with(name, "on")
    atoms = molecule(model.elements)
    expected = float(evaluate(model, atoms)["energy"])
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_energy, [pickle.dumps((model, atoms))] * 2) == pytest.approx([expected] * 2, rel=1e-14)
