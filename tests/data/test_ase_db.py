"""Labels out of any ASE database: which key, which unit, which sign, and rows that contradict themselves."""

import io
import lzma

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read
from ase.units import GPa, Hartree

from mlip.core.errors import DataError
from mlip.data.datasets.ase_db import AseDbDataset
from tests.data.ase_files import crystal, row_of, write_aselmdb


def dataset(tmp_path, *rows, **options) -> AseDbDataset:
    return AseDbDataset(write_aselmdb(tmp_path / "a.aselmdb", dict(enumerate(rows, 1))), **options)


def bare(seed=0, **more):
    """A row without results."""
    row = row_of(crystal(seed))
    return {key: value for key, value in row.items() if key not in ("energy", "forces", "stress")} | more


@pytest.mark.reference
def test_oc20_sample_as_ase_reads_the_extxyz_files(reference_data):
    folder = reference_data / "oc20"
    known = {}
    for part in "01":
        text, lines = (
            lzma.decompress((folder / "s2ef_sample" / f"{part}.{kind}.xz").read_bytes()).decode()
            for kind in ("extxyz", "txt")
        )
        names = lines.split()
        for name, frame in zip(names, read(io.StringIO(text), ":", format="extxyz"), strict=True):
            known[tuple(name.split(",")[:2])] = frame
    data = AseDbDataset(folder / "s2ef_sample.aselmdb", info_keys=["sid", "fid"])
    assert len(data) == len(known) == 49
    assert data.provides == ("energy", "forces", "tags", "fixed")
    moving = 0.0
    for sample in data:
        frame = known[sample.info["sid"], f"frame{sample.info['fid']}"]
        assert np.array_equal(sample.atoms.numbers, frame.numbers)
        np.testing.assert_allclose(sample.atoms.positions, frame.positions, atol=1e-8)
        np.testing.assert_allclose(sample.atoms.cell.array, frame.cell.array, atol=1e-8)
        np.testing.assert_allclose(sample.labels["energy"], frame.calc.results["energy"], atol=1e-8)
        np.testing.assert_allclose(sample.labels["forces"], frame.calc.results["forces"], atol=1e-8)
        assert np.array_equal(sample.labels["tags"], frame.get_tags())
        held = np.concatenate([constraint.index for constraint in frame.constraints])
        assert np.array_equal(np.flatnonzero(sample.labels["fixed"]), np.sort(held))
        moving = max(moving, np.abs(sample.labels["forces"][held]).max())
    assert moving > 0.5, "forces on fixed atoms are those of DFT, not zeros"


@pytest.mark.reference
def test_real_sqlite_files(reference_data):
    oxides = AseDbDataset(reference_data / "oc20" / "oxides" / "oxides.db")
    assert len(oxides) == 295
    assert oxides.provides == ("energy", "forces", "tags")
    assert float(oxides[0].labels["energy"]) == -41.358821
    crystals = AseDbDataset(
        reference_data / "mptrj" / "10_thin_mp_traj_systems.db", labels=["energy", "forces", "stress"]
    )
    assert len(crystals) == 11
    for sample in crystals:
        row = crystals._samples.rows.row(sample.info["id"] - 1)
        np.testing.assert_allclose(sample.labels["stress"], row["data"]["stress"], atol=1e-12)
    with pytest.raises(DataError, match=r"adsorbates\.db:\d+: no energy; .*the keys there are: SMILE, bond_idx"):
        AseDbDataset(reference_data / "oc20" / "raw" / "adsorbates.db")


def test_labels_in_key_value_pairs_and_data(tmp_path):
    forces = np.arange(6.0).reshape(2, 3)
    row = bare(key_value_pairs={"REF_energy": -1.0}, data={"dft_forces": forces.tolist(), "total_charge": -1})
    sample = dataset(tmp_path, row, labels=["energy", "forces", "charge"])[0]
    assert float(sample.labels["energy"]) == -1.0
    assert np.array_equal(sample.labels["forces"], forces)
    assert int(sample.labels["charge"]) == -1
    assert "charge" not in dataset(tmp_path, row)[0].labels, "an input that was not asked for"


def test_units_and_sign(tmp_path):
    stress = [10.0, 20.0, 30.0, 1.0, 2.0, 3.0]
    row = bare(energy=-1.0, forces=np.ones((2, 3)).tolist(), stress=stress)
    labels = dataset(tmp_path, row, energy_unit="Hartree", stress_unit="kbar", stress_sign=-1)[0].labels
    assert float(labels["energy"]) == pytest.approx(-Hartree)
    np.testing.assert_allclose(labels["forces"], Hartree)
    expected = -0.1 * GPa * np.array([[10, 3, 2], [3, 20, 1], [2, 1, 30]])
    np.testing.assert_allclose(labels["stress"], expected, rtol=1e-12)
    with pytest.raises(DataError, match="says energy_unit='kcal/mol'"):
        dataset(tmp_path, row | {"key_value_pairs": {"energy_unit": "kcal/mol"}})


def test_one_key_with_two_values_is_the_users_choice(tmp_path):
    rows = [row_of(crystal(k), data={"energy": -100.0 - k}) for k in range(2)]
    with pytest.raises(DataError, match=r"two different values for its energy 'energy'.*energy_key: data\.energy"):
        dataset(tmp_path, *rows)
    chosen = dataset(tmp_path, *rows, energy_key="data.energy")
    assert [float(sample.labels["energy"]) for sample in chosen] == [-100, -101]
    chosen = dataset(tmp_path, *rows, energy_key="energy")
    assert [float(sample.labels["energy"]) for sample in chosen] == [rows[0]["energy"], rows[1]["energy"]]
    same = row_of(crystal(0), data={"energy": row_of(crystal(0))["energy"]})
    assert len(dataset(tmp_path, same)) == 1


def test_levels_of_theory_are_not_mixed(tmp_path):
    rows = [
        bare(k, forces=np.ones((2, 3)).tolist(), data={name: -1.0}) for k, name in enumerate(["energy", "dft_energy"])
    ]
    with pytest.raises(DataError, match=r"The energy is 'energy' in the first rows, but 'dft_energy' in .*:1"):
        list(dataset(tmp_path, *rows))


def test_optional_labels_that_the_first_rows_lack_are_not_mixed_either(tmp_path, monkeypatch):
    monkeypatch.setattr("mlip.data.datasets.ase_row_dataset.LOOKED_AT", 1)
    rows = [row_of(crystal(k)) for k in range(3)]
    del rows[0]["stress"]
    stress = rows[2].pop("stress")
    rows[2]["data"] = {"stress_dft": stress}
    with pytest.raises(DataError, match=r"The stress is 'stress' in .*:1, but 'stress_dft' in .*:2"):
        list(dataset(tmp_path, *rows))


def test_missing_labels_are_counted_and_the_keys_named(tmp_path):
    rows = [row_of(crystal(k)) for k in range(3)]
    with pytest.raises(DataError, match=r"2 of 3.*no forces"):
        len(dataset(tmp_path, rows[0], *({k: v for k, v in row.items() if k != "forces"} for row in rows[1:])))
    with pytest.raises(DataError, match=r"energy_key is 'Energy', the keys there are: .*Did you mean 'energy'"):
        dataset(tmp_path, *rows, energy_key="Energy")
    with pytest.raises(DataError, match="No row has the stress 'virial'"):
        len(dataset(tmp_path, *rows, stress_key="virial"))
    with pytest.raises(DataError, match=r"no 'trajectory', which group_key names"):
        len(dataset(tmp_path, *rows, group_key="trajectory"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": None}, "no energy"),
        ({"energy": float("nan")}, "not finite"),
        ({"forces": [[1e4, 0, 0], [0, 0, 0]]}, "above max_force"),
        ({"stress": [1, 2, 3]}, "3x3 or six"),
        ({"magmoms": [[0, 0, 1], [0, 0, 1]]}, "magmoms"),
    ],
)
def test_damaged_rows_are_handed_out_as_errors(tmp_path, change, message):
    data = dataset(tmp_path, row_of(crystal(0)), row_of(crystal(1)) | change, row_of(crystal(2)))
    (chunk,) = data.chunks()
    items = list(data.read(chunk))
    assert isinstance(items[1], DataError)
    assert message in str(items[1])
    assert "a.aselmdb:1" in str(items[1])
    assert [type(item).__name__ for item in (items[0], items[2])] == ["Sample", "Sample"]
    with pytest.raises(DataError, match=message):
        len(data)


def test_isolated_atoms_give_their_energies(tmp_path):
    database = connect(tmp_path / "a.db")
    for symbols, energy in (("H", -13.5), ("H2", -31.5), ("O", -432.0)):
        atoms = Atoms(symbols, positions=np.arange(3.0 * len(Atoms(symbols))).reshape(-1, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)))
        database.write(atoms)
    data = AseDbDataset(tmp_path / "a.db")
    assert len(data) == 1
    assert data.isolated_atom_energies() == {"H": -13.5, "O": -432.0}
    kept = AseDbDataset(tmp_path / "a.db", include_isolated_atoms=True)
    assert len(kept) == 3
    assert kept.isolated_atom_energies() == data.isolated_atom_energies()


def test_it_recognises_databases(tmp_path):
    file = write_aselmdb(tmp_path / "a.aselmdb", {1: row_of(crystal(0))})
    assert AseDbDataset.recognise(file).certainty == 1
    assert AseDbDataset.recognise(tmp_path).certainty == 1
    (tmp_path / "b").mkdir()
    assert AseDbDataset.recognise(tmp_path / "b") is None
    assert AseDbDataset.recognise(tmp_path / "nothing.db") is None
    (tmp_path / "b" / "text.db").write_text("no database")
    assert AseDbDataset.recognise(tmp_path / "b" / "text.db") is None
