"""MPtrj in its five layouts; the guards of frames; the published samples against readers of their own."""

import gzip
import itertools
import json
import lzma
import pickle
import sqlite3
import zipfile
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core import Structure

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.mptrj import MPtrjDataset
from mlip.data.formats.pymatgen_structure import read_structure
from tests.data.fixtures.mptrj import content, frame, write


def read(dataset):
    return [item for chunk in dataset.chunks() for item in dataset.read(pickle.loads(pickle.dumps(chunk)))]


def open_json(tmp_path, data, **options):
    path = tmp_path / "mptrj.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return MPtrjDataset(path, **{"energy": "uncorrected", **options})


def same(one, other, tolerance=1e-12):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        assert a.info["group"] == b.info["group"]
        assert np.array_equal(a.atoms.numbers, b.atoms.numbers)
        np.testing.assert_allclose(a.atoms.positions, b.atoms.positions, atol=1e-7)
        assert a.labels.keys() == b.labels.keys()
        for name in a.labels:
            np.testing.assert_allclose(a.labels[name], b.labels[name], rtol=tolerance, atol=tolerance, err_msg=name)


def frames_of(samples, keys):
    """Return ASE's structures with labels, for writing other layouts with ASE."""
    for sample in samples:
        atoms = sample.atoms.copy()
        results = {"energy": float(sample.labels["energy"]), "forces": sample.labels["forces"]}
        stress = sample.labels["stress"]
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        if "magmoms" in sample.labels:
            results["magmoms"] = sample.labels["magmoms"]
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info = keys(sample)
        yield sample.info["group"], atoms


def zip_keys(sample):
    corrected = float(sample.labels["energy"]) - 0.5 * len(sample.atoms)
    return {"material_id": sample.info["group"], "mp2020_corrected_energy": corrected, "calc_id": 0, "ionic_step": 2}


@pytest.fixture
def samples(tmp_path):
    return write(tmp_path).samples


def test_a_zip_a_folder_and_one_file_of_extxyz(tmp_path, samples):
    folder = tmp_path / "materials"
    folder.mkdir()
    for mp_id, atoms in frames_of(samples, zip_keys):
        ase.io.write(folder / f"{mp_id}.extxyz", atoms, format="extxyz", append=True)
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"mp-trj/{file.name}")
    one = tmp_path / "random.xyz"
    keys = lambda s: {"mptrj_traj_id": s.info["group"], "mptrj_snapshot_id": f"{s.info['group']}-1-4"}  # noqa: E731
    ase.io.write(one, [atoms for _, atoms in frames_of(samples, keys)], format="extxyz")
    for path in (folder, tmp_path / "m.zip", one):
        dataset = MPtrjDataset(path, "uncorrected")
        same(read(pickle.loads(pickle.dumps(dataset))), samples, 1e-7)
        assert MPtrjDataset.recognise(path).certainty == 3
    assert dataset[2].info["ionic_step"] == 4
    corrected = MPtrjDataset(tmp_path / "m.zip", "corrected")
    assert float(corrected[0].labels["energy"]) == -8.0
    with pytest.raises(DataError, match="no corrected energy, it has only the uncorrected one: set"):
        len(MPtrjDataset(one, "corrected"))


def test_a_database_with_everything_in_its_data(tmp_path, samples):
    path = tmp_path / "rows.db"
    with ase.db.connect(path) as database:
        for mp_id, atoms in frames_of(samples, lambda _: {}):
            data = {
                "mp_id": mp_id,
                "energy": atoms.calc.results["energy"],
                "corrected_total_energy": -9.0,
                "calc_id": 1,
            }
            database.write(atoms, data=data | {"energy_per_atom": -9.0 / len(atoms)})
    same(read(MPtrjDataset(path, "uncorrected")), samples)
    assert float(MPtrjDataset(path, "corrected")[1].labels["energy"]) == -9.0
    assert MPtrjDataset.recognise(path).certainty == 3


def test_compressed_json_and_other_spacing(tmp_path, samples):
    for text in (json.dumps(content(), indent=1), json.dumps(content(), separators=(",", ":"))):
        same(read(open_json(tmp_path, text)), samples)
    for name, module in (("m.json.gz", gzip), ("m.json.xz", lzma)):
        with module.open(tmp_path / name, "wt") as stream:
            json.dump(content(), stream)
        dataset = MPtrjDataset(tmp_path / name, "uncorrected")
        same(read(dataset), samples)
        assert MPtrjDataset.recognise(tmp_path / name).certainty == 3
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-20])
        with pytest.raises(DataError):
            len(MPtrjDataset(tmp_path / name, "uncorrected"))


def test_options(tmp_path):
    (tmp_path / "ids.txt").write_text("mp-1\n")
    path = Path(open_json(tmp_path, content())._layout.path)
    kept = MPtrjDataset(path, "corrected", absolute_magmoms=True, exclude=tmp_path / "ids.txt")
    assert [float(sample.labels["magmoms"][0]) for sample in kept] == [2.25]
    assert float(kept[0].labels["energy"]) == -11.0
    assert kept.level_of_theory["energy"].startswith("MP2020")
    assert MPtrjDataset(path, "corrected", include=["mp-1"]).groups() == ["mp-1", "mp-1"]
    with pytest.raises(ConfigError, match="Did you mean 'corrected'"):
        MPtrjDataset(path, "correctd")
    with pytest.raises(DataError, match="look at include and exclude"):
        len(MPtrjDataset(path, "corrected", include=["mp-3"]))
    with pytest.raises(DataError, match="There is no file"):
        MPtrjDataset(tmp_path / "no.json", "corrected")


DAMAGE = [
    ({"corrected_total_energy": None, "energy_per_atom": None}, None),
    ({"uncorrected_total_energy": None}, "no uncorrected energy, it has only the corrected one"),
    ({"uncorrected_total_energy": "-7"}, "must be a number, got '-7'"),
    ({"energy_per_atom": -3.9}, r"energy_per_atom is -3\.900000 eV, the corrected energy of 2 atoms gives -4\.000000"),
    ({"force": [[0, 0, 0]]}, r"forces must have shape \(2, 3\), got \(1, 3\)"),
    ({"force": [[0, 0, 0], [0, 0, "x"]]}, "forces must be numbers"),
    ({"stress": [1, 2, 3, 4, 5, 6]}, r"stress must have shape \(3, 3\)"),
    ({"stress": [[1, 2, 3], [0, 1, 0], [0, 0, 1]]}, "symmetric"),
    ({"magmom": [1.0]}, "magmoms must have shape"),
    ({"mp_id": "mp-2"}, "belongs to the material 'mp-2'"),
    ({"structure": None}, "must be an object with lattice and sites"),
]


@pytest.mark.parametrize(("change", "words"), DAMAGE)
def test_frames_that_cannot_be_right_name_themselves(tmp_path, change, words):
    data = {"mp-1": {"mp-1-0-0": frame("mp-1", 0) | change, "mp-1-0-1": frame("mp-1", 1)}}
    first, second = read(open_json(tmp_path, data))
    assert not isinstance(second, DataError)
    if words is None:
        assert float(first.labels["energy"]) == -7.0
        return
    with pytest.raises(DataError, match=words) as error:
        raise first
    assert "mp-1/mp-1-0-0" in str(error.value)


def test_null_labels_are_absent_and_missing_keys_are_errors(tmp_path):
    data = {"mp-1": {"mp-1-0-0": frame("mp-1", 0, stress=None)}}
    assert set(open_json(tmp_path, data)[0].labels) == {"energy", "forces"}
    data["mp-1"]["mp-1-0-0"]["forces"] = data["mp-1"]["mp-1-0-0"].pop("force")
    with pytest.raises(DataError, match=r"has no 'force'\. Did you mean 'forces'"):
        len(open_json(tmp_path, data))


def test_structures_that_are_not_whole_atoms_are_refused():
    good = frame("mp-1", 0)["structure"]
    same_atoms = read_structure(json.loads(json.dumps(good)), "x")
    assert same_atoms.get_chemical_formula() == "ClNa"
    site = good["sites"][1]
    for change, words in [
        ({"species": [{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}]}, "one atom with occupancy 1"),
        ({"species": [{"element": "Na", "occu": 0.9}]}, "occupancy 1"),
        ({"species": [{"element": "Qq", "occu": 1}]}, "'Qq' is no chemical element"),
        ({"xyz": [9.0, 9.0, 9.0]}, "site 1 are .* Å apart"),
        ({"xyz": [0.0, 0.0]}, "form of a pymatgen Structure"),
        ({"species": None}, "form of a pymatgen Structure"),
    ]:
        with pytest.raises(DataError, match=words):
            read_structure({**good, "sites": [good["sites"][0], {**site, **change}]}, "x")
    for change, words in [
        ({"charge": 1}, "charge of 1"),
        ({"sites": []}, "no sites|neither"),
        ({"lattice": 3}, "form"),
    ]:
        with pytest.raises(DataError, match=words):
            read_structure({**good, **change}, "x")
    flat = {**good["lattice"], "matrix": [[1, 0, 0], [0, 1, 0], [0, 1, 0]]}
    with pytest.raises(DataError, match="volume of 0"):
        read_structure({**good, "lattice": flat}, "x")


@pytest.mark.reference
def test_published_frames_agree_between_json_zip_and_database(reference_data):
    folder = reference_data / "mptrj"
    names = ("MPtrj_sample_full_schema.json", "mp-trj-sample.extxyz.zip", "10_thin_mp_traj_systems.db")
    for energy in ("corrected", "uncorrected"):
        in_json, in_zip, in_db = [list(MPtrjDataset(folder / name, energy)) for name in names]
        assert len(in_json) == 11
        for one, two, three in zip(in_json, in_zip, in_db):
            for name in ("energy", "forces", "magmoms"):
                assert np.array_equal(one.labels.get(name), two.labels.get(name))
                assert np.array_equal(one.labels.get(name), three.labels.get(name))
            np.testing.assert_allclose(one.labels["stress"], two.labels["stress"], rtol=0, atol=1e-15)
            # The JSON was written with six decimals of a kbar.
            np.testing.assert_allclose(one.labels["stress"], three.labels["stress"], rtol=0, atol=5e-7 / 1602)
            for key in ("group", "task_id", "calc_id", "ionic_step"):
                assert one.info[key] == two.info[key] == three.info[key]
    raw = json.loads((folder / names[0]).read_text())
    frames = [frame for frames in raw.values() for frame in frames.values()]
    for sample, frame_ in zip(in_json, frames, strict=True):
        structure = Structure.from_dict(frame_["structure"])
        np.testing.assert_allclose(sample.atoms.positions, structure.cart_coords, atol=1e-12)
        assert np.array_equal(sample.atoms.numbers, structure.atomic_numbers)
        assert np.array_equal(sample.atoms.cell.array, structure.lattice.matrix)
    with sqlite3.connect(f"file:{folder / names[2]}?mode=ro&immutable=1", uri=True) as rows:
        energies = [energy for (energy,) in rows.execute("SELECT energy FROM systems ORDER BY id")]
    assert energies == [float(sample.labels["energy"]) for sample in in_db]


@pytest.mark.reference
def test_published_random_frames(reference_data):
    folder = reference_data / "mptrj"
    dataset = MPtrjDataset(folder / "mptrj-random-sharedpart.xyz", "uncorrected")
    assert len(dataset) == 695
    assert len(set(dataset.groups())) == 694
    for sample, atoms in zip(dataset, ase.io.read(folder / "mptrj-random-sharedpart.xyz", ":"), strict=True):
        assert float(sample.labels["energy"]) == atoms.calc.results["energy"]
        assert np.array_equal(sample.labels["forces"], atoms.calc.results["forces"])
        np.testing.assert_allclose(sample.labels["stress"], atoms.get_stress(voigt=False), atol=1e-15)
    partial = MPtrjDataset(folder / "MPtrj_sample_partial_schema.json", "uncorrected")
    by_frame = {tuple(sample.info[key] for key in ("group", "task_id", "ionic_step")): sample for sample in dataset}
    assert len(partial) == 150
    for sample in partial:
        other = by_frame[tuple(sample.info[key] for key in ("group", "task_id", "ionic_step"))]
        assert float(sample.labels["energy"]) == float(other.labels["energy"])
        np.testing.assert_allclose(sample.labels["stress"], other.labels["stress"], atol=5e-7 / 1602)
        assert "magmoms" not in sample.labels
    with pytest.raises(DataError, match=r"150 of 150 .* no corrected energy, it has only the uncorrected one"):
        len(MPtrjDataset(folder / "MPtrj_sample_partial_schema.json", "corrected"))


@pytest.mark.reference
def test_stress_and_forces_account_for_the_energy_of_a_real_relaxation(reference_data):
    """dE = V σ:ε − F·u between steps of one relaxation; with the other sign of the stress it does not."""
    dataset = MPtrjDataset(reference_data / "mptrj" / "MPtrj_sample_full_schema.json", "uncorrected")
    steps = [s for s in dataset if s.info["calc_id"] == 1 and s.info["ionic_step"] >= 5]
    steps.sort(key=lambda sample: sample.info["ionic_step"])
    balance = []
    for one, two in itertools.pairwise(steps):
        cell = (one.atoms.cell.array + two.atoms.cell.array) / 2
        strain = np.linalg.solve(cell, two.atoms.cell.array - one.atoms.cell.array)
        moved = two.atoms.get_scaled_positions(wrap=False) - one.atoms.get_scaled_positions(wrap=False)
        stress = (one.labels["stress"] + two.labels["stress"]) / 2
        forces = (one.labels["forces"] + two.labels["forces"]) / 2
        by_stress = abs(np.linalg.det(cell)) * (stress * strain).sum()
        by_forces = -(forces * ((moved - np.round(moved)) @ cell)).sum()
        balance.append((float(two.labels["energy"] - one.labels["energy"]), by_forces, by_stress))
    energy, by_forces, by_stress = np.array(balance).T
    assert np.abs(energy - by_forces - by_stress).max() < 0.005
    assert np.abs(energy - by_forces + by_stress).max() > 0.05
    # Strongly compressed frames, atoms closer than 0.85 of their radii: pressure is negative here.
    random = MPtrjDataset(reference_data / "mptrj" / "mptrj-random-sharedpart.xyz", "uncorrected")
    traces = {sample.info["group"]: np.trace(sample.labels["stress"]) for sample in random}
    assert traces["mp-807720"] < -1.5
    assert min(traces.values()) < -2 * max(traces.values())
