"""Blocks of matrices over orbitals: exact both ways, rotations against harmonics, assembly against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlip.core.errors import ConfigError, ShapeError
from mlip.data.orbital_rotation import rotation_of_shells
from mlip.ops.orbital_blocks import OrbitalBlocks, orbital_axes, scatter_blocks, transposed
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.testing.symmetry import random_orthogonal
from mlip.testing.wigner import transform

SVP = ([0, 0, 1], [0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2])
SHELLS = {
    "def2-svp H C O": SVP,
    "def2-tzvp H C": ([0, 0, 0, 1], [0] * 5 + [1] * 3 + [2, 2, 3]),
    "sto-3g H C": ([0], [0, 0, 1]),
    "sto-3g H": ([0],),
    "def2-svp H S Zn Br": (
        [0, 0, 1],
        [0] * 4 + [1] * 3 + [2],
        [0] * 5 + [1] * 3 + [2, 2, 3],
        [0] * 5 + [1] * 4 + [2] * 3,
    ),
    "no s, gaps, high": ([1, 3], [4], [0, 5]),
}


@pytest.fixture(params=SHELLS.values(), ids=SHELLS.keys())
def blocks(request: pytest.FixtureRequest) -> OrbitalBlocks:
    return OrbitalBlocks(request.param)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def padded_degrees(blocks: OrbitalBlocks) -> list[int]:
    return [l for l, count in enumerate(blocks.counts) for _ in range(count)]


def test_both_ways_are_exact_and_orthogonal(blocks: OrbitalBlocks) -> None:
    assert blocks.irreps.dim == blocks.size**2
    assert len({ir for _, ir in blocks.irreps}) == len(blocks.irreps)
    matrices, features = random(4, blocks.size, blocks.size), random(4, blocks.irreps.dim)
    assert (blocks.to_blocks(blocks.to_irreps(matrices)) - matrices).abs().max() < 1e-13
    assert (blocks.to_irreps(blocks.to_blocks(features)) - features).abs().max() < 1e-13
    # Orthogonal: lengths stay.
    lengths = blocks.to_irreps(matrices).square().sum(dim=1)
    assert torch.allclose(lengths, matrices.square().sum(dim=(1, 2)), rtol=1e-13)


@pytest.mark.parametrize("proper", [True, False])
def test_blocks_turn_as_orbitals_when_features_turn_as_irreps(blocks: OrbitalBlocks, proper: bool) -> None:
    """The oracle of orbitals are harmonics of turned points, that of features is another set of them, about y."""
    matrix = random_orthogonal(3, proper)
    turn = torch.from_numpy(rotation_of_shells(padded_degrees(blocks), matrix))
    found = random(3, blocks.size, blocks.size)
    # Features are made from vectors (y, z, x).
    axes = orbital_axes(torch.eye(3, dtype=torch.float64)).T
    rotation = axes @ torch.from_numpy(matrix if proper else -matrix) @ axes.T
    expected = transform(blocks.to_irreps(found), blocks.irreps, rotation, invert=not proper)
    assert (blocks.to_irreps(turn @ found @ turn.T) - expected).abs().max() < 1e-12


def dense_irreps(shells: list[int], block: Tensor) -> dict[tuple[int, int, int, int, int], Tensor]:
    """Return the irreps of one block ``(size, size)`` by (shell, shell, l_a, l_b, l), from e3nn's own 3j symbols."""
    starts = [sum(2 * l + 1 for l in shells[:k]) for k in range(len(shells) + 1)]
    found = {}
    for i, a in enumerate(shells):
        for j, b in enumerate(shells):
            part = block[starts[i] : starts[i + 1], starts[j] : starts[j + 1]]
            for l in range(abs(a - b), a + b + 1):
                symbol = o3.wigner_3j(a, b, l, dtype=torch.float64)
                found[i, j, a, b, l] = (2 * l + 1) ** 0.5 * torch.einsum("abm,ab->m", symbol, part)
    return found


def test_irreps_against_the_dense_formula_of_e3nn(blocks: OrbitalBlocks) -> None:
    """Shell by shell; channels are ordered by (l_a, l_b), then by the shells of each, as the docstring says."""
    shells, block = padded_degrees(blocks), random(blocks.size, blocks.size)
    dense = dense_irreps(shells, block)
    # By irrep: 1o of s with p, and 1e of p with p, are different entries.
    expected = []
    for _, ir in blocks.irreps:
        keys = [key for key in dense if key[4] == ir.l and (-1) ** (key[2] + key[3]) == ir.p]
        keys.sort(key=lambda key: (key[2], key[3], key[0], key[1]))
        expected.append(torch.stack([dense[key] for key in keys], dim=1).flatten())
    features = torch.cat(expected)[None]
    assert (blocks.to_irreps(block[None]) - features).abs().max() < 1e-13
    assert (blocks.to_blocks(features)[0] - block).abs().max() < 1e-13


def test_what_an_isotropic_block_and_a_cross_product_are() -> None:
    """l = 0 of two p shells is the trace, l = 1 the antisymmetric part: 3j symbols in closed form."""
    blocks = OrbitalBlocks([[1]])
    assert str(blocks.irreps) == "1x0e+1x1e+1x2e"
    block = random(1, 3, 3)
    features = blocks.to_irreps(block)
    assert float(features[0, 0]) == pytest.approx(float(block.diagonal(dim1=1, dim2=2).sum()) / 3**0.5, abs=1e-13)
    (b,) = block
    cross = torch.stack([b[1, 2] - b[2, 1], b[2, 0] - b[0, 2], b[0, 1] - b[1, 0]]) / 2**0.5
    assert torch.allclose(features[0, 1:4].abs(), cross.abs(), atol=1e-13)


def test_axes_of_orbitals() -> None:
    """p orbitals are y, z, x, and d orbitals xy, yz, z², xz, x² - y²: harmonics about z of the vector itself."""
    vector = random(1, 3)
    x, y, z = (vector / vector.norm()).flatten().tolist()
    values = spherical_harmonics(2, orbital_axes(vector / vector.norm())).flatten()
    assert values[1:4].tolist() == pytest.approx([3**0.5 * c for c in (y, z, x)])
    d = [x * y, y * z, (3 * z * z - 1) / 12**0.5, x * z, (x * x - y * y) / 2]
    assert values[4:].tolist() == pytest.approx([15**0.5 * c for c in d])


def assembled(
    blocks: OrbitalBlocks, species: list[int], shells: list[list[int]], pairs: Tensor, found: Tensor
) -> np.ndarray:
    """Add padded blocks into the matrix of one molecule, orbital by orbital."""
    slots = []
    for kind in species:
        rank = dict.fromkeys(range(7), 0)
        own = []
        for l in shells[kind]:
            first = sum(n * (2 * k + 1) for k, n in enumerate(blocks.counts[:l])) + rank[l] * (2 * l + 1)
            own += range(first, first + 2 * l + 1)
            rank[l] += 1
        slots.append(own)
    starts = np.cumsum([0, *(len(own) for own in slots)])
    matrix = np.zeros((starts[-1], starts[-1]))
    for (i, j), block in zip(pairs.tolist(), found.numpy(), strict=True):
        for a, slot_a in enumerate(slots[i]):
            for b, slot_b in enumerate(slots[j]):
                matrix[starts[i] + a, starts[j] + b] += block[slot_a, slot_b]
    return matrix


@pytest.mark.parametrize("name", ["def2-svp H C O", "def2-svp H S Zn Br", "no s, gaps, high"])
def test_assembly_of_molecules_of_different_size(name: str) -> None:
    """Against plain loops; a single atom, some pairs missing, pairs in any order, a block that comes twice."""
    shells = [list(degrees) for degrees in SHELLS[name]]
    blocks = OrbitalBlocks(shells)
    molecules = [[2, 0, 0], [1], [0, 1, 2, 1, 0]]
    pairs = [torch.tensor([[0, 0], [1, 0], [0, 2], [2, 2]]), torch.tensor([[0, 0]])]
    pairs.append(torch.tensor([[4, 4], [0, 3], [3, 0], [2, 1], [1, 1], [2, 1]]))
    found = [random(len(p), blocks.size, blocks.size, seed=k) for k, p in enumerate(pairs)]
    species = torch.tensor([kind for kinds in molecules for kind in kinds])
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor([len(kinds) for kinds in molecules]))
    rows = blocks.rows(species, batch, 3)
    first, second = torch.cat([p + (0, 3, 4)[k] for k, p in enumerate(pairs)]).unbind(1)
    entries = blocks.entries(species, rows, first, second)
    flat = scatter_blocks(torch.cat(found), entries, rows.num_entries)
    expected = [assembled(blocks, *args) for args in zip(molecules, [shells] * 3, pairs, found, strict=True)]
    assert rows.num_orbitals.tolist() == [len(matrix) for matrix in expected]
    assert np.abs(flat.numpy() - np.concatenate([matrix.ravel() for matrix in expected])).max() < 1e-14
    turned = np.concatenate([matrix.T.ravel() for matrix in expected])
    assert np.array_equal(flat[transposed(rows)].numpy(), turned)


def test_gather_reads_what_scatter_wrote() -> None:
    blocks = OrbitalBlocks(SVP)
    species, batch = torch.tensor([1, 0, 2, 0]), torch.tensor([0, 0, 1, 1])
    rows = blocks.rows(species, batch, 2)
    flat = random(rows.num_entries)
    first, second = torch.tensor([[a, b] for a in range(4) for b in range(4) if batch[a] == batch[b]]).unbind(1)
    entries = blocks.entries(species, rows, first, second)
    padded = blocks.gather(flat, entries, len(first))
    there = blocks.mask[species[first]][:, :, None] & blocks.mask[species[second]][:, None]
    assert not padded[~there].any()
    assert torch.equal(scatter_blocks(padded, entries, rows.num_entries), flat)


def test_nothing_at_all() -> None:
    blocks, none = OrbitalBlocks(SVP), torch.zeros(0, dtype=torch.long)
    assert blocks.to_blocks(random(0, blocks.irreps.dim)).shape == (0, 14, 14)
    assert blocks.to_irreps(random(0, 14, 14)).shape == (0, blocks.irreps.dim)
    rows = blocks.rows(none, none, 0)
    assert rows.num_entries == 0
    assert transposed(rows).shape == (0,)
    alone = blocks.rows(torch.tensor([1]), torch.tensor([0]), 1)
    assert scatter_blocks(random(0, 14, 14), blocks.entries(torch.tensor([1]), alone, none, none), 196).shape == (196,)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5).map(sorted), min_size=1, max_size=3), st.data())
def test_random_shells(shells: list[list[int]], data: st.DataObject) -> None:
    blocks = OrbitalBlocks(shells)
    matrices = random(2, blocks.size, blocks.size)
    assert (blocks.to_blocks(blocks.to_irreps(matrices)) - matrices).abs().max() < 1e-12
    assert blocks.orbitals_of.tolist() == [sum(2 * l + 1 for l in degrees) for degrees in shells]
    kinds = st.lists(st.integers(0, len(shells) - 1), min_size=1, max_size=4)
    species = torch.tensor(data.draw(kinds))
    every = torch.cartesian_prod(torch.arange(len(species)), torch.arange(len(species)))
    rows = blocks.rows(species, torch.zeros_like(species), 1)
    entries = blocks.entries(species, rows, *every.unbind(1))
    # Every entry of the matrix comes from one entry of one block.
    assert torch.equal(entries.outside.sort().values, torch.arange(rows.num_entries))
    flat = random(rows.num_entries)
    assert torch.equal(scatter_blocks(blocks.gather(flat, entries, len(every)), entries, rows.num_entries), flat)


def test_float32_and_back() -> None:
    blocks = OrbitalBlocks(SVP)
    matrices = random(3, 14, 14)
    single = blocks.float().to_irreps(matrices.float())
    assert single.dtype == torch.float32
    assert (single - blocks.double().to_irreps(matrices)).abs().max() < 1e-5
    assert (blocks.to_blocks(blocks.to_irreps(matrices)) - matrices).abs().max() < 1e-13
    assert not blocks.state_dict()


@pytest.mark.parametrize("wrong", [[[]], [[1, 0]], [[-1]], [[7]], [[0.0]], [[True]], [["s"]], [[0], []]])
def test_no_shells(wrong: list[list[object]]) -> None:
    with pytest.raises(ConfigError, match="must be degrees from 0 to 6, ascending"):
        OrbitalBlocks(wrong)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="at least one element"):
        OrbitalBlocks([])
    blocks = OrbitalBlocks(SVP)
    with pytest.raises(ShapeError, match=r"need features \(rows, 196\), got \(2, 195\)"):
        blocks.to_blocks(random(2, 195))
    with pytest.raises(ShapeError, match=r"must have shape \(rows, 14, 14\)"):
        blocks.to_irreps(random(2, 14, 13))
