"""Each graph builder against brute force, and what is special about it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.core.errors import ConfigError, StructureError
from mlip.data.graphs.adaptive import Adaptive
from mlip.data.graphs.bipartite import Bipartite, find_molecules
from mlip.data.graphs.fully_connected import LARGEST, FullyConnected
from mlip.data.graphs.nearest import Nearest
from mlip.data.graphs.radius import Radius
from mlip.data.graphs.radius_max_neighbors import RadiusMaxNeighbors
from tests.data.graph_oracle import adaptive_cutoffs, all_pairs, nearest, rows, structures

HYPOTHESIS = settings(max_examples=25, deadline=None, derandomize=True)


@HYPOTHESIS
@given(structures(), st.floats(0.8, 4.5))
def test_radius(atoms: Atoms, cutoff: float) -> None:
    assert rows(Radius(cutoff)(atoms)) == sorted(all_pairs(atoms, cutoff))


@HYPOTHESIS
@given(structures(), st.integers(1, 14), st.floats(1.5, 4.5), st.sampled_from([0.0, 0.01, 0.3]))
def test_nearest_within_a_limit(atoms: Atoms, k: int, cutoff: float, tolerance: float) -> None:
    expected = nearest(atoms, k, cutoff, tolerance)
    assert rows(Nearest(k, cutoff, tolerance)(atoms)) == expected
    assert rows(RadiusMaxNeighbors(cutoff, k, tolerance)(atoms)) == expected


@HYPOTHESIS
@given(structures(), st.integers(1, 14), st.sampled_from([0.01, 0.3]))
def test_nearest_without_a_limit(atoms: Atoms, k: int, tolerance: float) -> None:
    found = Nearest(k, tolerance=tolerance)(atoms)
    degrees = np.bincount(found[1], minlength=len(atoms))
    wanted = k if atoms.pbc.any() else min(k, len(atoms) - 1)
    assert (degrees >= wanted).all()
    # Wide enough that brute force sees the k-th neighbour of every atom and those tied with it.
    pairs = all_pairs(atoms, 1.0 + max((all_pairs_length(atoms, edge) for edge in rows(found)), default=1.0))
    for i in range(len(atoms)):
        mine = sorted((length, edge) for edge, length in pairs.items() if edge[1] == i)
        last = mine[wanted - 1][0] + tolerance if wanted else 0.0
        assert sorted(edge for length, edge in mine if length <= last) == [e for e in rows(found) if e[1] == i]


def all_pairs_length(atoms: Atoms, edge: tuple[int, ...]) -> float:
    j, i, *shift = edge
    cell = atoms.cell.array * atoms.pbc[:, None]
    return float(np.linalg.norm(atoms.positions[j] - atoms.positions[i] + np.array(shift) @ cell))


@pytest.mark.parametrize(("k", "shell"), [(1, 12), (12, 12), (13, 18), (18, 18), (19, 42), (43, 54)])
def test_nearest_takes_whole_shells_of_a_crystal(k: int, shell: int) -> None:
    """Shells of fcc have 12, 6, 24, 12 atoms."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    atoms.positions += np.random.default_rng(0).normal(scale=1e-6, size=(4, 3))
    for builder in (Nearest(k), Nearest(k, 8.0), RadiusMaxNeighbors(8.0, k)):
        assert np.bincount(builder(atoms)[1]).tolist() == [shell] * 4


def test_nearest_of_few_atoms_is_all_of_them() -> None:
    water = molecule("H2O")
    assert rows(Nearest(32)(water)) == rows(FullyConnected()(water))
    # Two molecules, farther apart than any first guess of a radius.
    pair = water.copy()
    water.positions += [3e4, 0, 0]
    pair.extend(water)
    assert len(Nearest(5)(pair)[0]) == 30
    assert rows(Nearest(2)(pair)) == [edge for edge in rows(FullyConnected()(pair)) if edge[0] // 3 == edge[1] // 3]


@pytest.mark.parametrize("k", [7, 500])
def test_nearest_in_a_large_molecule(k: int) -> None:
    positions = np.random.default_rng(0).uniform(0, 40, size=(300, 3))
    senders, receivers, _ = Nearest(k, tolerance=0.0)(Atoms("H300", positions=positions))
    lengths = np.linalg.norm(positions[:, None] - positions, axis=2)
    expected = [set(np.argsort(row)[1 : k + 1].tolist()) for row in lengths]
    assert [set(senders[receivers == i].tolist()) for i in range(300)] == expected


def test_nearest_is_directed() -> None:
    atoms = Atoms("H3", positions=[[0, 0, 0], [1, 0, 0], [3, 0, 0]])
    assert rows(Nearest(1)(atoms)) == [(0, 1, 0, 0, 0), (1, 0, 0, 0, 0), (1, 2, 0, 0, 0)]


@HYPOTHESIS
@given(structures())
def test_fully_connected(atoms: Atoms) -> None:
    atoms.pbc = False
    n = len(atoms)
    assert rows(FullyConnected()(atoms)) == [(j, i, 0, 0, 0) for j in range(n) for i in range(n) if i != j]


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (bulk("Si"), "for molecules; this structure is periodic"),
        (Atoms("H2", positions=[[0, 0, 0], [np.nan, 0, 0]]), "Positions must be finite"),
        (Atoms(f"H{LARGEST + 1}"), "too many edges"),
    ],
    ids=["periodic", "nan", "large"],
)
def test_fully_connected_refuses(atoms: Atoms, words: str) -> None:
    with pytest.raises(StructureError, match=words):
        FullyConnected()(atoms)


@HYPOTHESIS
@given(structures(), st.integers(0, 99))
def test_bipartite_by_tags_and_fragments(atoms: Atoms, seed: int) -> None:
    part = np.random.default_rng(seed).integers(0, 4, size=len(atoms))
    pairs = sorted(all_pairs(atoms, 4.0))
    expected = [edge for edge in pairs if (part[edge[0]] == 2) != (part[edge[1]] == 2)]
    assert rows(Bipartite(4.0)(atoms, {"tags": part})) == expected
    expected = [edge for edge in pairs if part[edge[0]] != part[edge[1]]]
    assert rows(Bipartite(4.0, "fragments")(atoms, {"fragments": part})) == expected


def test_bipartite_of_an_adsorbate() -> None:
    slab = fcc111("Al", (2, 2, 3), vacuum=8.0)
    slab.extend(Atoms("CO", positions=slab.positions[-1] + np.array([[0, 0, 2.0], [0, 0, 3.15]])))
    labels = {"tags": np.array([0] * 8 + [1] * 4 + [2] * 2)}
    senders, receivers, _ = Bipartite(5.0)(slab, labels)
    assert len(senders)
    assert ((senders >= 12) ^ (receivers >= 12)).all()
    assert set(receivers.tolist()) >= {8, 9, 10, 11, 12, 13}


def test_molecules_are_found_across_the_cell() -> None:
    """Water cut in two by the cell, a copy elsewhere, and a helium atom."""
    water = molecule("H2O")
    atoms = water.copy()
    atoms.positions += [0.0, 0.3, 0.0]
    water.positions += [4.0, 4.0, 4.0]
    atoms.extend(water)
    atoms.extend(Atoms("He", positions=[[4, 4, 0]]))
    atoms.set_cell([8, 8, 8])
    atoms.pbc = True
    whole = atoms.positions.copy()
    atoms.wrap()
    number, offsets, endless = find_molecules(atoms)
    assert number.tolist() == [0, 0, 0, 3, 3, 3, 6]
    assert not endless.any()
    in_one_piece = atoms.positions + offsets @ atoms.cell.array
    for first in (0, 3):
        found = in_one_piece[first : first + 3] - in_one_piece[first]
        np.testing.assert_allclose(found, whole[first : first + 3] - whole[first], atol=1e-12)
    senders, receivers, shifts = Bipartite(9.0, "molecules")(atoms)
    # Images of a molecule are other molecules: all of their atoms are seen, those of its own are not.
    expected = [
        edge
        for edge in sorted(all_pairs(atoms, 9.0))
        if number[edge[0]] != number[edge[1]] or (edge[2:] != tuple(offsets[edge[0]] - offsets[edge[1]]))
    ]
    assert rows((senders, receivers, shifts)) == expected
    assert any(j == i for j, i, *_ in expected)


def test_a_network_is_one_part_with_its_images() -> None:
    assert len(Bipartite(6.0, "molecules")(bulk("Cu", cubic=True))[0]) == 0
    chain = Atoms("C", cell=[1.4, 20, 20], pbc=[True, False, False])
    assert find_molecules(chain)[2].all()
    assert len(Bipartite(6.0, "molecules")(chain)[0]) == 0


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "needs the tags of the atoms"),
        ({"tags": np.zeros(3, dtype=int)}, "must be 2 integers"),
        ({"tags": np.zeros(2)}, "must be 2 integers"),
    ],
)
def test_bipartite_refuses(labels: dict[str, np.ndarray] | None, words: str) -> None:
    with pytest.raises(StructureError, match=words):
        Bipartite(5.0)(Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]]), labels)


@HYPOTHESIS
@given(structures(), st.floats(2.0, 30.0), st.sampled_from([0.3, 1.0]))
def test_adaptive(atoms: Atoms, target: float, width: float) -> None:
    builder = Adaptive(4.5, target, width)
    cutoffs = adaptive_cutoffs(atoms, 4.5, target, width)
    np.testing.assert_allclose(builder.atom_cutoffs(atoms), cutoffs, atol=1e-10)
    assert (builder.atom_cutoffs(atoms) <= 4.5).all()
    pairs = {edge: (cutoffs[edge[0]] + cutoffs[edge[1]]) / 2 - d for edge, d in all_pairs(atoms, 4.5).items()}
    found = set(rows(builder(atoms)))
    assert {edge for edge, inside in pairs.items() if inside > 1e-9} <= found
    assert found <= {edge for edge, inside in pairs.items() if inside > -1e-9}
    assert found == {(i, j, -x, -y, -z) for j, i, x, y, z in found}


def test_adaptive_cutoffs_are_smooth_functions_of_the_positions() -> None:
    """No jumps, and central differences of two steps agree, where neighbours come and go."""
    builder = Adaptive(5.0, 15)
    start = bulk("Cu", cubic=True) * (2, 2, 2)
    start.rattle(0.1, seed=0)
    start.pop(1)

    def cutoffs(x: float) -> np.ndarray:
        atoms = start.copy()
        atoms.positions[0] += x * np.array([0.0, 1.2, 1.2])
        return builder.atom_cutoffs(atoms)

    values = np.array([cutoffs(x) for x in np.linspace(0, 1, 201)])
    assert np.abs(np.diff(values, axis=0)).max() < 0.02
    slopes = np.diff(values, axis=0) / 0.005
    assert np.abs(np.diff(slopes, axis=0)).max() < 0.2 * np.abs(slopes).max()
    assert np.ptp(values, axis=0).max() > 0.1


def test_adaptive_holds_the_number_of_neighbours_where_the_radius_does_not() -> None:
    means = {}
    for a in (3.4, 3.8, 4.2):
        atoms = bulk("Cu", "fcc", a=a, cubic=True) * (2, 2, 2)
        atoms.rattle(0.15, seed=1)
        means[a] = [len(builder(atoms)[0]) / len(atoms) for builder in (Adaptive(7.0, 30), Radius(5.0))]
    adapted, fixed = np.array(list(means.values())).T
    assert np.ptp(fixed) > 25
    assert np.ptp(adapted) < 3
    assert 30 < adapted.mean() < 42


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Nearest(0), "num_neighbors as an integer"),
        (lambda: Nearest(3.5), "num_neighbors as an integer"),
        (lambda: Nearest(3, -1.0), "positive length"),
        (lambda: Nearest(3, tolerance=-0.1), "tolerance"),
        (lambda: RadiusMaxNeighbors(5.0, True), "max_neighbors"),
        (lambda: Bipartite(5.0, "fragment"), "Did you mean 'fragments'"),
        (lambda: Adaptive(5.0, 0), "target_neighbors"),
        (lambda: Adaptive(5.0, 10, float("nan")), "width"),
    ],
)
def test_bad_options_are_refused(make: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
