"""Statistics against numpy's least squares, the package's own statistics, and counting by hand."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.data import chemical_symbols
from hypothesis import given
from hypothesis import strategies as st

from mlip.core.errors import StructureError
from mlip.core.fields import DATA_FIELDS
from mlip.data.neighbours import neighbour_list
from mlip.data.sample import Sample
from mlip.data.statistics import compute_statistics
from mlip.data.store.block import runs
from mlip.data.store.columns import stack
from mlip.data.store.edges import EdgeCounter, pack_pairs, unpack_pairs
from mlip.data.store.summary import Summary
from tests.data.store.made import samples

CUTOFF = 5.0


def edges(sample):
    atoms = sample.atoms
    return len(neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)[0])


def summary(data, parts=1):
    """Return the summary of samples, added in parts and merged."""
    total = Summary(CUTOFF)
    for part in np.array_split(np.arange(len(data)), parts):
        one = Summary(CUTOFF)
        for run in runs(data[i] for i in part):
            one.add(stack(run), np.array([edges(sample) for sample in run]))
        total.merge(one)
    return total


def test_numbers_are_those_of_the_training_statistics():
    data = samples(20)
    found, expected = summary(data, 3).as_dict(), compute_statistics(data, CUTOFF)
    for name in ("num_neighbors", "force_rms", "cutoff"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name
    assert [found["structures"], found["atoms"], found["edges"]] == [20, expected["num_atoms"], expected["num_edges"]]
    assert list(found["elements"]) == expected["elements"]
    assert found["largest_force"] == max(np.linalg.norm(s.labels["forces"], axis=1).max() for s in data)
    energies = np.array([float(sample.labels["energy"]) for sample in data])
    assert found["energy"] == [energies.min(), energies.max()]
    assert found["energy_per_atom"][0] == min(e / len(s.atoms) for e, s in zip(energies, data, strict=True))
    assert found["stress"][1] == max(s.labels["stress"].max() for s in data if "stress" in s.labels)
    assert json.loads(json.dumps(found)) == found


def test_histograms_are_counted():
    atoms = [Atoms("CO2", [[0, 0, 0], [0, 0, 1.2], [0, 0, -1.2]]), Atoms("O2", [[0, 0, 0], [0, 0, 9]])]
    data = [Sample(each, {}, {}) for each in (*atoms, atoms[0])]
    data[0].labels["energy"] = np.array(-2.0)
    found = summary(data).as_dict()
    assert found["elements"] == {"C": [2, 2], "O": [3, 6]}
    assert found["sizes"] == {"2": 1, "3": 2}
    assert found["neighbours"] == {"0": 1, "2": 2}
    assert found["pbc"] == {"FFF": 3}
    assert found["labels"] == {"energy": 1}
    assert found["force_rms"] is found["stress"] is found["largest_force"] is None
    assert summary(data).provides == ()


def test_what_every_structure_has_is_provided_in_the_order_of_the_table():
    assert summary(samples(2)).provides == ("energy", "forces", "stress")
    only = [sample for k, sample in enumerate(samples(9)) if k % 3 == 2]
    assert summary(only).provides == tuple(name for name in DATA_FIELDS if name != "stress")


def test_the_fit_is_numpys_however_the_rows_are_divided():
    data = samples(40)
    numbers = sorted({int(z) for sample in data for z in sample.atoms.numbers})
    counts = np.array([[np.count_nonzero(sample.atoms.numbers == z) for z in numbers] for sample in data])
    energies = np.array([float(sample.labels["energy"]) for sample in data])
    solution, _, rank, _ = np.linalg.lstsq(counts, energies, rcond=None)
    for parts in (1, 3):
        found = summary(data, parts).as_dict()["atomic_energies"]
        assert list(found["energies"]) == [chemical_symbols[z] for z in numbers]
        np.testing.assert_allclose([*found["energies"].values()], solution, rtol=1e-8, atol=1e-8)
        assert found["rank"] == rank
        rest = np.sqrt(np.mean((counts @ solution - energies) ** 2))
        assert found["rmse"] == pytest.approx(rest, rel=1e-9)


def test_no_energies_no_fit():
    assert summary([Sample(Atoms("H"), {}, {})]).as_dict()["atomic_energies"] is None


@given(st.integers(1, 12), st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 99))
def test_edges_are_counted_as_the_list_has_them_and_lists_come_back_in_order(num_atoms, pbc, seed):
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) + 4 * np.eye(3)
    positions, pbc = rng.normal(size=(num_atoms, 3)) * 5, np.array(pbc)
    pairs = neighbour_list(positions, cell, pbc, CUTOFF)
    assert EdgeCounter(CUTOFF)(positions, cell, pbc) == len(pairs[0])
    for found, expected in zip(unpack_pairs(pack_pairs(pairs, num_atoms), "here"), pairs, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_edges_at_the_very_cutoff_are_counted_as_the_list_has_them():
    for number in (2, 3, 4, 5):
        positions = np.array([[0, 0, 0], [CUTOFF, 0, 0], [2 * CUTOFF - 1e-9, 0, 0]])[:number]
        box = np.diag([float(number)] * 3)
        for pbc in (np.zeros(3, bool), np.ones(3, bool)):
            expected = len(neighbour_list(positions, box, pbc, CUTOFF)[0])
            assert EdgeCounter(CUTOFF)(positions, box, pbc) == expected


@pytest.mark.parametrize("periodic", [True, False])
def test_wide_and_thin_structures_are_counted(periodic):
    """Vesin divides by zero here, which ends the process."""
    box = np.diag([3.0, 9000.0, 9000.0])
    positions = np.random.default_rng(0).uniform(size=(20, 3)) @ box
    pbc = np.full(3, periodic)
    assert EdgeCounter(CUTOFF)(positions, box, pbc) == len(neighbour_list(positions, box, pbc, CUTOFF)[0])
    with pytest.raises(StructureError, match="no digits"):
        EdgeCounter(CUTOFF)(positions * 1e9, box, pbc)
