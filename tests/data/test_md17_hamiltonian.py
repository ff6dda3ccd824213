"""MD17 Hamiltonians in an ASE database with ORCA's order of orbitals."""

from __future__ import annotations

import pickle
import random
import sqlite3

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect

from mlip.core.errors import DataError
from mlip.data import pyscf_extra
from mlip.data.datasets.md17_hamiltonian import MD17HamiltonianDataset
from mlip.data.molecular_orbitals import molecular_orbitals
from tests.data.fixtures import md17_hamiltonian as fixture
from tests.data.fixtures.qh9 import BOHR_ANGSTROM, WATER, WATER_BOHR, symmetric
from tests.data.test_qh9 import assert_same


def written(folder, **options):
    case = fixture.write(folder)
    return MD17HamiltonianDataset(**{**case.options, **options}), case


def test_rows_in_the_order_of_the_package(tmp_path):
    data, case = written(tmp_path)
    assert len(data) == 4
    assert data.provides == ("energy", "forces", "hamiltonian", "overlap")
    assert data.fields() == set(data.provides)
    for found, wanted in zip(data, case.samples, strict=True):
        assert_same(found, wanted)
    assert data.num_atoms().tolist() == [3] * 4
    assert data.level_of_theory == {"functional": "pbe", "basis": "def2-svp", "code": "ORCA"}
    copy = pickle.loads(pickle.dumps(data))
    samples = [sample for chunk in data.chunks() for sample in copy.read(chunk)]
    for found, wanted in zip(samples, case.samples, strict=True):
        assert_same(found, wanted)


def test_overlaps_may_be_left_out(tmp_path):
    data, case = written(tmp_path, overlap=False)
    assert data.provides == ("energy", "forces", "hamiltonian")
    assert set(data[0].labels) == set(data.provides)
    assert np.array_equal(data[0].labels["hamiltonian"], case.samples[0].labels["hamiltonian"])


@pytest.fixture
def physical(tmp_path):
    """A water of PySCF with its real overlap and core Hamiltonian, written in ORCA's order by hand."""
    pytest.importorskip("pyscf")
    from pyscf import gto

    molecule = gto.M(atom=list(zip(WATER, WATER_BOHR, strict=True)), basis="def2-svp", unit="Bohr", verbose=0)
    labels = [(atom, kind, component) for atom, _, kind, component in molecule.ao_labels(fmt=False)]
    order = {"p": ["z", "x", "y"], "d": ["z^2", "xz", "yz", "x2-y2", "xy"]}
    rows = []
    for atom, kind, component in labels:
        shell = order.get(kind[-1], [""])
        if not rows or labels[rows[-1]][:2] != (atom, kind):
            rows += [labels.index((atom, kind, name)) for name in shell]
        assert component in shell
    assert sorted(rows) == list(range(24))
    overlap, core = molecule.intor("int1e_ovlp"), molecule.intor("int1e_kin") + molecule.intor("int1e_nuc")
    path = tmp_path / "schnorb_hamiltonian_water.db"
    data = {"energy": -76.0, "forces": np.zeros((3, 3))}
    data |= {"hamiltonian": core[np.ix_(rows, rows)], "overlap": overlap[np.ix_(rows, rows)]}
    with connect(path) as database:
        database.write(Atoms(WATER, positions=np.array(WATER_BOHR) * BOHR_ANGSTROM), data=data)
    return path, overlap, core


def test_real_matrices_pass_the_check_of_the_order(physical):
    path, overlap, core = physical
    sample = MD17HamiltonianDataset(path)[0]
    # The order of PySCF by the public rule: p = x, y, z; d as it is.
    back = [0, 1, 2, 5, 3, 4, 8, 6, 7, 9, 10, 11, 12, 13, 14, 15, 18, 16, 17, 19, 20, 23, 21, 22]
    assert np.allclose(sample.labels["overlap"][np.ix_(back, back)], overlap, atol=1e-12)
    assert np.allclose(sample.labels["hamiltonian"][np.ix_(back, back)], core, atol=1e-12)
    energies = molecular_orbitals(sample.labels["hamiltonian"], sample.labels["overlap"]).energies
    assert np.allclose(energies, molecular_orbitals(core, overlap).energies, atol=1e-9)


def test_another_order_or_basis_is_noticed(physical, tmp_path):
    path, *_ = physical
    with pytest.raises(DataError, match=r"differs by 0\.\d+ .* not in the order pyscf"):
        MD17HamiltonianDataset(path, order="pyscf")
    with pytest.raises(DataError, match=r"overlap must be 49 numbers .* for 7 orbitals in sto-3g"):
        MD17HamiltonianDataset(path, basis="sto-3g")
    assert len(MD17HamiltonianDataset(path, order="pyscf", check_order=False)) == 1
    fixture.write_frames(tmp_path / "made_up.db", [1])
    with pytest.raises(DataError, match="check_order: false to read the file as it is"):
        MD17HamiltonianDataset(tmp_path / "made_up.db")


def test_without_pyscf_the_order_is_not_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    data, _ = written(tmp_path, check_order=True)
    assert len(data) == 4


def test_recognition(tmp_path):
    path = fixture.write(tmp_path).files[0]
    assert MD17HamiltonianDataset.recognise(path).certainty == 3
    with connect(tmp_path / "plain.db") as database:
        database.write(Atoms("H"))
    sqlite3.connect(tmp_path / "empty.db").close()
    for name in ("plain.db", "empty.db", "nowhere.db", "."):
        assert MD17HamiltonianDataset.recognise(tmp_path / name) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hamiltonian": None}, r"row 1: hamiltonian should stand in the row's data"),
        ({"hamiltonian": np.eye(23)}, "576|must be"),
        ({"hamiltonian": np.triu(np.ones((24, 24)))}, "Hamiltonian must be symmetric"),
        ({"overlap": 2 * np.eye(24)}, "overlap of an orbital with itself must be 1"),
        ({"forces": np.zeros((2, 3))}, "forces must be 9 numbers"),
        ({"forces": np.full((3, 3), np.nan)}, "forces must be finite"),
        ({"energy": "low"}, "energy must be numbers"),
        ({"energy": np.zeros(2)}, "energy must be 1 numbers"),
    ],
)
def test_damaged_rows(change, message, tmp_path):
    data = {"energy": -76.0, "forces": np.zeros((3, 3)), "hamiltonian": symmetric(24, 0), "overlap": np.eye(24)}
    data = {name: value for name, value in (data | change).items() if value is not None}
    path = tmp_path / "d.db"
    with connect(path) as database:
        database.write(Atoms(WATER, positions=np.array(WATER_BOHR) * BOHR_ANGSTROM), data=data)
    with pytest.raises(DataError, match=message):
        MD17HamiltonianDataset(path, check_order=False)[0]


def test_positions_in_bohr_are_noticed(tmp_path):
    data = {"energy": -76.0, "forces": np.zeros((3, 3)), "hamiltonian": symmetric(24, 0), "overlap": np.eye(24)}
    with connect(tmp_path / "d.db") as database:
        database.write(Atoms(WATER, positions=WATER_BOHR), data=data)
    with pytest.raises(DataError, match="Positions must be in Å"):
        MD17HamiltonianDataset(tmp_path / "d.db", check_order=False)[0]


def test_other_files(tmp_path):
    (tmp_path / "text.db").write_text("text")
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE x (y)").connection.close()
    for name, message in (
        ("none.db", "is no file"),
        ("text.db", "not an SQLite file"),
        ("empty.db", "no table 'systems'"),
    ):
        with pytest.raises(DataError, match=message):
            MD17HamiltonianDataset(tmp_path / name)


def test_truncated_and_changed_files(tmp_path):
    case = fixture.write(tmp_path)
    path = case.files[0]
    data = path.read_bytes()
    rng = random.Random(0)
    for _ in range(20):
        path.write_bytes(data[: rng.randrange(len(data))])
        with pytest.raises(DataError):
            MD17HamiltonianDataset(**case.options)
    for number in range(60):
        changed = bytearray(data)
        changed[rng.randrange(4096 if number % 2 else len(data))] ^= rng.randrange(1, 256)
        path.write_bytes(bytes(changed))
        try:
            dataset = MD17HamiltonianDataset(**case.options)
            items = [item for chunk in dataset.chunks() for item in dataset.read(chunk)]
        except DataError:
            continue
        assert len(items) == 4
