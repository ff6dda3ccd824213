"""ASE's trajectories: the same numbers as ASE reads, but forces as calculated, and nothing of ASE's object types."""

import os
import pickle
from contextlib import suppress

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read
from ase.io.trajectory import Trajectory

from mlip.core.errors import DataError
from mlip.data.datasets.ase_db import AseDbDataset
from mlip.data.formats import ase_rows
from mlip.data.formats.ase_rows import AseRows
from mlip.data.formats.open_files import OpenFiles
from tests.data.ase_files import crystal, row_of, write_aselmdb


def frame(seed, symbols="NaCl"):
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, cell=4 * np.eye(3) + rng.normal(size=(3, 3)) / 9, pbc=[True, True, False])
    atoms.positions = rng.normal(size=(len(atoms), 3))
    atoms.set_tags(rng.integers(0, 3, len(atoms)))
    atoms.set_initial_magnetic_moments(rng.normal(size=len(atoms)))
    atoms.set_constraint(FixAtoms([1]))
    atoms.info = {"charge": 1, "spin": 2, "matrix": rng.normal(size=(2, 2)), "name": "Ω"}
    results = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3)), "stress": rng.normal(size=6) / 100}
    atoms.calc = SinglePointCalculator(atoms, magmoms=rng.normal(size=len(atoms)), **results)
    return atoms


def write(path, frames):
    with Trajectory(str(path), "w") as trajectory:
        for atoms in frames:
            trajectory.write(atoms)
    return path


def check(sample, atoms):
    """Compare a sample with what ASE read."""
    for name in ("numbers", "positions", "pbc"):
        np.testing.assert_array_equal(getattr(sample.atoms, name), getattr(atoms, name))
    np.testing.assert_array_equal(sample.atoms.cell.array, atoms.cell.array)
    assert float(sample.labels["energy"]) == atoms.get_potential_energy()
    np.testing.assert_array_equal(sample.labels["forces"], atoms.get_forces(apply_constraint=False))
    held = atoms.constraints[0].index if atoms.constraints else []
    np.testing.assert_array_equal(np.flatnonzero(sample.labels["fixed"]), held)


def test_frames_are_those_that_ase_reads(tmp_path):
    path = write(tmp_path / "Ω.traj", [frame(0), frame(1), frame(2, "KBr"), frame(3, "CH4"), frame(4)])
    data = AseDbDataset(path, optional_labels=("stress", "magmoms", "tags", "fixed", "charge", "spin"))
    data = pickle.loads(pickle.dumps(data))
    for number, (sample, atoms) in enumerate(zip(data, read(path, ":"), strict=True)):
        check(sample, atoms)
        voigt = sample.labels["stress"][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        np.testing.assert_array_equal(voigt, atoms.get_stress())
        np.testing.assert_array_equal(sample.labels["magmoms"], atoms.calc.results["magmoms"])
        np.testing.assert_array_equal(sample.labels["tags"], atoms.get_tags())
        assert (int(sample.labels["charge"]), int(sample.labels["spin"])) == (1, 2)
        assert sample.info == {"source": f"{path}:{number}", "id": number, "group": str(path)}
    row = AseRows(path).row(1)
    np.testing.assert_array_equal(row["data"]["matrix"], frame(1).info["matrix"])
    np.testing.assert_array_equal(row["initial_magmoms"], frame(1).get_initial_magnetic_moments())


def test_what_is_said_once_belongs_to_all_frames(tmp_path):
    atoms, path = frame(0), tmp_path / "a.traj"
    with Trajectory(str(path), "w", atoms) as trajectory:
        for seed in range(2):
            atoms.positions += 0.1
            atoms.calc = frame(seed).calc
            atoms.calc.atoms = atoms.copy()
            trajectory.write()
    assert path.read_bytes().count(b"FixAtoms") == 1
    for sample, atoms in zip(AseDbDataset(path), read(path, ":"), strict=True):
        check(sample, atoms)


def test_a_folder_with_databases_is_not_mixed_with_its_trajectories(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "b.traj", [frame(0)])
    write(tmp_path / "a.traj", [frame(1), frame(2)])
    assert [file.name for file in AseRows(tmp_path).files] == ["a.traj", "b.traj"]
    assert AseDbDataset.recognise(tmp_path) is not None
    write_aselmdb(tmp_path / "c.aselmdb", {1: row_of(crystal(0))})
    assert [file.name for file in AseRows(tmp_path).files] == ["c.aselmdb"]


def test_damage_is_noticed_or_harmless(tmp_path):
    path = write(tmp_path / "a.traj", [frame(0), frame(1)])
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 7, 47, 48, *rng.integers(0, content.rindex(b"}"), 20)]:
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            len(AseDbDataset(path))
    for place in rng.integers(0, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with suppress(DataError):
            list(AseDbDataset(path))
    path.write_bytes(content.replace(b"ASE-Trajectory", b"GPAW-Something"))
    with pytest.raises(DataError, match="is no ASE trajectory"):
        AseRows(path)


def test_damaged_json_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    with connect(path) as database:
        database.write(frame(0))
        database.write(frame(1))
    content = path.read_bytes()
    assert AseDbDataset.recognise(path) is not None
    assert len(AseDbDataset(path)) == 2
    for size in np.random.default_rng(0).integers(0, content.rindex(b"}"), 20):
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            AseDbDataset(path)
    for row, rest in (("{}", ""), ("{}", ', "ids": [2]'), ("{}", ', "ids": 1'), ('{"numbers": [1]}', ', "ids": [1]')):
        path.write_text(f'{{"1": {row}{rest}}}')
        with pytest.raises(DataError, match=r"a\.json"):
            AseDbDataset(path)
        assert AseDbDataset.recognise(path) is None


@pytest.mark.reference
def test_a_frame_of_oc20_in_json(reference_data):
    path = reference_data / "oc20" / "raw" / "oc20_single_frame_COAl8Cu8Se16.json"
    (sample,) = AseDbDataset(path)
    atoms = read(path)
    check(sample, atoms)
    np.testing.assert_array_equal(sample.labels["tags"], atoms.get_tags())


@pytest.mark.reference
def test_a_relaxation_of_oc20(reference_data):
    for name, number in (("random1447590", 47), ("27998_all", 1)):
        path = reference_data / "oc20" / "raw" / f"{name}.traj"
        frames = read(path, ":")
        data = AseDbDataset(path)
        assert len(data) == len(frames) == number
        for sample, atoms in zip(data, frames):
            check(sample, atoms)
    first = AseDbDataset(reference_data / "oc20" / "raw" / "random1447590.traj")[0]
    assert float(first.labels["energy"]) == -17.87281992
    assert first.labels["fixed"].sum() == 10
    assert np.abs(first.labels["forces"][first.labels["fixed"]]).max() > 0.01


def test_only_so_many_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(ase_rows, "OpenFiles", lambda: OpenFiles(2))
    rows = [row_of(crystal(seed)) for seed in range(4)]
    paths = [write_aselmdb(tmp_path / f"{k}.aselmdb", {1: row}) for k, row in enumerate(rows)]
    with connect(tmp_path / "4.db") as connection:
        connection.write(frame(0))
    before = len(os.listdir("/proc/self/fd"))
    data = AseRows([*paths, tmp_path / "4.db"])
    for index in (0, 1, 4, 2, 0, 3, 4, 1, 1, 2):
        energy = rows[index]["energy"] if index < 4 else frame(0).get_potential_energy()
        assert data.row(index)["energy"] == energy
        assert len(os.listdir("/proc/self/fd")) <= before + 2
