"""The layers of atoms and of pairs: equivariance, what vanishes at the cutoff, and their formulas."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.edges import Edges
from mlip.nn.orbitals.expansion import Expansion
from mlip.nn.orbitals.node_interaction import NodeInteraction
from mlip.nn.orbitals.pair_gate import PairGate
from mlip.nn.orbitals.pair_interaction import PairInteraction, SelfPair
from mlip.nn.orbitals.pair_invariants import PairInvariants
from mlip.nn.orbitals.pair_weights import PairWeights
from mlip.nn.orbitals.path_gate import PathGate
from mlip.ops.layout import natural_irreps, split_blocks
from mlip.ops.orbital_blocks import OrbitalBlocks
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.wigner import wigner_3j
from mlip.testing.wigner import random_rotation, transform
from tests.components import component_names, factory

HIDDEN, EDGE = natural_irreps(2, 4), natural_irreps(2)
SCALARS = Irreps("4x0e")
BLOCKS = OrbitalBlocks([[0, 0, 1], [0, 0, 0, 1, 1, 2]])
PAIR = Irreps([(4, ir) for _, ir in BLOCKS.irreps])
ATOMS, MOLECULES = 6, 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained_like(module: nn.Module, seed: int = 1) -> nn.Module:
    """Return it in float64 with random parameters, biases and scales included."""
    module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


def edges(rotation: Tensor | None = None, invert: bool = False, basis: float = 1.0) -> Edges:
    """Return all pairs of two molecules of four and two atoms."""
    positions = random(ATOMS, 3, seed=5)
    if rotation is not None:
        positions = positions @ rotation.T * (-1 if invert else 1)
    molecule = torch.tensor([0, 0, 0, 0, 1, 1])
    receivers, senders = ((molecule[:, None] == molecule) & ~torch.eye(ATOMS, dtype=torch.bool)).nonzero().unbind(1)
    vectors = positions[senders] - positions[receivers]
    distances = vectors.norm(dim=1)
    radial = basis * torch.exp(-distances[:, None] * torch.linspace(0.2, 2, 5, dtype=torch.float64))
    return Edges(vectors, distances, spherical_harmonics(2, vectors / distances[:, None]), radial, senders, receivers)


MOLECULE = torch.tensor([0, 0, 0, 0, 1, 1])
RADIAL = factory("radial_weights", "mlp")
DENSE = factory("tensor_product", "clebsch_gordan_dense")


def node_layer(scalars_in: bool = False, gated: bool = False) -> NodeInteraction:
    gate = (lambda n: PairGate(n, 0.5)) if gated else None
    return trained_like(NodeInteraction(SCALARS if scalars_in else HIDDEN, EDGE, HIDDEN, 5, 3.0, DENSE, RADIAL, gate))


def pair_layer(gated: bool = False) -> PairInteraction:
    gates = ((lambda n: PairGate(n, 0.5)), (lambda n: PathGate(n, 0.5, 0, 0))) if gated else (None, None)
    layer = trained_like(PairInteraction(HIDDEN, PAIR, 5, DENSE, RADIAL, *gates))
    if gated:
        layer.product.gate.begin_step(0)
    return layer


def self_layer(gated: bool = False) -> SelfPair:
    layer = trained_like(SelfPair(HIDDEN, PAIR, DENSE, (lambda n: PathGate(n, 0.5, 0, 0)) if gated else None))
    if gated:
        layer.product.gate.begin_step(0)
    return layer


def apply(layer: nn.Module, x: Tensor, found: Edges, old: Tensor | None = None) -> Tensor:
    """Call any of the three layers, in the dtype of the features."""
    found = Edges(*(v.to(x.dtype) if v.is_floating_point() else v for v in found[:6]))
    if isinstance(layer, SelfPair):
        return layer(x, old)
    molecule = MOLECULE[found.receivers]
    if isinstance(layer, PairInteraction):
        return layer(x, found, molecule, MOLECULES, old)
    return layer(x, found, molecule, MOLECULES)


LAYERS = {
    "first layer of atoms": lambda: node_layer(scalars_in=True),
    "atoms": node_layer,
    "atoms, gated": lambda: node_layer(gated=True),
    "pairs": pair_layer,
    "pairs, gated": lambda: pair_layer(gated=True),
    "self": self_layer,
    "self, gated": lambda: self_layer(gated=True),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("invert", [False, True])
def test_equivariant(name: str, invert: bool) -> None:
    layer, rotation = LAYERS[name](), random_rotation(1)
    irreps_in = SCALARS if "first" in name else HIDDEN
    irreps_out = HIDDEN if "atoms" in name else PAIR
    x = random(ATOMS, irreps_in.dim)
    turned = apply(layer, transform(x, irreps_in, rotation, invert), edges(rotation, invert))
    found = apply(layer, x, edges())
    assert found.abs().max() > 0.01
    scale = found.abs().max()
    assert (turned - transform(found, irreps_out, rotation, invert)).abs().max() < 1e-12 * scale
    single = deepcopy(layer).float()
    found, turned = (
        apply(single, x.float(), edges()).double(),
        apply(single, transform(x, irreps_in, rotation, invert).float(), edges(rotation, invert)).double(),
    )
    assert (turned - transform(found, irreps_out, rotation, invert)).abs().max() < 2e-5 * scale


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_has_a_gradient(name: str) -> None:
    """None breaks distributed training. ω of fixed paths get zeros, and what reads irreps that no path reaches."""
    layer = LAYERS[name]()
    x = random(ATOMS, (SCALARS if "first" in name else HIDDEN).dim)
    apply(layer, x, edges()).square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    idle = {k.rpartition(".")[0] for k, p in layer.named_parameters() if not p.grad.any()}
    assert idle == ({"product.gate", "linear.weights"} if "gated" in name and "atoms" not in name else set())


@pytest.mark.parametrize("name", ["first layer of atoms", "atoms", "atoms, gated"])
def test_atoms_hear_nothing_where_the_basis_is_zero(name: str) -> None:
    layer = LAYERS[name]()
    x = random(ATOMS, layer.irreps_in.dim)
    found = apply(layer, x, edges(basis=0.0))
    assert torch.equal(found, x if layer.residual else torch.zeros_like(found))


@pytest.mark.parametrize("name", LAYERS)
def test_a_molecule_does_not_see_the_other(name: str) -> None:
    layer = LAYERS[name]()
    x = random(ATOMS, (SCALARS if "first" in name else HIDDEN).dim)
    changed = x.clone()
    changed[4:] += 1.0
    found, other = apply(layer, x, edges()), apply(layer, changed, edges())
    rows = MOLECULE if "pairs" not in name else MOLECULE[edges().receivers]
    assert (found - other)[rows == 0].abs().max() < 1e-13
    assert (found - other)[rows == 1].abs().max() > 1e-3


def test_pairs_that_the_gate_leaves_out_keep_their_features() -> None:
    layer, x = pair_layer(gated=True), random(ATOMS, HIDDEN.dim)
    old = random(14, PAIR.dim, seed=7)
    changed = (apply(layer, x, edges(), old) != old).any(dim=1)
    # Of 12 pairs of the first molecule half, of 2 of the second one; both orders of two atoms score the same.
    assert int(changed[:12].sum()) == 6
    assert int(changed[12:].sum()) == 2
    i, j = edges().receivers[changed], edges().senders[changed]
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == set(zip(j.tolist(), i.tolist(), strict=True))
    first = apply(layer, x, edges())
    assert not first[~changed].any()
    assert torch.allclose(first[changed], (apply(layer, x, edges(), old) - old)[changed], atol=1e-12)


@pytest.mark.parametrize("name", ["pairs", "self"])
def test_layers_add_to_the_features_before(name: str) -> None:
    layer, x = LAYERS[name](), random(ATOMS, HIDDEN.dim)
    old = random(14 if name == "pairs" else ATOMS, PAIR.dim, seed=7)
    assert torch.allclose(apply(layer, x, edges(), old), old + apply(layer, x, edges()), atol=1e-12)


def test_no_pairs() -> None:
    """Single atoms: the gate has nothing to choose from."""
    none = Edges(*(v[:0] for v in edges()[:6]))
    for layer in (node_layer(), node_layer(gated=True), pair_layer(), pair_layer(gated=True)):
        found = apply(layer, random(ATOMS, HIDDEN.dim), none)
        assert found.shape == ((ATOMS, HIDDEN.dim) if isinstance(layer, NodeInteraction) else (0, PAIR.dim))


def test_invariants_against_their_formula() -> None:
    x, senders, receivers = random(3, HIDDEN.dim), torch.tensor([1, 2, 2]), torch.tensor([0, 0, 1])
    sent, received = ([b[k] for b in split_blocks(x, HIDDEN)] for k in (senders, receivers))
    products = [(a * b).sum(dim=1) / (2 * l + 1) for l, (a, b) in enumerate(zip(sent, received, strict=True))]
    both = PairInvariants(HIDDEN)
    assert both.num_scalars == 16
    expected = torch.cat([received[0][:, 0], sent[0][:, 0], *products[1:]], dim=1)
    assert torch.allclose(both(x, senders, receivers), expected, atol=1e-13)
    mean = PairInvariants(HIDDEN, symmetric=True)
    assert mean.num_scalars == 12
    expected = torch.cat([0.5 * (received[0] + sent[0])[:, 0], *products[1:]], dim=1)
    assert torch.allclose(mean(x, senders, receivers), expected, atol=1e-13)
    assert torch.equal(mean(x, receivers, senders), mean(x, senders, receivers))


def coupled(product: TensorProduct, x1: Tensor, x2: Tensor, weight: Tensor) -> list[Tensor]:
    """Multiply one row path by path: ``w c 3j x1 x2``, ``c² = (2l+1) / terms``; blocks of `irreps_out`."""
    blocks1, blocks2 = split_blocks(x1[None], product.irreps_in1), split_blocks(x2[None], product.irreps_in2)
    summed = product.mode == "uuu"
    found = {ir: 0.0 for _, ir in product.irreps_out} if summed else {}
    for number, path in enumerate(product.paths):
        a, b = blocks1[path.in1][0], blocks2[path.in2][0].expand(-1, 4)
        degrees = product.irreps_in1[path.in1].ir.l, product.irreps_in2[path.in2].ir.l, path.ir_out.l
        terms = sum(other.ir_out == path.ir_out for other in product.paths) if summed else 1
        symbol = (path.ir_out.dim / terms) ** 0.5 * wigner_3j(*degrees)
        part = torch.einsum("abc,au,bu->cu", symbol, a, b) * weight[4 * number : 4 * number + 4]
        key = path.ir_out if summed else number
        found[key] = found.get(key, 0.0) + part
    return list(found.values())


@pytest.mark.parametrize("gated", [False, True])
def test_atoms_against_their_formula(gated: bool) -> None:
    """Edge by edge, as the docstring writes it."""
    layer, x, every = node_layer(gated=gated), random(ATOMS, HIDDEN.dim), edges()
    normed = layer.norm(x)
    sent, scalars = (
        layer.inner(layer.gate(normed)),
        layer.invariants(layer.before(normed), every.senders, every.receivers),
    )
    kept, strength = torch.arange(len(scalars)), torch.ones(len(scalars), dtype=torch.float64)
    if gated:
        kept, strength = layer.pair_gate(scalars, MOLECULE[every.receivers], MOLECULES)
        assert len(kept) < len(scalars)
    messages = torch.zeros(ATOMS, layer.tensor_product.irreps_out.dim, dtype=torch.float64)
    for e, factor in zip(kept.tolist(), strength, strict=True):
        weight = layer.weights.radial(every.basis[e : e + 1])[0] * layer.weights.scalars(factor * scalars[e : e + 1])[0]
        blocks = coupled(layer.tensor_product, sent[every.senders[e]], every.harmonics[e], weight)
        messages[every.receivers[e]] += torch.cat([block.flatten() for block in blocks])
    expected = x + layer.linear(messages / 3**0.5)
    assert (apply(layer, x, every) - expected).abs().max() < 1e-12 * expected.abs().max()


def test_pairs_and_atoms_with_themselves_against_their_formulas() -> None:
    layer, own, x, every = pair_layer(), self_layer(), random(ATOMS, HIDDEN.dim), edges()
    normed = layer.norm(x)
    y, scalars = (
        layer.inner(layer.gate_in(normed)),
        layer.invariants(layer.before(normed), every.senders, every.receivers),
    )
    rows = []
    for e in range(len(scalars)):
        weight = layer.weights.radial(every.basis[e : e + 1])[0] * layer.weights.scalars(scalars[e : e + 1])[0]
        blocks = coupled(layer.product.full, y[every.receivers[e]], y[every.senders[e]], weight)
        rows.append(torch.cat([block.flatten() for block in blocks]))
    expected = layer.linear(layer.gate_out(torch.stack(rows)))
    assert (apply(layer, x, every) - expected).abs().max() < 1e-12 * expected.abs().max()
    normed = own.norm(x)
    a, b = (inner(gate(normed)) for inner, gate in zip(own.inner, own.gates, strict=True))
    products = [coupled(own.product.full, a[k], b[k], own.weight) for k in range(ATOMS)]
    rows = torch.stack([torch.cat([block.flatten() for block in blocks]) for blocks in products])
    expected = own.linear(own.gate_out(rows)) + own.skip(normed)
    assert (apply(own, x, every) - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("name", component_names("radial_weights"))
def test_weights_of_some_columns_are_those_of_all(name: str) -> None:
    weights = trained_like(PairWeights(5, 7, 30, factory("radial_weights", name)))
    basis, scalars, columns = random(4, 5), random(4, 7, seed=1), torch.tensor([0, 4, 29, 11])
    every = weights(basis, scalars)
    assert every.shape == (4, 30)
    assert torch.allclose(weights(basis, scalars, columns), every[:, columns], atol=1e-13)
    assert torch.allclose(weights.radial.select(basis, columns), weights.radial(basis)[:, columns], atol=1e-13)
    assert not weights(0 * basis, scalars).any()


def test_expansion_against_its_formula() -> None:
    """Block by block: shells a, b get ``Σ_l sqrt(2l+1) 3j ((1/n) Σ_w W f + δ c)``."""
    expansion = trained_like(Expansion(PAIR, BLOCKS, 3, bottleneck=5, hidden=6))
    features, scalars = random(2, PAIR.dim), random(2, 3, seed=1)
    narrow = split_blocks(expansion.linear(features), expansion.narrow)
    numbers = expansion.dense(scalars)
    start, parts = 0, []
    for (mul, _), block in zip(BLOCKS.irreps, narrow, strict=True):
        weight = numbers[:, start : start + 5 * mul].reshape(2, 5, mul)
        parts.append(torch.einsum("rmw,rwu->rmu", block, weight) / 5)
        start += 5 * mul
    parts[0] = parts[0] + numbers[:, None, start:]
    expected = torch.cat([part.flatten(1) for part in parts], dim=1)
    assert torch.allclose(expansion(features, scalars), expected, atol=1e-13)


@pytest.mark.parametrize("invert", [False, True])
def test_expansion_is_equivariant(invert: bool) -> None:
    expansion, rotation = trained_like(Expansion(PAIR, BLOCKS, 3)), random_rotation(2)
    features, scalars = random(4, PAIR.dim), random(4, 3, seed=1)
    turned = expansion(transform(features, PAIR, rotation, invert), scalars)
    expected = transform(expansion(features, scalars), BLOCKS.irreps, rotation, invert)
    assert (turned - expected).abs().max() < 1e-12 * expected.abs().max()
