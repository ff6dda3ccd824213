"""Neighbour lists against ASE's, for every kind of cell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlip.core.errors import StructureError
from mlip.data.neighbours import SkinNeighbourList, neighbour_list


def rows(pairs):
    """Return the pairs as a sorted list of (sender, receiver, shift)."""
    senders, receivers, shifts = pairs
    return sorted((int(j), int(i), *map(int, s)) for j, i, s in zip(senders, receivers, shifts, strict=True))


def ase_rows(atoms, cutoff):
    i, j, shifts = neighbor_list("ijS", atoms, float(cutoff))
    return rows((j, i, shifts))


@st.composite
def structures(draw):
    """Random structures: any pbc, skewed and small cells, zero vectors on open axes, unwrapped atoms."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    cell = np.diag(rng.uniform(1.5, 7.0, 3)) + draw(st.sampled_from([0.0, 1.0])) * rng.normal(size=(3, 3))
    if draw(st.booleans()):
        cell[~pbc] = 0.0
    lengths = np.linalg.norm(cell[pbc], axis=1)
    flatness = np.linalg.svd(cell[pbc] / lengths[:, None], compute_uv=False).prod()
    assume(flatness > 0.3 and lengths.min(initial=9.0) > 1.0)
    num_atoms = draw(st.integers(1, 6))
    positions = rng.normal(size=(num_atoms, 3)) * draw(st.sampled_from([1.0, 3.0, 12.0]))
    return Atoms(numbers=rng.integers(1, 9, num_atoms), positions=positions, cell=cell, pbc=pbc)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(structures(), st.floats(0.8, 4.5))
def test_same_pairs_as_ase(atoms, cutoff):
    pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    assert rows(pairs) == ase_rows(atoms, cutoff)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(structures(), st.floats(0.8, 4.5))
def test_edges_are_sorted_strict_and_have_their_reverse(atoms, cutoff):
    senders, receivers, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    assert (np.diff(receivers) >= 0).all()
    vectors = atoms.positions[senders] + shifts @ atoms.cell.array - atoms.positions[receivers]
    assert (np.linalg.norm(vectors, axis=1) < cutoff + 1e-12).all()
    assert not shifts[:, ~atoms.pbc].any()
    assert not ((senders == receivers) & (shifts == 0).all(axis=1)).any()
    assert rows((receivers, senders, -shifts)) == rows((senders, receivers, shifts))
    for array, shape in (
        (senders, (len(senders),)),
        (receivers, (len(senders),)),
        (shifts, (len(senders), 3)),
    ):
        assert array.dtype == np.int64
        assert array.shape == shape


@pytest.mark.parametrize(
    "atoms",
    [
        molecule("CH3CH2OH"),
        bulk("Si"),
        bulk("Cu") * (3, 1, 1),
        fcc111("Al", (1, 1, 3)),  # third cell vector is zero
        Atoms("Cu", cell=[1.2, 1.2, 1.2], pbc=True),  # much smaller than the cutoff
        Atoms("Cu", cell=[[2, 0, 0], [9, 2, 0], [0, 7, 2]], pbc=True),  # very skewed
        Atoms("CuAu", positions=[[70, -50, 33], [0, 0, 1.5]], cell=[3, 3, 3], pbc=True),  # unwrapped
    ],
    ids=["molecule", "primitive", "chain of cells", "slab", "tiny", "skewed", "unwrapped"],
)
def test_known_structures_against_ase(atoms):
    pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    if abs(atoms.cell.volume) < 1e-9 and atoms.pbc.any():
        atoms.center(vacuum=10.0, axis=2)
    assert rows(pairs) == ase_rows(atoms, 5.0)


def test_cutoff_is_strict():
    positions = np.array([[0.0, 0, 0], [2.0, 0, 0]])
    assert len(neighbour_list(positions, np.zeros((3, 3)), [False] * 3, 2.0)[0]) == 0
    assert len(neighbour_list(positions, np.zeros((3, 3)), [False] * 3, np.nextafter(2.0, 3.0))[0]) == 2
    assert len(neighbour_list(np.zeros((1, 3)), 2 * np.eye(3), [True] * 3, 2.0)[0]) == 0


@pytest.mark.parametrize("positions", [np.zeros((1, 3)), np.array([[0.0, 0, 0], [50.0, 0, 0]]), np.zeros((0, 3))])
def test_no_pairs(positions):
    senders, receivers, shifts = neighbour_list(positions, np.zeros((3, 3)), [False] * 3, 5.0)
    assert senders.shape == receivers.shape == (0,)
    assert shifts.shape == (0, 3)


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "words"),
    [
        ([[np.nan, 0, 0]], np.eye(3), [False] * 3, "atom 0 is at"),
        ([[0, 0, 0]], np.zeros((3, 3)), [True] * 3, "lattice vectors of at least"),
        ([[0, 0, 0]], [[3, 0, 0], [6, 0, 0], [0, 0, 3]], [True] * 3, "span no volume"),
        ([[0, 0, 0]], [[3, 0, 0], [6, 0, 0], [0, 0, 3]], [True, True, False], "span no volume"),
        ([[0, 0, 0]], [[3, 0, 0], [0, np.inf, 0], [0, 0, 3]], [True] * 3, "must be finite"),
    ],
)
def test_bad_structures_are_refused(positions, cell, pbc, words):
    with pytest.raises(StructureError, match=words):
        neighbour_list(np.array(positions, dtype=float), np.array(cell, dtype=float), pbc, 5.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan])
def test_bad_cutoff_is_refused(cutoff):
    with pytest.raises(StructureError, match="cutoff"):
        neighbour_list(np.zeros((1, 3)), np.zeros((3, 3)), [False] * 3, cutoff)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(structures(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02]), st.sampled_from([0.0, 0.3, 1.0]))
def test_skin_list_is_always_a_fresh_list(atoms, seed, strain_size, skin):
    rng = np.random.default_rng(seed)
    neighbours = SkinNeighbourList(3.0, skin)
    for _ in range(6):
        kept = neighbours.update(atoms)
        fresh = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)
        for one, other in zip(kept, fresh, strict=True):
            np.testing.assert_array_equal(one, other)
        atoms.positions += rng.normal(size=(len(atoms), 3)) * 0.05
        strain = np.eye(3) + strain_size * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)


def test_skin_list_is_reused_and_rebuilt_when_it_must_be():
    atoms = bulk("Cu", cubic=True)
    neighbours = SkinNeighbourList(4.0, 1.0)
    neighbours.update(atoms)
    atoms.positions[0, 0] += 0.49
    neighbours.update(atoms)
    assert neighbours.num_builds == 1
    atoms.set_cell(atoms.cell.array * 1.001, scale_atoms=True)
    neighbours.update(atoms)
    assert neighbours.num_builds == 1, "a strain that the skin covers needs no new list"
    atoms.positions[0, 0] += 0.02
    neighbours.update(atoms)
    assert neighbours.num_builds == 2
    atoms.numbers[0] = 47
    neighbours.update(atoms)
    assert neighbours.num_builds == 3
    atoms.pbc[2] = False
    neighbours.update(atoms)
    assert neighbours.num_builds == 4
    atoms.set_cell(atoms.cell.array * 0.5)
    assert len(neighbours.update(atoms)[0]) > 0
    assert neighbours.num_builds == 5


@pytest.mark.parametrize("factor", [0.95, 0.85, 0.7])
def test_skin_list_sees_the_pairs_that_a_compression_brings_in(factor):
    atoms = bulk("Cu", cubic=True)
    neighbours = SkinNeighbourList(4.0, 0.5)
    neighbours.update(atoms)
    # Atoms move with the cell, so nothing is displaced on top of the strain.
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    fresh = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
    assert rows(neighbours.update(atoms)) == rows(fresh)


def test_skin_list_refuses_nan_after_a_good_step():
    atoms = bulk("Cu", cubic=True)
    neighbours = SkinNeighbourList(4.0, 1.0)
    neighbours.update(atoms)
    atoms.positions[1] = np.nan
    with pytest.raises(StructureError, match="finite"):
        neighbours.update(atoms)
