"""The convolution family: published sizes, parity of the edges, and every combination of its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.models.convolution_network import ConvolutionNetwork
from mlip.testing import suite, symmetry
from mlip.testing.evaluate import evaluate, rms
from mlip.testing.structures import molecule
from tests.components import SMALL, component, component_names, compose_model, random_model, small_facet

EVEN = ("model.edge_parity=even", "model.irreps_hidden=6x0e+4x1e+2x2e", "model.num_layers=2")
FAMILIES = {
    "facet": ("facet", SMALL),
    "facet, even": ("facet", EVEN),
    "nequip": ("nequip", ("model.irreps_hidden=4x0e+2x0o+2x1e+4x1o+2x2e+2x2o", "model.num_layers=3")),
    "sevennet": ("sevennet", EVEN[1:]),
}
GAUNT = ("auto_gaunt", "gaunt_fourier", "gaunt_grid", "gaunt_so2", "gaunt_sparse")
NATURAL_ONLY = (*GAUNT, "so2")
"""Tensor products that know no even labels: functions on the sphere and directions have parities (-1)^l."""


def with_elements(config: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the configuration for the first elements of the periodic table."""
    symbols = chemical_symbols[1 : number + 1]
    energies = dict.fromkeys(symbols, 0.0)
    heads = {name: {**head, "atomic_energies": energies} for name, head in config["head"].items()}
    return {**config, "elements": symbols, "head": heads}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_number_of_parameters() -> None:
    """270,383 of Facet's small model, with as many rows of the embedding: the account of docs/facet.md."""
    model = build_model(with_elements(compose_model("facet_270k"), 90))
    assert model.num_parameters == 270_383
    assert model.symmetry == "SO3"
    assert model.embedding.numel() == 11_520
    # Frequencies, and the range of the envelope.
    assert count(model.edges) == 9
    rows = [
        [count(part) for part in (c.radial_weights, c.linear, c.self_connection, layer.nonlinearity, layer.norm)]
        for layer in model.layers
        for c in [layer.convolution]
    ]
    assert rows == [
        [4_096, 23_552, 16_384, 28_672, 184],
        [8_448, 39_936, 17_728, 28_672, 184],
        [1_472, 23_552, 16_384, 49_152, 128],
    ]
    # Linear map, and scale and shift: of the elements, and of all.
    assert count(model.heads) == 128 + 2 * 90 + 2
    assert model.exactly_equivariant is False


def test_published_shapes_of_facet_s() -> None:
    model = build_model(with_elements(compose_model("facet_s"), 90))
    layers = [layer.irreps_out for layer in model.layers]
    assert layers == [Irreps("128x0e+64x1e+32x2e")] * 2 + [Irreps("64x0e")]
    assert model.edges.irreps == Irreps("0e+1e+2e")
    assert model.heads["energy_common"].readouts[0].weights[0].shape == (64, 1)


def test_fresh_facet_of_the_paper_is_the_reference_atoms() -> None:
    """Norms that start at zero: no atom sees another, but every scale of a norm has a gradient."""
    model = build_model(compose_model("facet_270k"), dtype=torch.float64)
    assert not evaluate(model, molecule(model.elements))["forces"].any()
    assert not any(layer.norm.scales.any() for layer in model.layers)


def inversion_error(model: AtomisticModel) -> float:
    """Return the error of the forces under inversion, over their RMS."""
    atoms = molecule(model.elements)
    plain = evaluate(model, atoms)["forces"]
    inverted = evaluate(model, symmetry.transformed(atoms, -np.eye(3)))["forces"]
    return rms(inverted + plain) / rms(plain)


def test_even_parity_knows_rotations_and_not_inversion() -> None:
    config = {**compose_model("facet", *SMALL), "edge_parity": "even", "irreps_hidden": "6x0e+4x1e+2x2e"}
    even = random_model({**config, "num_layers": 3})
    assert even.symmetry == "SO3"
    # What is checked is what is declared: rotations, and no inversion among them.
    errors = symmetry.equivariance_errors(even, molecule(even.elements))
    assert max(errors.values()) < 1e-9
    assert inversion_error(even) > 1e-3
    # A pseudoscalar needs a cross product and a dot product of what came before: three layers.
    assert inversion_error(random_model(config)) < 1e-9
    natural = small_facet()
    assert natural.symmetry == "O3"
    assert inversion_error(natural) < 1e-9


@pytest.mark.parametrize(("lmax", "natural", "even"), [(1, 4, 5), (2, 11, 15), (3, 23, 34)])
def test_even_parity_has_the_antisymmetric_paths(lmax: int, natural: int, even: int) -> None:
    """Paths (l1, l2, l3) up to lmax by counting: with l1 + l2 + l3 even, and all."""
    config = {**compose_model("facet", *SMALL), "num_layers": 3, "lmax_edge": lmax}
    found = []
    for parity, labels in (("natural", "eoeo"), ("even", "eeee")):
        irreps = "+".join(f"2x{l}{labels[l]}" for l in range(lmax + 1))
        model = build_model({**config, "edge_parity": parity, "irreps_hidden": irreps})
        found.append(len(model.layers[1].convolution.tensor_product.paths))
    assert found == [natural, even]


@pytest.mark.parametrize("name", NATURAL_ONLY)
def test_products_without_even_labels_refuse_and_name_one_that_takes_them(name: str) -> None:
    with pytest.raises(ConfigError, match="clebsch_gordan_dense"):
        build_model({**compose_model("facet", *EVEN), "tensor_product": component("tensor_product", name)})


@pytest.mark.parametrize("irreps", ["16x0e+8x1o+4x2e+2x3o", "5x0e+3x1o", "4x0e+6x1o+2x2e"])
def test_ragged_channels(irreps: str) -> None:
    config = {**compose_model("facet", *SMALL), "irreps_hidden": irreps, "lmax_edge": 3}
    model = random_model({**config, "nonlinearity": {**config["nonlinearity"], "num_heads": 1}})
    assert model.layers[0].irreps_out == Irreps(irreps)
    assert max(symmetry.equivariance_errors(model, molecule(model.elements, num_atoms=4), 2).values()) < 1e-9


def check_equivariant(model: AtomisticModel) -> None:
    assert isinstance(model, ConvolutionNetwork)
    assert model.exactly_equivariant
    rows = list(suite.equivariance_rows(model, "molecule", molecule(model.elements, num_atoms=4)))
    assert all(row.passed for row in rows), rows


@pytest.mark.slow
@pytest.mark.parametrize("name", component_names("tensor_product"))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_every_tensor_product(family: str, name: str) -> None:
    """It builds and is equivariant, or one sentence names a product that takes this model."""
    model, overrides = FAMILIES[family]
    config = compose_model(model, *overrides, f"model/tensor_product={name}")
    refusing = NATURAL_ONLY if config["edge_parity"] == "even" else GAUNT if family == "nequip" else ()
    if name in refusing:
        with pytest.raises(ConfigError, match="clebsch_gordan_dense"):
            build_model(config)
    else:
        check_equivariant(random_model(config))


CHOICES = [
    (group, name)
    for group in ("radial", "envelope", "radial_weights", "self_connection", "nonlinearity")
    for name in component_names(group)
]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), CHOICES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_every_block(family: str, group: str, name: str) -> None:
    model, overrides = FAMILIES[family]
    config = compose_model(model, *overrides, "model/activation=quadratic", f"model/{group}={name}")
    if family == "nequip" and name.startswith("sphere_mixer"):
        with pytest.raises(ConfigError, match="model/nonlinearity=gate takes any"):
            build_model(config)
    else:
        check_equivariant(random_model(config))


@pytest.mark.parametrize(
    ("irreps", "missing"),
    [("4x0e+4x1e", "1e"), ("4x0e+4x3o", "3o"), ("4x0e+2x0o+2x1o", "0o"), ("4x0e+2x1o+2x4e", "4e")],
)
def test_irreps_that_no_layer_reaches_are_refused(irreps: str, missing: str) -> None:
    config = {**compose_model("nequip"), "irreps_hidden": irreps}
    with pytest.raises(ConfigError, match=f"has {missing}, which no layer reaches"):
        build_model(config)


def test_mixers_create_what_convolutions_do_not_reach() -> None:
    """3o from edges of degree 1: the mixer makes it from powers of vectors, a gate cannot."""
    config = {**compose_model("facet", *SMALL), "irreps_hidden": "4x0e+4x1o+2x3o", "lmax_edge": 1}
    check_equivariant(random_model(config))
    with pytest.raises(ConfigError, match="3o, which no layer reaches"):
        build_model({**config, "nonlinearity": component("nonlinearity", "gate")})
    with pytest.raises(ConfigError, match="1e, which no layer reaches"):
        build_model({**config, "irreps_hidden": "4x0e+4x1e"})


def test_fresh_nequip_is_calm() -> None:
    """Gates multiply: without a small start of its messages the forces of this model are millions of eV/Å."""
    model = build_model(compose_model("nequip"), dtype=torch.float64)
    scale = model.config["head"]["energy"]["scale"]
    assert 0.1 < rms(evaluate(model, molecule(model.elements))["forces"]) / scale < 30.0
