"""QH9 in SQLite: real matrices against their stored orbital energies, and the layouts written by hand."""

from __future__ import annotations

import csv
import os
import pickle
import sqlite3

import h5py
import numpy as np
import pytest
from ase.data import atomic_numbers

from mlip.core.errors import ConfigError, DataError
from mlip.data.content_hash import geometry_hash
from mlip.data.datasets.base import Chunk
from mlip.data.datasets.qh9 import QH9Dataset
from mlip.data.molecular_orbitals import molecular_orbitals
from mlip.data.orbitals import reorder
from tests.data.fixtures import qh9 as fixture

SAMPLES = {
    "QH9Stable_sample": ("stable", 40),
    "QH9Dynamic_sample_water": ("dynamic_300k", 200),
    "QH9Dynamic_sample_ethanol": ("dynamic_300k", 60),
    "QH9Dynamic_sample_water_rattled": ("own", 100),
}


def assert_same(found, wanted):
    assert found.info == wanted.info
    assert np.array_equal(found.atoms.numbers, wanted.atoms.numbers)
    assert np.allclose(found.atoms.positions, wanted.atoms.positions, rtol=1e-12, atol=1e-14)
    assert not found.atoms.pbc.any()
    assert set(found.labels) == set(wanted.labels)
    for name, value in wanted.labels.items():
        assert found.labels[name].dtype == np.float64
        assert np.allclose(found.labels[name], value, rtol=1e-12, atol=0), name


def dynamic(folder, **options):
    case = fixture.write(folder)
    return QH9Dataset(**{**case.options, **options}), case


@pytest.mark.reference
@pytest.mark.parametrize("name", SAMPLES)
def test_orbital_energies_of_every_row(name, reference_data):
    """Generalised eigenvalues of the matrix with the stored overlap are the orbital energies of the SCF."""
    variant, rows = SAMPLES[name]
    options = {"functional": "b3lyp5"} if variant == "own" else {}
    path = reference_data / "qh9" / f"{name}.db"
    data = QH9Dataset(path, variant=None if variant == "stable" else variant, **options)
    assert len(data) == rows
    assert data.variant == variant
    assert data.level_of_theory["functional"] == "b3lyp5"
    assert data.provides == (("hamiltonian",) if variant == "stable" else ("energy", "hamiltonian"))
    with h5py.File(path.with_name(f"{name}_extras.h5")) as extras:
        for sample in data:
            key = str(sample.info["qm9_id"]) + ("" if variant == "stable" else f"_{sample.info['geo_id']}")
            stored = extras[key]
            assert np.array_equal(sample.atoms.numbers, stored["atomic_numbers"][:])
            # Stable was rounded through another constant for the Bohr radius.
            assert np.allclose(sample.atoms.positions, stored["coords_bohr"][:] * fixture.BOHR_ANGSTROM, atol=5e-9)
            overlaps = reorder(stored["overlap"][:], sample.atoms.numbers, "def2-svp", "pyscf", "mlip")
            found = molecular_orbitals(sample.labels["hamiltonian"], overlaps).energies
            assert np.abs(found - stored["mo_energy"][:]).max() < 1e-5
            if variant != "stable":
                energy = stored.attrs["energy_Ha"] * fixture.HARTREE_EV
                assert float(sample.labels["energy"]) == pytest.approx(energy, abs=1e-9)


@pytest.mark.reference
def test_molecules_of_the_stable_sample(reference_data):
    """Sizes and frontier orbitals as the table next to the file has them."""
    data = QH9Dataset(reference_data / "qh9" / "QH9Stable_sample.db")
    with (reference_data / "qh9" / "QH9Stable_sample_index.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert data.num_atoms().tolist() == [int(row["n_atoms"]) for row in rows]
    assert data.groups() == [row["id"] for row in rows]
    for sample, row in zip(data, rows, strict=True):
        assert sample.atoms.numbers.tolist() == [int(number) for number in row["formula_atoms"].split()]
        assert len(sample.labels["hamiltonian"]) == int(row["n_ao"])


@pytest.mark.reference
def test_computed_overlap_and_guess_of_water(reference_data):
    pytest.importorskip("pyscf")
    path = reference_data / "qh9" / "QH9Dynamic_sample_water.db"
    data = QH9Dataset(path, "dynamic_300k", overlap="compute", initial_guess="compute")
    assert data.provides == ("energy", "hamiltonian", "initial_hamiltonian", "overlap")
    sample = data[17]
    assert sample.info["initial_functional"] == "b3lyp5"
    with h5py.File(path.with_name(f"{path.stem}_extras.h5")) as extras:
        stored = extras["0_17"]
        names = {"overlap": "overlap", "initial_hamiltonian": "fock_minao_guess"}
        for label, name in names.items():
            expected = reorder(stored[name][:], sample.atoms.numbers, "def2-svp", "pyscf", "mlip")
            assert np.abs(sample.labels[label] - expected).max() < 1e-7
        found = molecular_orbitals(sample.labels["hamiltonian"], sample.labels["overlap"]).energies
        assert np.abs(found - stored["mo_energy"][:]).max() < 1e-5


def test_dynamic_rows(tmp_path):
    data, case = dynamic(tmp_path)
    assert len(data) == 6
    assert data.units == {"energy": "Hartree", "hamiltonian": "Hartree", "positions": "Bohr"}
    for found, wanted in zip(data, case.samples, strict=True):
        assert_same(found, wanted)
    assert data.groups() == ["7"] * 3 + ["9"] * 3
    assert data.num_atoms().tolist() == [3] * 6
    assert data.fields() == {"energy", "hamiltonian"}
    assert "NC-SA" in data.licence
    assert data.geometry_digests([0, 4]).tolist() == [geometry_hash(data[k].atoms) for k in (0, 4)]
    with pytest.raises(IndexError):
        data[6]


def test_stable_rows_with_gaps_in_their_ids(tmp_path):
    path = fixture.write_stable(tmp_path / "stable.db", [3, 4, 11, 130830])
    data = QH9Dataset(path)
    assert data.units["positions"] == "Angstrom"
    assert data.provides == ("hamiltonian",)
    for position, (found, number) in enumerate(zip(data, [3, 4, 11, 130830], strict=True)):
        assert_same(found, fixture.expected(number, f"{path}:{position}", dynamic=False, molecule=number))
    assert data.groups() == ["3", "4", "11", "130830"]


def test_it_pickles_and_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("mlip.data.datasets.qh9.CHUNK_BYTES", 0)
    monkeypatch.setattr("mlip.data.datasets.qh9.SMALLEST_CHUNK", 4)
    data, case = dynamic(tmp_path)
    chunks = list(data.chunks())
    assert [chunk.num_samples for chunk in chunks] == [4, 2]
    assert all(chunk.num_bytes > 0 for chunk in chunks)
    data[0]
    copy = pickle.loads(pickle.dumps(data))
    samples = [sample for chunk in chunks for sample in copy.read(pickle.loads(pickle.dumps(chunk)))]
    for found, wanted in zip(samples, case.samples, strict=True):
        assert_same(found, wanted)


def test_a_forked_process_opens_the_file_for_itself(tmp_path):
    data, case = dynamic(tmp_path)
    data[0]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(data[5].labels["hamiltonian"], case.samples[5].labels["hamiltonian"]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert_same(data[5], case.samples[5])


def test_the_variant_decides_the_functional(tmp_path):
    path = fixture.write(tmp_path).files[0]
    assert QH9Dataset(path, "dynamic_300k")[0].info["functional"] == "b3lyp5"
    assert QH9Dataset(path, "dynamic_100k")[0].info["functional"] == "b3lyp"
    assert QH9Dataset(path, "dynamic_100k").level_of_theory["code"] == "PySCF 2.3.0"
    assert QH9Dataset(path, "own", functional="pbe")[0].info["functional"] == "pbe"
    with pytest.raises(ConfigError, match="needs the functional"):
        QH9Dataset(path, "own")
    with pytest.raises(ConfigError, match=r"dynamic_300k or dynamic_100k: .* does not say"):
        QH9Dataset(path)
    with pytest.raises(ConfigError, match=r"Did you mean 'dynamic_300k'\?"):
        QH9Dataset(path, "dynamic-300k")
    with pytest.raises(DataError, match=r"it is QH9 Dynamic, not variant: stable"):
        QH9Dataset(path, "stable")
    stable = fixture.write_stable(tmp_path / "s.db", [0])
    with pytest.raises(DataError, match=r"no geo_id: it is QH9 Stable, not variant: dynamic_300k"):
        QH9Dataset(stable, "dynamic_300k")


def test_unconverged_rows(tmp_path):
    rows = [fixture.dynamic_row(7, k, k, converged=int(k != 1)) for k in range(4)]
    path = fixture.write_dynamic(tmp_path / "d.db", rows)
    refused = QH9Dataset(path, "dynamic_300k")
    with pytest.raises(DataError, match=r"d\.db:1: the SCF of this row did not converge"):
        refused[1]
    items = list(refused.read(next(iter(refused.chunks()))))
    assert [isinstance(item, DataError) for item in items] == [False, True, False, False]
    skipped = QH9Dataset(path, "dynamic_300k", unconverged="skip")
    assert [sample.info["geo_id"] for sample in skipped] == [0, 2, 3]
    assert [sample.info["source"][-1] for sample in skipped] == ["0", "2", "3"]
    assert skipped.num_atoms().tolist() == [3, 3, 3]
    kept = QH9Dataset(path, "dynamic_300k", unconverged="keep")
    assert [sample.info.get("converged", True) for sample in kept] == [True, False, True, True]


def test_positions_in_the_wrong_unit_are_noticed(tmp_path):
    """Å and Bohr differ by 1.9: no molecule has bonds of either kind in both."""
    path = fixture.write(tmp_path).files[0]
    with pytest.raises(DataError, match="if they are not, set length_unit: Bohr"):
        QH9Dataset(path, "dynamic_300k", length_unit="Angstrom")[0]
    stable = fixture.write_stable(tmp_path / "s.db", [0])
    with pytest.raises(DataError, match="if they are not, set length_unit: Angstrom"):
        QH9Dataset(stable, length_unit="Bohr")[0]


@pytest.mark.reference
@pytest.mark.parametrize("name", SAMPLES)
def test_the_unit_is_noticed_for_real_molecules(name, reference_data):
    """In the wrong unit every frame of Dynamic is refused, and all of Stable but F2 and H2."""
    variant, rows = SAMPLES[name]
    stable = variant == "stable"
    path = reference_data / "qh9" / f"{name}.db"
    wrong = QH9Dataset(path, variant, functional="b3lyp5", length_unit="Bohr" if stable else "Angstrom")
    items = wrong.read(Chunk("all", (0, rows)))
    passed = {item.atoms.get_chemical_formula() for item in items if not isinstance(item, DataError)}
    assert passed <= ({"F2", "H2"} if stable else set())


def test_other_elements_need_pyscf_for_their_orbitals(tmp_path):
    pytest.importorskip("pyscf")
    size = 18
    row = fixture.dynamic_row(0, 0, 0)
    numbers = np.array([atomic_numbers["Cl"]], "<i4").tobytes()
    matrix = fixture.symmetric(size, 5).tobytes()
    path = fixture.write_dynamic(
        tmp_path / "cl.db", [(*row[:2], 1, numbers, np.zeros(3).tobytes(), *row[5:9], matrix, 1)]
    )
    sample = QH9Dataset(path, "own", functional="b3lyp5")[0]
    assert sample.labels["hamiltonian"].shape == (size, size)


def test_recognition(tmp_path):
    path = fixture.write(tmp_path).files[0]
    found = QH9Dataset.recognise(path)
    assert (found.certainty, dict(found.options)) == (3, {"variant": "dynamic_300k"})
    assert "file name" in found.note
    unnamed = QH9Dataset.recognise(path.rename(tmp_path / "frames.db"))
    assert dict(unnamed.options) == {}
    assert "variant" in unnamed.note
    assert dict(unnamed.preview) == {"variant": "dynamic_300k"}
    stable = QH9Dataset.recognise(fixture.write_stable(tmp_path / "s.db", [0]))
    assert dict(stable.options) == {"variant": "stable"}
    other = tmp_path / "other.db"
    sqlite3.connect(other).execute("CREATE TABLE data (x)").connection.close()
    (tmp_path / "text.db").write_text("no database")
    for wrong in (other, tmp_path / "text.db", tmp_path, tmp_path / "nowhere"):
        assert QH9Dataset.recognise(wrong) is None
