"""Front ends of Hamiltonian networks: what must not change their scalars, and that these change smoothly."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError
from mlip.data.build_graph import build_graph
from mlip.models.base import graph_index
from mlip.nn.edges import EdgeFeatures
from mlip.nn.fragments import fragments
from mlip.nn.front_end.base import FrontEnd
from mlip.nn.front_end.vectorial import Vectorial
from mlip.nn.vector_layer import Links, VectorLayer
from mlip.testing.symmetry import random_orthogonal, transformed
from tests.components import component_names, factory

NUMBERS = [1, 6, 8]
CUTOFF = 9.0
NAMES = component_names("front_end")


def made(name: str = "vectorial", dtype: torch.dtype = torch.float64, **options: object) -> FrontEnd:
    """Return a front end with random parameters, biases and scales included."""
    torch.manual_seed(0)
    front_end = factory("front_end", name)(NUMBERS, 8, **options).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in front_end.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return front_end


def scalars(front_end: FrontEnd, *molecules: Atoms, cutoff: float = CUTOFF) -> np.ndarray:
    """Return the scalars of all atoms of a batch."""
    dtype = next(front_end.parameters()).dtype
    graph = Batch.from_data_list([build_graph(atoms, cutoff) for atoms in molecules])
    edges = EdgeFeatures(1, factory("radial", "bernstein"), factory("envelope", "exponential"), cutoff).to(dtype)
    batch, species = graph_index(graph), torch.tensor([NUMBERS.index(z) for z in graph.atomic_numbers.tolist()])
    with torch.no_grad():
        found = front_end(species, edges(graph, batch, dtype), graph.positions, batch, len(molecules))
    assert found.dtype == dtype
    return found.numpy()


def ethanol(seed: int = 0, size: float = 0.05) -> Atoms:
    """Return a rattled ethanol."""
    atoms = molecule("CH3CH2OH")
    atoms.positions += size * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    return atoms


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    front_end, atoms = made(name), ethanol()
    assert isinstance(front_end, FrontEnd)
    plain = scalars(front_end, atoms)
    assert plain.shape == (9, 8)
    scale = np.abs(plain).max()
    for seed in range(4):
        turned = transformed(atoms, random_orthogonal(seed, proper=seed % 2 == 0))
        turned.positions += [3.0, -7.0, 11.0]
        assert np.abs(scalars(front_end, turned) - plain).max() < 1e-12 * scale
    order = np.random.default_rng(0).permutation(9)
    assert np.abs(scalars(front_end, atoms[order]) - plain[order]).max() < 1e-12 * scale
    others = [Atoms("H"), molecule("H2"), atoms, Atoms("O"), molecule("CH4")]
    together = np.split(scalars(front_end, *others), np.cumsum([len(one) for one in others])[:-1])
    for one, found in zip(others, together, strict=True):
        assert np.isfinite(found).all()
        assert np.abs(found - scalars(front_end, one)).max() < 1e-12 * scale
    single = deepcopy(front_end).float()
    assert np.abs(scalars(single, atoms) - plain).max() < 1e-4 * scale


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_gradient(name: str) -> None:
    """Vectors begin at zero and only scalars are read: no layer has weights for what is not there."""
    options = [{}] if name == "species" else [{}, {"num_long_layers": 0}, {"num_layers": 1, "num_long_layers": 1}]
    for option in [*options, *([{"num_layers": 1, "num_long_layers": 0}] if name == "vectorial" else [])]:
        front_end, graph = made(name, **option), build_graph(Atoms("CHO", positions=ethanol().positions[:3]), CUTOFF)
        edges = EdgeFeatures(1, factory("radial", "bernstein"), factory("envelope", "exponential"), CUTOFF).double()
        batch, species = graph_index(graph), torch.tensor([1, 0, 2])
        front_end(species, edges(graph, batch, torch.float64), graph.positions, batch, 1).square().sum().backward()
        assert not [k for k, p in front_end.named_parameters() if p.grad is None or not p.grad.any()]


def line(start: float, stop: float, count: int) -> list[Atoms]:
    """Return methanols with a hydroxyl group (whole, so that fragments stay) at distances from the carbon."""
    base = molecule("CH3OH")
    base.positions -= base.positions[0]
    direction = base.positions[1] / np.linalg.norm(base.positions[1])
    found = []
    for distance in np.linspace(start, stop, count):
        atoms = base.copy()
        for k in (1, 3):
            atoms.positions[k] += (distance - base.get_distance(0, 1)) * direction
        found.append(atoms)
    return found


@pytest.mark.parametrize("options", [{"num_long_layers": 0}, {}])
def test_nothing_jumps_when_neighbours_leave(options: dict[str, int]) -> None:
    """Values and slopes are continuous while a group passes the short and the long cutoff (4 and 6 Å)."""
    front_end = made(cutoff=4.0, long_cutoff=6.0, **options)
    molecules = line(2.5, 7.0, 901)
    values = scalars(front_end, *molecules).reshape(len(molecules), -1)
    assert np.ptp(values, axis=0).max() > 0.01
    for order, ratio in ((1, 0.6), (2, 0.35)):
        fine, coarse = (np.abs(np.diff(values[::k], order, axis=0)).max(axis=1) for k in (1, 2))
        # Half the step has half the differences, a quarter of the second ones, unless a value or a slope jumps.
        nearby = np.array([coarse[max(0, k // 2 - 4) : k // 2 + 4].max() for k in range(len(fine))])
        assert (fine < ratio * nearby + 1e-12).all()


def test_beyond_both_cutoffs_there_is_nothing() -> None:
    """Neither in the value nor in where the model's own cutoff is."""
    front_end = made(cutoff=4.0, long_cutoff=6.0)
    near, far = line(8.5, 9.5, 2)
    assert np.array_equal(scalars(front_end, near), scalars(front_end, far)) or (
        np.abs(scalars(front_end, near) - scalars(front_end, far)).max() < 1e-12
    )
    assert np.abs(scalars(front_end, ethanol()) - scalars(front_end, ethanol(), cutoff=6.0)).max() < 1e-12


def test_an_atom_in_the_centre_of_its_fragment_is_nothing_special() -> None:
    """Methane's carbon: the direction to the centre of charge would be that of the noise."""
    front_end, plain = made(), molecule("CH4")
    exact = scalars(front_end, plain)
    for size in (1e-9, 1e-7, 1e-5):
        moved = plain.copy()
        moved.positions[0] += size * np.array([0.6, 0.0, 0.8])
        assert np.abs(scalars(front_end, moved) - exact).max() < 100 * size


def test_atoms_on_top_of_each_other_are_finite() -> None:
    assert np.isfinite(scalars(made(), Atoms("CHO", positions=[[0, 0, 0], [0, 0, 0], [0, 0, 1.2]]))).all()


def parts_of(atoms: Atoms, cutoff: float = 5.0) -> list[set[int]]:
    graph = build_graph(atoms, cutoff)
    vectors = graph.positions[graph.senders] - graph.positions[graph.receivers]
    part, count = fragments(graph.atomic_numbers == 1, graph.senders, graph.receivers, vectors.norm(dim=1))
    assert sorted(set(part.tolist())) == list(range(count))
    return sorted(({k for k in range(len(atoms)) if part[k] == n} for n in range(count)), key=min)


def test_fragments_are_heavy_atoms_with_their_hydrogens() -> None:
    atoms = molecule("CH3CH2OH")
    assert atoms.get_chemical_symbols() == ["C", "C", "O", "H", "H", "H", "H", "H", "H"]
    assert parts_of(atoms) == [{0, 6, 7, 8}, {1, 4, 5}, {2, 3}]
    assert parts_of(molecule("H2")) == [{0}, {1}]
    assert parts_of(Atoms("H")) == [{0}]
    assert parts_of(molecule("O2")) == [{0}, {1}]
    # Far from all heavy atoms a hydrogen is alone; near two of them it belongs to the nearer.
    assert parts_of(Atoms("OHH", positions=[[0, 0, 0], [0, 0, 1], [0, 0, 5.5]])) == [{0, 1}, {2}]
    assert parts_of(Atoms("OHO", positions=[[0, 0, 0], [0, 0, 1.3], [0, 0, 2.4]])) == [{0}, {1, 2}]


def test_fragments_do_not_depend_on_the_order() -> None:
    atoms = ethanol()
    order = np.random.default_rng(2).permutation(len(atoms))
    found = [{int(order[k]) for k in part} for part in parts_of(atoms[order])]
    assert sorted(found, key=min) == parts_of(atoms)


def test_a_hydrogen_between_two_equal_atoms_is_alone() -> None:
    """Taken by one of them, it would change the scalars when the file lists them in another order, or by rounding."""
    outer = [[x, y, 0.0] for x in (1.46, -1.46) for y in (1.04, -1.04)]
    bridge = Atoms("C2H6", positions=[[0.88, 0, 0], [-0.88, 0, 0], *outer, [0, 0, 0.98], [0, 0, -0.98]])
    assert parts_of(bridge) == [{0, 2, 3}, {1, 4, 5}, {6}, {7}]
    between = [[0, 0, 0], [0, 0, 1.2], [0, 0, 2.4]]
    assert parts_of(Atoms("OHO", positions=between)) == [{0}, {1}, {2}]
    # Equal ones that are farther away than another are no tie.
    assert parts_of(Atoms("OHOO", positions=[*between, [0, 1.0, 1.2]])) == [{0}, {1, 3}, {2}]
    front_end = made()
    found = scalars(front_end, bridge)
    np.testing.assert_allclose(found[1], found[0], atol=1e-11)
    order = np.random.default_rng(2).permutation(len(bridge))
    for seed in range(4):
        turned = transformed(bridge[order], random_orthogonal(seed, proper=bool(seed % 2)))
        np.testing.assert_allclose(scalars(front_end, turned), found[order], atol=1e-10)


def layer_inputs(d: int = 8) -> tuple[Tensor, Tensor, Tensor, Links]:
    generator = torch.Generator().manual_seed(3)
    x, v = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, d), (4, 3, d)))
    receivers, senders = torch.tensor([0, 0, 1, 2, 3, 3]), torch.tensor([1, 2, 0, 3, 1, 2])
    f = torch.randn(6, d, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(6, 3, generator=generator, dtype=torch.float64), dim=1)
    return x, v, f, Links(senders, receivers, directions, torch.rand(6, 1, generator=generator, dtype=torch.float64))


def trained_layer(**options: object) -> VectorLayer:
    layer = VectorLayer(8, 2, **options).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return layer


def test_layer_against_its_formula() -> None:
    """Link by link and atom by atom, as the docstring writes it."""
    layer, (x, v, f, links) = trained_layer(), layer_inputs()
    silu, width = torch.nn.functional.silu, 4
    normed = layer.norm(x)
    messages, vectors = torch.zeros_like(x), torch.zeros_like(v)
    changes = []
    for e in range(6):
        i, j, direction = int(links.receivers[e]), int(links.senders[e]), links.directions[e]
        query, (key, value) = layer.from_receiver(normed)[i], layer.from_sender(normed)[j].split(8)
        link_key, link_value = silu(layer.from_link(f)[e]).split(8)
        scores = [(query * key * link_key)[h * width : (h + 1) * width].sum() / width**0.5 for h in range(2)]
        attention = torch.cat([silu(score).expand(width) for score in scores]) * links.envelope[e]
        message = value * link_value * attention
        messages[i] += message
        s2, s1 = (silu(layer.to_vectors(message[None])[0]) * links.envelope[e]).split(8)
        vectors[i] += v[j] * s1 + torch.outer(direction, s2)
        a, b = (w @ layer.link_vectors[k] / 8**0.5 for k, w in enumerate((v[i], v[j])))
        a, b = (w - torch.outer(direction, direction @ w) for w in (a, b))
        changes.append(silu(layer.link(f)[e]) * (a * b).sum(dim=0))
    o3, o2, o1 = layer.out(messages).split(8, dim=1)
    w1, w2, w3 = (v @ layer.mix / 8**0.5).split(8, dim=2)
    found = layer(x, v, f, links)
    assert torch.allclose(found.scalars, (w1 * w2).sum(dim=1) * o2 + o3, atol=1e-12)
    assert torch.allclose(found.vectors, w3 * o1[:, None] + vectors, atol=1e-12)
    assert torch.allclose(found.links, torch.stack(changes), atol=1e-12)


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("gives", [True, False])
def test_vectors_of_a_layer_turn(has: bool, gives: bool) -> None:
    layer, (x, v, f, links) = trained_layer(has_vectors=has, gives_vectors=gives), layer_inputs()
    v = v if has else 0 * v
    matrix = torch.from_numpy(random_orthogonal(1, proper=False))
    turned = layer(x, matrix @ v, f, links._replace(directions=links.directions @ matrix.T))
    found = layer(x, v, f, links)
    assert torch.allclose(turned.scalars, found.scalars, atol=1e-12)
    assert (found.vectors is not None) == gives
    assert (found.links is not None) == has
    if gives:
        assert torch.allclose(turned.vectors, matrix @ found.vectors, atol=1e-12)
    if has:
        assert torch.allclose(turned.links, found.links, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number from 1 to 64, got 0"),
        ({"num_long_layers": -1}, "num_long_layers must be a whole number from 0 to 64, got -1"),
        ({"num_basis": 0}, "num_basis must be a whole number from 1"),
        ({"num_layers": 10000}, "num_layers must be a whole number from 1 to"),
        ({"cutoff": 0.0}, "front_end.cutoff must be a positive number of Å"),
        ({"long_cutoff": float("inf")}, "front_end.long_cutoff must be a positive number"),
        ({"cutoff": "5"}, "front_end.cutoff must be"),
        ({"num_heads": 3}, "num_channels must be a multiple of num_heads, got 8 and 3"),
        ({"num_heads": 0}, "multiple of num_heads"),
        ({"num_heads": 1.5}, "multiple of num_heads"),
    ],
)
def test_refusals(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Vectorial(NUMBERS, 8, **options)
