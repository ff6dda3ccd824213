"""Neighbour lists against ASE's, for every kind of cell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.core.errors import StructureError
from mlip.data.neighbours import SkinNeighbourList, neighbour_list
from tests.data.graph_oracle import all_pairs, rows, structures


def ase_rows(atoms, cutoff):
    i, j, shifts = neighbor_list("ijS", atoms, float(cutoff))
    return rows((j, i, shifts))


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


def test_positions_without_digits_are_refused():
    with pytest.raises(StructureError, match="Wrap or centre the structure"):
        neighbour_list(np.array([[0, 0, 0], [3e9, 0, 0]]), 3 * np.eye(3), [True] * 3, 5.0)


def test_order_is_the_same_where_a_pair_does_not_fit_into_one_number():
    """Shifts of millions in all directions: rows are sorted instead of packed numbers."""
    rng = np.random.default_rng(0)
    positions = rng.integers(-9_000_000, 9_000_000, size=(5, 3)) * 2.0 + rng.normal(size=(5, 3))
    senders, receivers, shifts = neighbour_list(positions, 2 * np.eye(3), [True] * 3, 3.0)
    assert np.abs(shifts).max(axis=0).min() > 4_000_000
    keys = np.column_stack([receivers, senders, shifts]).tolist()
    assert keys == sorted(keys)
    wrapped = positions % 2.0
    steps = np.rint((positions - wrapped) / 2).astype(int)
    near = neighbour_list(wrapped, 2 * np.eye(3), [True] * 3, 3.0)
    expected = near[2] - steps[near[0]] + steps[near[1]]
    assert rows((senders, receivers, shifts)) == rows((*near[:2], expected))


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, True), (True, False, True), (False, False, True)])
def test_a_turned_slab_of_many_cells(pbc):
    """Open axes along no Cartesian one, and wider than a few cutoffs: vesin before 0.5.8 missed pairs."""
    rng = np.random.default_rng(0)
    cell = np.array([[30.0, 0, 0], [5.0, 28.0, 0], [2.0, -4.0, 25.0]]) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    atoms = Atoms("H150", positions=rng.uniform(size=(150, 3)) @ cell, cell=cell, pbc=pbc)
    pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
    assert rows(pairs) == ase_rows(atoms, 4.0)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, True), (False, False, False)])
@pytest.mark.parametrize("sizes", [(2e3, 2e3, 12.0), (2e4, 11.0, 3e3), (30.0, 4e4, 4e4), (5e6, 5e6, 5e6)])
def test_wide_cells_and_far_fragments(pbc, sizes):
    """Vesin divides by zero, and ends the process, if it is handed some of these as they are."""
    rng = np.random.default_rng(1)
    atoms = Atoms("H40", positions=rng.uniform(-1, 1, size=(40, 3)) * sizes, cell=np.diag(sizes), pbc=pbc)
    atoms.positions[20:] = atoms.positions[:20] + rng.normal(size=(20, 3)) * 2
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    assert rows(pairs) == sorted(all_pairs(atoms, 5.0))
    assert len(pairs[0]) >= 30


def test_a_cell_without_sense_is_refused():
    with pytest.raises(StructureError, match="Å wide and 3 Å thin"):
        neighbour_list(np.zeros((1, 3)), np.diag([5e7, 5e7, 3.0]), [True] * 3, 5.0)


@pytest.mark.parametrize("factor", [1.0, 1.0 - 1e-12, 1.0 + 1e-12])
def test_many_pairs_at_the_very_cutoff(factor):
    """Third neighbours of a crystal exactly at the cutoff, or a rounding error to either side."""
    atoms = bulk("Cu", "fcc", a=4.0, cubic=True)
    cutoff = np.sqrt(24.0) * factor
    senders, receivers, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    vectors = (atoms.positions[senders] - atoms.positions[receivers]) + shifts @ atoms.cell.array
    assert ((vectors**2).sum(axis=1) < cutoff**2).all()
    assert len(senders) == 4 * (42 if factor > 1 or cutoff**2 > 24.0 else 18)


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
