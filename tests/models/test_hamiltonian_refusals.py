"""What a Hamiltonian network refuses to be built from, each in one sentence, and at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mlip.core.errors import ConfigError
from mlip.models.build import build_model
from tests.components import component, compose_model
from tests.models.hamiltonian_cases import SHELLS, configuration, onsite

SVP = SHELLS["def2-svp"]


def without(values: dict[str, Any], symbol: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != symbol}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # The basis, its shells, and the mean blocks.
        ({"shells": without(SVP, "C")}, r"shells must name the shells of every element, there are none of C\."),
        ({"shells": SVP | {"C": [0, 0, 0, 1, 1]}}, "shells gives C .*, but in def2-svp it has .*: correct basis or"),
        ({"basis": "sto-3g"}, "shells gives H|correct basis"),
        ({"shells": SVP | {"C": [1, 0]}, "basis": "unknown"}, "must be degrees from 0 to 6, ascending"),
        ({"shells": SVP | {"C": "s p"}}, "shells of C must be a list of degrees"),
        ({"shells": SVP | {"C": [0] * 10**5}}, r"shells of C must be a list of degrees .* got \[0, 0, 0.{40,80}\.$"),
        ({"shells": SVP | {"C": None}}, "shells of C must be a list of degrees"),
        ({"shells": [0, 0, 1]}, "basis must be a name and shells degrees by element"),
        ({"shells": None}, "needs the basis of its orbitals, which data with Hamiltonians state, and these state none"),
        ({"basis": None}, "needs the basis of its orbitals"),
        ({"onsite": without(onsite("def2-svp"), "O")}, "onsite must have a matrix of numbers for degree 0 of O"),
        ({"onsite": onsite("sto-3g")}, "onsite of degree 0 of H must be 2x2"),
        ({"onsite": onsite("def2-svp") | {"H": [[[1, 2], [3, 1]], [[0.0]]]}}, "degree 0 of H must be symmetric and"),
        ({"onsite": onsite("def2-svp") | {"H": [[[1, float("nan")], [2, 1]], [[0.0]]]}}, "symmetric and finite"),
        ({"onsite": onsite("def2-svp") | {"H": [[["a", 0], [0, 1]], [[0.0]]]}}, "a matrix of numbers for degree 0"),
        ({"onsite": 3.0}, "onsite must have a matrix of numbers for degree 0 of H"),
        ({"lmax": 1}, "Blocks in def2-svp have degrees up to 4, products of features up to 2: raise lmax to 2"),
        # Sizes, also absurd ones.
        ({"num_layers": 0}, "num_layers must be a whole number from 1 to 64, got 0"),
        ({"num_layers": 10000}, "num_layers must be a whole number from 1 to 64"),
        ({"num_channels": 10**9}, "num_channels must be a whole number from 1 to 1024"),
        ({"num_channels": 8.0}, "num_channels must be a whole number"),
        ({"bottleneck": True}, "bottleneck must be a whole number"),
        ({"bottleneck": 10**9}, "bottleneck must be a whole number from 1 to 1024"),
        ({"lmax": 100}, "lmax must be a whole number from 0 to 12, got 100"),
        ({"lmax_edge": -1}, "lmax_edge must be a whole number from 0 to 12, got -1"),
        ({"lmax_edge": 0}, "With lmax_edge=0 no feature has a direction: raise it to 1 or more"),
        ({"num_pair_layers": 0}, "num_pair_layers must be from 1 to num_layers = 2, got 0"),
        ({"num_pair_layers": 3}, "num_pair_layers must be from 1 to num_layers = 2, got 3"),
        ({"num_neighbors": 0.0}, "num_neighbors must be the average number of neighbours in the data"),
        ({"num_neighbors": None}, "num_neighbors must be"),
        # Words.
        ({"pairs": "by_elements"}, "pairs must be one of all, by_element, got .* Did you mean 'by_element'"),
        ({"target": "delta"}, "target must be one of hamiltonian, difference"),
        # Components that are not there.
        *(({part: None}, rf"^{part} cannot be null: choose one with model/{part}=NAME\.$") for part in (
            "front_end", "radial", "envelope", "radial_weights", "tensor_product",
        )),
        ({"pair_product": None}, r"choose one with model/tensor_product@model\.pair_product=NAME\.$"),
        ({"pair_product": "so2"}, "pair_product must be a component with _partial_: true, got 'so2'"),
        ({"pair_gate": "quantile"}, "pair_gate must be a component"),
        ({"path_gate": 0.7}, "path_gate must be a component"),
    ],
)  # fmt: skip
def test_refusals(changes: dict[str, Any], words: str) -> None:
    config = configuration("qhnet")
    start = time.process_time()
    with pytest.raises(ConfigError, match=words) as error:
        build_model(config | changes)
    assert time.process_time() - start < 2
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("front_end.cutoff", 8.0, r"The front end looks 8 Å far, the model 6 Å: raise cutoff \(the papers have"),
        ("front_end.long_cutoff", 9.0, "The front end looks 9 Å far"),
        ("front_end.num_heads", 3, "num_channels must be a multiple of num_heads, got 8 and 3"),
        ("front_end.num_layers", 10000, "front_end.num_layers must be a whole number from 1 to 64"),
        ("pair_gate.sparsity", 1.0, "sparsity is the share of pairs to leave out, from 0 to below 1, got 1.0"),
        ("path_gate.sparsity", -0.1, "sparsity is the share of paths to leave out"),
        ("path_gate.random_steps", 0.5, "random_steps must be a whole number of steps, got 0.5"),
        ("path_gate.adaptive_steps", -1, "adaptive_steps must be a whole number of steps"),
        ("num_layers", 1, "The pair gate is in the last of several layers"),
        ("pair_product", component("tensor_product", "matrix"), "A path gate needs a product with weights for every"),
        ("graph", component("graph", "nearest") | {"cutoff": 6.0}, "needs all pairs of atoms, model/graph=radius"),
        (
            "graph",
            component("graph", "radius_max_neighbors") | {"cutoff": 6.0},
            "needs all pairs of atoms, model/graph=radius",
        ),
        ("graph", component("graph", "fully_connected"), "needs all pairs of atoms, model/graph=radius"),
    ],
)
def test_refusals_of_sphnet(option: str, value: Any, words: str) -> None:
    config = configuration("sphnet", "model.num_pair_layers=1")
    *parts, name = option.split(".")
    (config[parts[0]] if parts else config)[name] = value
    with pytest.raises(ConfigError, match=words):
        build_model(config)


def test_the_cutoff_of_potentials_is_too_short_for_sphnet() -> None:
    with pytest.raises(ConfigError, match="looks 9 Å far, the model 4 Å: raise cutoff"):
        build_model(compose_model("sphnet"))


@pytest.mark.parametrize("group", ["pair_gate", "path_gate"])
def test_a_gate_that_has_been_built_is_none(group: str) -> None:
    """Without ``_partial_`` one gate would be shared by all layers."""
    gate = component(group, "quantile" if group == "pair_gate" else "three_phases") | {"_partial_": False}
    gate |= {"num_scalars": 8} if group == "pair_gate" else {"num_paths": 8}
    with pytest.raises(ConfigError, match=f"{group} must be a component with _partial_: true"):
        build_model(configuration("qhnet") | {group: gate})


def test_a_wrong_shell_in_a_basis_that_pyscf_knows() -> None:
    pytest.importorskip("pyscf")
    config = configuration("qhnet", "model.lmax=3", basis="def2-tzvp")
    with pytest.raises(ConfigError, match="in def2-tzvp it has"):
        build_model(config | {"shells": SVP, "onsite": None})
    build_model(config | {"basis": "a basis of mine"})
