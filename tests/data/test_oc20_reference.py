"""One relaxation of OC20 in all layouts, against the trajectory of the calculation as ASE reads it."""

import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms

from mlip.core.errors import ConfigError
from mlip.data.datasets.oc20 import OC20Dataset

pytestmark = pytest.mark.reference
SYSTEM = 1447590
REFERENCES = {SYSTEM: -18.0, 900001: -136.0, 900002: -140.0}
"""Placeholders of FORMAT.md, eV."""

LAYOUTS = {
    "s2ef_sample": {"energy": "adsorption"},
    "s2ef_lmdb_old_pyg": {"energy": "adsorption", "stored_energy": "adsorption"},
    "s2ef_lmdb_new_pyg": {"energy": "adsorption", "stored_energy": "adsorption"},
    "s2ef_sample.aselmdb": {"energy": "adsorption"},
}
# The text has eight decimals, and PyG's objects single precision.
TOLERANCE = {"s2ef_sample": 6e-9, "s2ef_lmdb_old_pyg": 4e-6, "s2ef_lmdb_new_pyg": 4e-6, "s2ef_sample.aselmdb": 1e-12}


@pytest.fixture(scope="module")
def oc20(reference_data):
    if not (reference_data / "oc20").is_dir():
        pytest.skip(f"no OC20 in {reference_data}")
    return reference_data / "oc20"


@pytest.fixture(scope="module")
def trajectory(oc20):
    """(system, frame) → structure, forces as calculated."""
    frames = ase.io.read(oc20 / "raw" / "random1447590.traj", ":")
    return {(SYSTEM, number): atoms for number, atoms in enumerate(frames)}


def displacement(one, other) -> float:
    """Largest distance of atoms, taken modulo the cell: layouts may have wrapped them."""
    shift = np.linalg.solve(other.cell.array.T, (one.positions - other.positions).T).T
    return float(np.abs((shift - np.rint(shift)) @ other.cell.array).max())


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_against_the_trajectory(oc20, trajectory, name):
    samples = {(s.info["sid"], s.info["fid"]): s for s in OC20Dataset(oc20 / name, **LAYOUTS[name])}
    assert len(samples) == 49
    assert set(samples) == {*trajectory, (900001, 0), (900002, 0)}
    tolerance = TOLERANCE[name]
    held = 0
    for key, atoms in trajectory.items():
        sample = samples[key]
        forces = atoms.get_forces(apply_constraint=False)
        assert abs(sample.labels["energy"] - (atoms.get_potential_energy() + 18.0)) < 1e-8
        np.testing.assert_allclose(sample.labels["forces"], forces, rtol=0, atol=tolerance)
        assert displacement(sample.atoms, atoms) < tolerance
        assert np.array_equal(sample.atoms.numbers, atoms.numbers)
        np.testing.assert_allclose(sample.atoms.cell.array, atoms.cell.array, rtol=0, atol=tolerance)
        assert sample.atoms.pbc.all()
        (constraint,) = (c for c in atoms.constraints if isinstance(c, FixAtoms))
        fixed = np.isin(np.arange(len(atoms)), constraint.index)
        assert fixed.sum() == 10
        assert np.array_equal(sample.labels["fixed"], fixed)
        tags = np.where(fixed, 0, np.where(atoms.numbers == 8, 2, 1))  # As FORMAT.md assigns them.
        assert np.array_equal(sample.labels["tags"], tags)
        held += int((np.abs(sample.labels["forces"][fixed]).max(axis=1) > 1e-6).sum())
    assert held > 400, "forces of fixed atoms are there"


def test_layouts_against_each_other(oc20):
    found = {}
    for name, options in LAYOUTS.items():
        dataset = OC20Dataset(oc20 / name, **options)
        found[name] = {(s.info["sid"], s.info["fid"]): s for s in dataset}
        assert dataset.provides == ("energy", "forces", "tags", "fixed")
        assert len({s.info["group"] for s in dataset}) == 3
    first = found.pop("s2ef_sample")
    for name, samples in found.items():
        assert samples.keys() == first.keys()
        for key, sample in samples.items():
            other = first[key]
            assert abs(sample.labels["energy"] - other.labels["energy"]) < 1e-7, (name, key)
            np.testing.assert_allclose(sample.labels["forces"], other.labels["forces"], rtol=0, atol=1e-5)
            assert displacement(sample.atoms, other.atoms) < 1e-5
            for label in ("tags", "fixed"):
                assert np.array_equal(sample.labels[label], other.labels[label]), (name, key)


def test_total_energies(oc20, trajectory):
    for name in LAYOUTS:
        if "lmdb_" in name:
            with pytest.raises(ConfigError, match="set stored_energy"):
                OC20Dataset(oc20 / name, "total")
            continue
        for sample in OC20Dataset(oc20 / name, "total"):
            if sample.info["sid"] == SYSTEM:
                expected = trajectory[SYSTEM, sample.info["fid"]].get_potential_energy()
                assert abs(sample.labels["energy"] - expected) < 1e-8


@pytest.mark.parametrize("name", ["is2re_lmdb_old_pyg.lmdb", "is2re_lmdb_new_pyg.lmdb"])
def test_is2re_has_the_ends_of_the_trajectory(oc20, trajectory, name):
    first, last = trajectory[SYSTEM, 0], trajectory[SYSTEM, 46]
    kept = {"energy": "adsorption", "stored_energy": "adsorption"}
    for task, at, of in (("is2re", first, last), ("initial", first, first), ("relaxed", last, last)):
        (sample,) = OC20Dataset(oc20 / name, task=task, **kept)
        assert abs(sample.labels["energy"] - (of.get_potential_energy() + 18.0)) < 1e-8
        assert displacement(sample.atoms, at) < 4e-6
        if task == "is2re":
            np.testing.assert_allclose(sample.labels["relaxed_positions"], last.positions, rtol=0, atol=4e-6)


def test_a_plain_database(oc20):
    """Energies and forces of oxides.db, as ASE reads them; it says nothing of systems or tags."""
    from ase.db import connect

    path = oc20 / "oxides" / "oxides.db"
    dataset = OC20Dataset(path, "total", stored_energy="total")
    with connect(path) as database:
        rows = list(database.select())
    assert len(dataset) == len(rows) == 295
    for sample, row in zip(dataset, rows, strict=True):
        assert sample.labels["energy"] == row.energy
        assert np.array_equal(sample.labels["forces"], row.forces)
        assert np.array_equal(sample.atoms.positions, row.positions)


def test_they_are_recognised(oc20):
    for name, options in LAYOUTS.items():
        found = OC20Dataset.recognise(oc20 / name)
        assert found.certainty == 3, name
        assert len(OC20Dataset(oc20 / name, **found.options, **found.preview)) == 49
        assert options["energy"] == found.preview["energy"] or "stored_energy" not in options, name
    assert OC20Dataset.recognise(oc20 / "is2re_lmdb_old_pyg.lmdb").options["task"] == "relaxed"
    for other in ("oxides/oxides.db", "oxides", "raw", ".", "raw/adsorbates.db", "coverage_fcc111"):
        assert OC20Dataset.recognise(oc20 / other) is None, other
