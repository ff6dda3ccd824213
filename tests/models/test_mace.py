"""MACE: equal to mace-torch, of the body order it claims, and on any tensor and many-body product."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.build import molecule as g2_molecule
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError
from mlip.data.build_graph import graph_of
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.nn.derivatives import predict
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import isolated_atom, molecule
from tests.components import component, component_names, compose_model, random_model

SMALL = ("model.irreps_hidden=4x0e+4x1o", "model.lmax_edge=2")
LINEAR_READOUT = ("model.head.energy_all_layers.hidden=[]", "model.num_layers=1", "model.irreps_hidden=4x0e")

PEER = {
    # overrides: {structure: (energy, forces of atoms 0 and 3, Σ forces², stress xx yy zz yz xz xy)}
    SMALL: {
        "molecule": (
            -4184.015493971,
            [[4.262422773, 1.450899874, 4.956538688], [-0.044035026, -0.168090159, 0.042795982]],
            117.71587983,
            None,
        ),
        "crystal": (
            -8231.585056593,
            [[-0.910247319, 0.179208828, -0.839600307], [2.469556879, 1.271041415, 1.116247559]],
            52.42887602,
            [-0.1195536598, -0.1394461604, -0.1583749598, -0.0516153659, -0.0117302867, 0.0407681952],
        ),
    },
    ("model.irreps_hidden=4x0e+4x1o+4x2e", "model.lmax_edge=3", "model.residual=true"): {
        "molecule": (
            -4196.197051655,
            [[-2.32030617, 0.108958004, -1.021391515], [0.084711231, -0.241559085, 0.295741197]],
            75.62899664,
            None,
        ),
        "crystal": (
            -8229.130835424,
            [[-0.351574306, 0.421872046, 0.892253754], [-2.306333569, 1.65872401, -2.200785967]],
            39.14702496,
            [-0.0067247284, 0.0325720741, 0.0115745456, 0.0439663548, -0.0576641705, 0.0441569925],
        ),
    },
}
"""What mace-torch 0.3.16 (ScaleShiftMACE, float64) returned with the weights of :func:`fill`: linear maps and MLPs were
copied (but for the ratio of its SiLU's gain to ours), the weights of the symmetric contraction converted by least
squares between the two sets of polynomials, which left a residual of 1e-14."""


def small_mace(*overrides: str, seed: int = 0) -> AtomisticModel:
    """Return a small model with random parameters in float64."""
    return random_model(compose_model("mace", *SMALL, *overrides), seed)


def fill(model: AtomisticModel, seed: int = 3) -> None:
    """Set every parameter to normal numbers of NumPy's, in the order of the names; no shifts and no scales."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = generator.standard_normal(tuple(parameter.shape)).astype(np.float32)
            values = {"scales": 1.0 + 0 * values, "shifts": 0 * values}.get(name.rpartition(".")[2], values)
            parameter.copy_(torch.tensor(values))


def peer_structures() -> dict[str, Atoms]:
    ethanol = g2_molecule("CH3CH2OH")
    ethanol.positions += 0.05 * np.sin(np.arange(ethanol.positions.size)).reshape(-1, 3)
    crystal = bulk("C", "diamond", a=3.57, cubic=True)
    crystal.symbols[3], crystal.symbols[6] = "O", "H"
    crystal.positions += 0.1 * np.cos(np.arange(crystal.positions.size)).reshape(-1, 3)
    return {"molecule": ethanol, "crystal": crystal}


@pytest.mark.parametrize("overrides", list(PEER), ids=["first not residual", "all residual"])
def test_equal_to_mace_torch(overrides: tuple[str, ...]) -> None:
    model = build_model(compose_model("mace", *overrides), dtype=torch.float64)
    fill(model)
    for name, (energy, forces, squares, stress) in PEER[overrides].items():
        found = evaluate(model, peer_structures()[name], ("energy", "forces", "stress")[: 2 + (stress is not None)])
        assert float(found["energy"]) == pytest.approx(energy, abs=1e-8)
        assert np.asarray(found["forces"])[[0, 3]] == pytest.approx(np.array(forces), abs=1e-8)
        assert float(np.square(found["forces"]).sum()) == pytest.approx(squares, abs=1e-6)
        if stress is not None:
            components = np.asarray(found["stress"]).reshape(3, 3)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            assert components == pytest.approx(np.array(stress), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", component_names("tensor_product"))
def test_tensor_products_of_one_operator_give_the_same_model(name: str) -> None:
    """Backends are exchangeable within their operator; all of them start with forces of a usual size."""
    model = small_mace(f"model/tensor_product={name}")
    same = {"clebsch_gordan": "clebsch_gordan_dense", "gaunt": "gaunt_grid"}
    operator = model.layers[0].convolution.tensor_product.operator
    atoms = molecule(model.elements)
    energy = evaluate(model, atoms)["energy"]
    if operator in same:
        reference = small_mace(f"model/tensor_product={same[operator]}")
        assert float(energy) == pytest.approx(float(evaluate(reference, atoms)["energy"]), abs=1e-8)
    fresh = build_model(model.config, dtype=torch.float64)
    assert np.abs(evaluate(fresh, peer_structures()["molecule"])["forces"]).max() < 100.0


def test_gaunt_backends_give_the_same_model() -> None:
    grid, fourier = (small_mace(f"model/many_body={name}") for name in ("gaunt_grid", "gaunt_fourier"))
    atoms = molecule(grid.elements)
    one, other = evaluate(grid, atoms), evaluate(fourier, atoms)
    assert float(one["energy"]) == pytest.approx(float(other["energy"]), abs=1e-9)
    assert one["forces"] == pytest.approx(other["forces"], abs=1e-8)
    assert grid.num_parameters < small_mace().num_parameters


def interaction_of_all(model: AtomisticModel, atoms: Atoms) -> float:
    """Return the term of the many-body expansion that only all atoms together have (inclusion and exclusion)."""
    total = 0.0
    for size in range(1, len(atoms) + 1):
        for kept in combinations(range(len(atoms)), size):
            total += (-1) ** (len(atoms) - size) * float(evaluate(model, atoms[list(kept)])["energy"])
    return total


@pytest.mark.parametrize(
    ("correlation", "many_body"),
    [
        (2, "symmetric_contraction"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in product((1, 2, 3), component_names("many_body"))
            if case != (2, "symmetric_contraction")
        ),
    ],
)
def test_body_order(correlation: int, many_body: str) -> None:
    """One layer and a linear readout: sums of products of ν neighbours are of body order ν + 1, no more and no less."""
    model = small_mace(f"model.correlation={correlation}", f"model/many_body={many_body}", *LINEAR_READOUT)
    positions = [[0, 0, 0], [1.2, 0, 0.1], [0.1, 1.3, 0.2], [-0.2, 0.3, 1.4], [1.0, 1.1, 0.9]]
    atoms = Atoms("CHOHC", positions=positions)
    assert abs(interaction_of_all(model, atoms[: correlation + 1])) > 1e-4
    assert abs(interaction_of_all(model, atoms[: correlation + 2])) < 1e-8


def test_atoms_alone_have_their_reference_energy_without_residual() -> None:
    """Features of an atom without neighbours are zero: nothing is added. A residual layer carries its element."""
    for residual, carried in (("null", False), ("true", True)):
        model = small_mace(f"model.residual={residual}")
        found = [float(evaluate(model, isolated_atom(symbol))["energy"]) for symbol in model.elements]
        with torch.no_grad():
            model.embedding.zero_()
        without = [float(evaluate(model, isolated_atom(symbol))["energy"]) for symbol in model.elements]
        assert [abs(a - b) > 1e-6 for a, b in zip(found, without)] == [carried] * len(found)


def test_layers_may_differ_and_features_keep_what_is_reached() -> None:
    model = small_mace("model.num_layers=3", "model.correlation=[3,2,1]", "model.residual=[false,true,false]")
    assert [layer.many_body.product.correlation for layer in model.layers] == [3, 2, 1]
    assert [layer.residual for layer in model.layers] == [False, True, False]
    assert [layer.irreps_out for layer in model.layers] == [Irreps("4x0e+4x1o")] * 2 + [Irreps("4x0e")]
    high = small_mace("model.irreps_hidden=4x0e+3x2e", "model.lmax_edge=1")
    assert high.layers[0].irreps_out == Irreps("4x0e+3x2e")
    assert high.layers[0].convolution.irreps_out == Irreps("4x0e+4x1o")
    odd = small_mace("model.irreps_hidden=4x0e+4x1o+4x1e")
    assert odd.layers[0].convolution.irreps_out == Irreps("4x0e+4x1o+4x2e")
    assert odd.layers[1].convolution.irreps_out == Irreps("4x0o+4x0e+4x1o+4x1e+4x2o+4x2e").sort().irreps


ODD = "4x0e+4x1o+4x1e"
GAUNT_POWERS = component("many_body", "gaunt_grid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"irreps_hidden": ODD, "many_body": GAUNT_POWERS}, "symmetric_contraction takes any irrep"),
        ({"irreps_hidden": ODD, "tensor_product": component("tensor_product", "gaunt_grid")}, "dense takes any irrep"),
        (
            {"edge_parity": "even", "irreps_hidden": "4x0e+4x1e", "many_body": GAUNT_POWERS},
            "symmetric_contraction takes any irrep",
        ),
        ({"edge_parity": "even"}, "edge_parity=even never reaches"),
        ({"correlation": 5}, "correlation must be 1 to 4"),
        ({"correlation": [2, 3, 1]}, "a list of 2, one for each layer"),
        ({"correlation": True}, "correlation must be a whole number"),
        ({"residual": [1, 0]}, "residual must be true or false"),
        ({"many_body": None}, "^many_body cannot be null: choose one with model/many_body=NAME.$"),
        ({"self_connection": None}, "self_connection cannot be null"),
        ({"num_layers": 0}, "num_layers must be a whole number from 1"),
        ({"irreps_hidden": "4x1o"}, "must start with scalars 0e"),
        ({"correlation": 4, "lmax_edge": 5}, "take fewer degrees, a lower correlation, or gaunt_grid"),
        ({"num_neighbors": 0}, "num_neighbors > 0"),
        ({"radius": 3.0}, "MACE has no option 'radius'"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model({**compose_model("mace", *SMALL), **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name"),
    [
        (group, name)
        for group in ("radial", "envelope", "radial_weights", "self_connection", "head")
        for name in component_names(group)
    ],
)
def test_every_option_of_the_blocks_fits(group: str, name: str) -> None:
    """An ablation exchanges one block: nothing in mace.yaml may be about the block that is gone."""
    chosen = f"model/{group}=[{name}]" if group == "head" else f"model/{group}={name}"
    if name == "direct_forces":
        pytest.skip("the last layer of this small model has no vectors")
    small = ("model.irreps_hidden=2x0e+2x1o", "model.lmax_edge=1", "model.correlation=2")
    model = build_model(compose_model("mace", *small, chosen))
    found = predict(model, graph_of(molecule(model.elements), model.graph_builder), model.fields)
    assert all(torch.isfinite(found[field]).all() for field in model.fields)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model.irreps_hidden=4x0e+4x1e", "model/many_body=gaunt_grid"), "has 1e, which no layer"),
        # A cube of degrees 0 and 1 reaches no degree 4.
        (("model.irreps_hidden=4x0e+3x2e+4x4e",), "has 4e, which no layer"),
        (
            ("model.irreps_hidden=4x0e+4x1o", "model.num_layers=1"),
            "a single layer keeps its scalars only, so leave them out",
        ),
    ],
)
def test_irreps_that_no_layer_has_are_refused(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_model(compose_model("mace", "model.lmax_edge=1", *overrides))
