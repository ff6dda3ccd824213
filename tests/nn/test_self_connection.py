"""Self-connections: one contract for every yaml, and each against e3nn."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import FullyConnectedTensorProduct, Irreps, Linear
from torch import Tensor

from mlip.nn.self_connection.base import SelfConnection
from mlip.nn.self_connection.linear import LinearSelfConnection
from mlip.nn.self_connection.species import SpeciesSelfConnection
from mlip.ops.layout import from_e3nn, split_blocks, to_e3nn
from mlip.testing.wigner import random_rotation, transform
from tests.components import component_names, factory

ELEMENTS = ("H", "C", "O")
IRREPS_IN, IRREPS_OUT = Irreps("6x0e+4x1o+2x2e"), Irreps("7x0e+1x0o+3x1o+2x2e+2x3o")
SPECIES = torch.tensor([0, 1, 2, 0, 2])


def features() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(SPECIES), IRREPS_IN.dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", component_names("self_connection"))
def test_contract(name: str) -> None:
    torch.manual_seed(0)
    block = factory("self_connection", name)(IRREPS_IN, IRREPS_OUT, ELEMENTS).double()
    assert isinstance(block, SelfConnection)
    x = features()
    plain = block(x, SPECIES)
    for invert in (False, True):
        rotation = random_rotation(0)
        found = block(transform(x, IRREPS_IN, rotation, invert), SPECIES)
        assert torch.allclose(found, transform(plain, IRREPS_OUT, rotation, invert), atol=1e-11)
    # Linear in the features, and zero where there is no input.
    assert torch.allclose(block(3 * x, SPECIES), 3 * plain, atol=1e-11)
    blocks = split_blocks(plain, IRREPS_OUT)
    assert not blocks[1].any()
    assert not blocks[4].any()
    assert torch.allclose(block(x[1:2], SPECIES[1:2]), plain[1:2], atol=1e-12)
    plain.square().sum().backward()
    assert all(p.grad.any() for p in block.parameters())


def test_species_against_e3nn() -> None:
    """NequIP's product of features and one-hot elements, which divides by the root of their number as well."""
    ours = SpeciesSelfConnection(IRREPS_IN, IRREPS_OUT, ELEMENTS).double()
    theirs = FullyConnectedTensorProduct(
        IRREPS_IN, f"{len(ELEMENTS)}x0e", IRREPS_OUT, internal_weights=False, shared_weights=True
    ).double()
    # e3nn's weights are (features in, element, features out), path after path.
    weights = {ir: w for (_, ir), w in zip([(m, i) for m, i in IRREPS_OUT if i in IRREPS_IN], ours.weights)}
    paths = [weights[IRREPS_IN[path.i_in1].ir].transpose(0, 1).flatten() for path in theirs.instructions]
    one_hot = torch.eye(len(ELEMENTS), dtype=torch.float64)[SPECIES]
    expected = theirs(to_e3nn(features(), IRREPS_IN), one_hot, torch.cat(paths)) * len(ELEMENTS) ** 0.5
    assert torch.allclose(ours(features(), SPECIES), from_e3nn(expected, IRREPS_OUT), atol=1e-6)


def test_linear_against_e3nn() -> None:
    ours = LinearSelfConnection(IRREPS_IN, IRREPS_OUT, ELEMENTS).double()
    theirs = Linear(IRREPS_IN, IRREPS_OUT, internal_weights=False, shared_weights=True).double()
    weight = torch.cat([w.flatten() for w in ours.linear.weights])
    expected = from_e3nn(theirs(to_e3nn(features(), IRREPS_IN), weight), IRREPS_OUT)
    assert torch.allclose(ours(features(), SPECIES), expected, atol=1e-6)


def test_elements_have_maps_of_their_own() -> None:
    block = SpeciesSelfConnection(IRREPS_IN, IRREPS_OUT, ELEMENTS).double()
    x = features()[:1]
    found = [block(x, torch.tensor([k])) for k in range(len(ELEMENTS))]
    assert not torch.allclose(found[0], found[1])
    with torch.no_grad():
        for weight in block.weights:
            weight[1] = weight[0]
    assert torch.allclose(block(x, torch.tensor([1])), found[0])
    assert torch.allclose(block(x, torch.tensor([2])), found[2])
