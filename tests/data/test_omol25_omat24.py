"""OMol25 and OMat24: charge and multiplicity, metadata, sub-folders."""

import pickle

import numpy as np
import pytest

from mlip.core.errors import DataError
from mlip.data.datasets.omat24 import OMat24Dataset
from mlip.data.datasets.omol25 import OMol25Dataset
from mlip.data.formats import ase_rows_metadata
from tests.data.ase_files import crystal, molecule, row_of, write_aselmdb


def omol(tmp_path, *rows, **metadata):
    folder = tmp_path / "val"
    write_aselmdb(folder / "data0000.aselmdb", dict(enumerate(rows, 1)))
    if metadata:
        np.savez(folder / "metadata.npz", **metadata)
    return OMol25Dataset(folder)


def test_charge_and_spin_must_be_there(tmp_path):
    row = row_of(molecule(0))
    for key in ("charge", "spin"):
        lacking = row | {"data": {name: value for name, value in row["data"].items() if name != key}}
        data = omol(tmp_path, row, lacking)
        assert int(data[0].labels["spin"]) == 1
        with pytest.raises(DataError, match=rf"data0000\.aselmdb:1: no {key}"):
            data[1]
        with pytest.raises(DataError, match=f"no {key}"):
            omol(tmp_path / key, lacking)


@pytest.mark.parametrize(
    ("charge", "spin", "message"),
    [
        (0, 0, "multiplicity"),  # 2S in place of 2S + 1
        (0, 2, "10 electrons cannot have the multiplicity 2"),
        (1, 1, "9 electrons cannot have the multiplicity 1"),
        (0, 13, "10 electrons cannot"),
        (20, 1, "-10 electrons"),
        (0.5, 1, "whole|integer"),
    ],
)
def test_charge_and_spin_must_fit_the_electrons(tmp_path, charge, spin, message):
    row = row_of(molecule(0))
    data = omol(tmp_path, row, row | {"data": {"charge": charge, "spin": spin}})
    with pytest.raises(DataError, match=message):
        data[1]


def test_crystals_are_no_omol_and_molecules_no_omat(tmp_path):
    data = omol(tmp_path, row_of(molecule(0)), row_of(molecule(0)) | {"pbc": [True, True, True]})
    with pytest.raises(DataError, match="periodic"):
        data[1]
    write_aselmdb(
        tmp_path / "rattled-500" / "a.aselmdb", {1: row_of(crystal(0)), 2: row_of(crystal(1)) | {"pbc": False}}
    )
    with pytest.raises(DataError, match="not periodic"):
        OMat24Dataset(tmp_path / "rattled-500")[1]


def test_metadata_must_belong_to_the_rows(tmp_path):
    rows = [row_of(molecule(k)) for k in range(3)]
    data = omol(tmp_path, *rows, natoms=np.array([3, 3, 3]), data_ids=np.array(["a", "b", "a"]))
    assert [sample.info["domain"] for sample in data] == ["a", "b", "a"]
    assert data.num_atoms().tolist() == [3, 3, 3]
    with pytest.raises(DataError, match=r"natoms must have one entry for each of the 3 rows"):
        omol(tmp_path, *rows, natoms=np.array([3, 3]))
    with pytest.raises(DataError, match=r"data_ids must have one entry"):
        omol(tmp_path, *rows, natoms=np.array([3, 3, 3]), data_ids=np.array(["a"]))
    with pytest.raises(DataError, match="has no array 'natoms'"):
        omol(tmp_path, *rows, sizes=np.array([3, 3, 3]))
    with pytest.raises(DataError, match=r"has 3 atoms, .* says 4"):
        list(omol(tmp_path, *rows, natoms=np.array([3, 4, 3])))
    with pytest.raises(DataError, match="natoms must be integers"):
        omol(tmp_path, *rows, natoms=np.array(["3", "3", "3"])).num_atoms()


def test_metadata_of_part_of_a_folder_are_not_used(tmp_path):
    rows = [row_of(molecule(k)) for k in range(3)]
    omol(tmp_path, *rows, natoms=np.array([3, 3, 3]), data_ids=np.array(["a", "b", "a"]))
    write_aselmdb(tmp_path / "val" / "data0001.aselmdb", {1: rows[0]})
    alone = OMol25Dataset(tmp_path / "val" / "data0001.aselmdb")
    assert "domain" not in alone[0].info, "the metadata are those of another list of files"
    assert alone.num_atoms() is None


def test_names_may_be_python_objects(tmp_path, monkeypatch, caplog):
    rows = [row_of(molecule(k)) for k in range(3)]
    names = np.array(["elytes", "ani2x", "elytes"], dtype=object)
    data = omol(tmp_path, *rows, natoms=np.array([3, 3, 3]), data_ids=names)
    assert [sample.info["domain"] for sample in pickle.loads(pickle.dumps(data))] == ["elytes", "ani2x", "elytes"]
    monkeypatch.setattr(ase_rows_metadata, "LARGEST_PICKLE", 100)
    assert "domain" not in OMol25Dataset(tmp_path / "val")[0].info
    assert "too many to read" in caplog.text


def test_a_pickle_in_the_metadata_does_not_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return exec, ("raise SystemExit",)

    rows = [row_of(molecule(k)) for k in range(3)]
    objects = np.array([Harm(), "a", "b"], dtype=object)
    with pytest.raises(DataError, match=r"names 'builtins.exec'.* Remove '.*metadata.npz' to read the rows without"):
        omol(tmp_path, *rows, natoms=np.array([3, 3, 3]), data_ids=objects)[0]
    with pytest.raises(DataError, match="natoms must be integers"):
        omol(tmp_path, *rows, natoms=objects)[0]


def test_omat24_subfolders_have_metadata_of_their_own(tmp_path):
    for name, seeds in (("rattled-300", (0, 1)), ("aimd-from-PBE-3000-npt", (2,))):
        write_aselmdb(tmp_path / name / "data.aselmdb", {k: row_of(crystal(s)) for k, s in enumerate(seeds, 1)})
        np.savez(tmp_path / name / "metadata.npz", natoms=np.full(len(seeds), 2))
    data = pickle.loads(pickle.dumps(OMat24Dataset(tmp_path)))
    assert [sample.info["config_type"] for sample in data] == ["aimd-from-PBE-3000-npt", "rattled-300", "rattled-300"]
    assert data.num_atoms().tolist() == [2, 2, 2]
    for sample, seed in zip(data, (2, 0, 1)):
        np.testing.assert_array_equal(sample.labels["stress"], crystal(seed).labels["stress"])


def test_recognition(tmp_path):
    assert omol(tmp_path, row_of(molecule(0))).recognise(tmp_path / "val").certainty == 2
    omol(tmp_path, row_of(molecule(0)), natoms=np.array([3]))
    assert OMol25Dataset.recognise(tmp_path / "val").certainty == 3
    write_aselmdb(tmp_path / "x" / "rattled-300" / "a.aselmdb", {1: row_of(crystal(0))})
    write_aselmdb(tmp_path / "y" / "b.aselmdb", {1: row_of(crystal(0))})
    assert OMat24Dataset.recognise(tmp_path / "x").certainty == 3
    for path in (tmp_path / "y", tmp_path / "val", tmp_path / "nothing"):
        assert OMat24Dataset.recognise(path) is None
    for path in (tmp_path / "x", tmp_path / "nothing"):
        assert OMol25Dataset.recognise(path) is None
