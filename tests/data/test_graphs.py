"""The contract of graph builders, run on every yaml in configs/model/graph."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.core.errors import ConfigError
from mlip.data.build_graph import as_builder, graph_of
from mlip.data.graphs.base import GraphBuilder, distances
from mlip.data.neighbours import SkinNeighbourList
from mlip.testing.graph_changes import edges
from mlip.testing.structures import crystal, molecule, slab, standard_structures
from mlip.testing.symmetry import random_orthogonal, transformed
from tests.components import component_names, factory
from tests.data.graph_oracle import Edge, rows, structures

NAMES = component_names("graph")


@pytest.fixture(params=NAMES)
def builder(request: pytest.FixtureRequest) -> GraphBuilder:
    return factory("graph", request.param)


def connect(builder: GraphBuilder, atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the edges; tags come from the atoms."""
    return builder(atoms, dict(atoms.arrays))


def usable(builder: GraphBuilder, atoms: Atoms) -> Atoms:
    """Return a copy that the builder takes."""
    atoms = atoms.copy()
    atoms.pbc = atoms.pbc & builder.periodic
    atoms.set_tags(atoms.numbers % 3)
    return atoms


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(atoms=structures(), seed=st.integers(0, 1000))
def test_edges_do_not_depend_on_how_the_structure_is_written_down(name: str, atoms: Atoms, seed: int) -> None:
    builder = factory("graph", name)
    atoms = usable(builder, atoms)
    rng = np.random.default_rng(seed)
    plain = edges(builder, atoms)
    assert edges(builder, transformed(atoms, random_orthogonal(seed, proper=bool(seed % 2)))) == plain
    moved = atoms.copy()
    moved.positions += rng.normal(size=3) * 10
    assert edges(builder, moved) == plain
    steps = rng.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    moved.positions = atoms.positions + steps @ atoms.cell.array
    assert edges(builder, moved) == {
        (j, i, *(np.array(shift) - steps[j] + steps[i]).tolist()) for j, i, *shift in plain
    }
    order = rng.permutation(len(atoms))
    place = np.argsort(order)
    assert edges(builder, atoms[order]) == {(place[j], place[i], *shift) for j, i, *shift in plain}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(atoms=structures())
def test_order_types_and_lengths(name: str, atoms: Atoms) -> None:
    builder = factory("graph", name)
    atoms = usable(builder, atoms)
    pairs = connect(builder, atoms)
    senders, _, shifts = pairs
    assert all(array.dtype == np.int64 for array in pairs)
    assert shifts.shape == (len(senders), 3)
    keys = [(i, j, *shift) for j, i, *shift in np.column_stack(pairs).tolist()]
    assert keys == sorted(set(keys))
    assert (distances(pairs, atoms) < builder.cutoff).all()
    assert not shifts[:, ~atoms.pbc].any()
    again = pickle.loads(pickle.dumps(builder))
    assert rows(connect(again, atoms)) == rows(pairs)
    assert again.description == builder.description


def test_supercell_has_the_same_edges_twice(builder: GraphBuilder) -> None:
    if not builder.periodic:
        pytest.skip("molecules only")
    for atoms in (crystal(["H", "O"]), slab(["H", "O"])):
        senders, receivers, shifts = connect(builder, atoms)
        twice = {
            (j + n * ((c + x) % 2), i + n * c, (c + x) // 2, y, z)
            for n in [len(atoms)]
            for c in (0, 1)
            for j, i, (x, y, z) in zip(senders.tolist(), receivers.tolist(), shifts.tolist(), strict=True)
        }
        assert edges(builder, atoms.repeat((2, 1, 1))) == twice


@pytest.mark.parametrize("lattice", ["fcc", "bcc", "diamond", "hcp"])
def test_equivalent_atoms_have_equally_many_neighbours(builder: GraphBuilder, lattice: str) -> None:
    if not builder.periodic or builder.needs:
        pytest.skip("no crystals")
    atoms = bulk("Cu", lattice, a=3.6, cubic=lattice != "hcp") * (2, 1, 1)
    # As far from perfect as a file with five digits leaves it.
    atoms.positions += np.random.default_rng(0).uniform(-5e-6, 5e-6, size=atoms.positions.shape)
    degrees = np.bincount(connect(builder, atoms)[1], minlength=len(atoms))
    assert (degrees == degrees[0]).all()


def test_isolated_atoms_stay(builder: GraphBuilder) -> None:
    far = Atoms("H3", positions=[[0, 0, 0], [1, 0, 0], [900, 0, 0]], tags=[0, 2, 0])
    graph = graph_of(far, builder)
    assert graph.num_nodes == 3
    expected: set[Edge] = {(0, 1, 0, 0, 0), (1, 0, 0, 0, 0)}
    found = edges(builder, far)
    if np.isfinite(builder.cutoff):
        assert found == (expected if "molecules" not in builder.description else set())
    alone = Atoms("H", tags=[0])
    assert graph_of(alone, builder).edge_index.shape == (2, 0)
    assert len(builder(Atoms(), {"tags": np.zeros(0, dtype=int)})[0]) == 0


def test_smoothness_is_as_declared(builder: GraphBuilder) -> None:
    """Edges of a smooth graph come and go at its cutoff, nowhere else."""
    if not builder.smooth:
        pytest.skip("changes elsewhere: see tests/models/test_model_graph.py")
    for start in standard_structures(["H", "C", "O"]).values():
        if start.pbc.any() and not builder.periodic:
            continue
        last = None
        for x in np.linspace(0, 0.5, 26):
            atoms = start.copy()
            atoms.positions[-1] += x * np.array([0.36, 0.48, 0.8])
            now = edges(builder, atoms)
            if last is not None and now ^ last:
                changed = np.array(sorted(now ^ last))
                lengths = distances((changed[:, 0], changed[:, 1], changed[:, 2:]), atoms)
                assert np.abs(lengths - builder.cutoff).max() < 0.04
            last = now


def test_a_kept_list_gives_the_same_edges(builder: GraphBuilder) -> None:
    if not np.isfinite(builder.cutoff):
        pytest.skip("no cutoff")
    rng = np.random.default_rng(0)
    neighbours = SkinNeighbourList(builder.cutoff, 0.5)
    atoms = crystal(["H", "O"])
    for _ in range(5):
        kept = graph_of(atoms, builder, pairs=neighbours.update(atoms))
        fresh = graph_of(atoms, builder)
        assert kept.edge_index.equal(fresh.edge_index)
        assert kept.cell_shifts.equal(fresh.cell_shifts)
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.03
    assert neighbours.num_builds < 3


def test_words_name_the_options() -> None:
    words = [factory("graph", name).description for name in NAMES]
    assert len(set(words)) == len(words)
    assert factory("graph", "radius").description == "all pairs within 5.0 Å"
    assert as_builder(5).description == "all pairs within 5.0 Å"
    assert as_builder(5.0).smooth


@pytest.mark.parametrize("cutoff", [0, -1.0, float("inf"), float("nan"), "5", True, None])
def test_a_cutoff_is_a_length(cutoff: object) -> None:
    with pytest.raises(ConfigError, match="positive length in Å"):
        as_builder(cutoff)


def test_standard_structures_have_edges(builder: GraphBuilder) -> None:
    """The contract would prove nothing on empty graphs."""
    if "molecules" in builder.description:
        return
    assert len(connect(builder, molecule(["H", "C", "O"]))[0]) > 10
