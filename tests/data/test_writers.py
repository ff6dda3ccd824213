"""Written files against ASE's readers, and against what was written, to the last bit."""

import json
import zlib

import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.db.row import AtomsRow
from ase.io import read

from mlip.core.errors import ConfigError, DataError, MlipError
from mlip.data.datasets.ase_db import AseDbDataset
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.sample import Sample
from mlip.data.writers import aselmdb
from mlip.data.writers.aselmdb import AseLmdbWriter
from mlip.data.writers.base import PRIVATE_INFO
from mlip.data.writers.extxyz import ExtxyzWriter
from mlip.data.writers.registry import WRITERS, writer_for
from tests.data.ase_files import crystal, molecule

EVERYTHING = ["stress", "magmoms", "tags", "fixed", "charge", "spin"]


@pytest.fixture
def samples() -> list[Sample]:
    """All kinds of labels, numbers with all digits, awkward texts."""
    full = crystal(
        1, "Na3Cl", tags=[0, 1, 2, 0], fixed=[True, False, True, False], magmoms=[0.1 + 0.2, -1e-17, 1e22, 0.0]
    )
    full.info = {"source": "elsewhere:7", "config_type": "bulk", "group": 'mp-1 "a" b\\c', "temperature": 300.5}
    full.info |= {"step": 3, "kept": True, "name": "True", "path": "a=b, ü", "many": [1, 2], "energy": "high"}
    full.info |= {"number": "12", "empty": "", "lines": "a\nb", "json": "_JSON 1"}
    free = crystal(2, stress=False, fixed=[False, False])
    free.atoms.pbc = [True, False, True]
    tiny = Sample(
        Atoms("HO", positions=[[1 / 3, -0.0, 5e-324], [1e-8, 2.0, 1e15]]),
        {"energy": np.array(-1 / 3), "forces": np.array([[1e-300, -1 / 7, 2 / 3], [0.1, 0.2, 0.3]])},
    )
    return [full, free, tiny, molecule(5, "NH4", 1, 1)]


def assert_same(found, expected, info=True) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        for name in ("numbers", "positions", "pbc"):
            assert np.array_equal(getattr(ours.atoms, name), getattr(theirs.atoms, name)), name
        assert np.array_equal(ours.atoms.cell.array, theirs.atoms.cell.array)
        assert ours.labels.keys() == theirs.labels.keys()
        for name, value in theirs.labels.items():
            assert np.array_equal(ours.labels[name], value), name
        if info and "config_type" in theirs.info:
            assert ours.info["config_type"] == theirs.info["config_type"]


def read_back(path) -> list[Sample]:
    if path.suffix == ".aselmdb":
        return list(AseDbDataset(path, labels=["energy", "forces"], optional_labels=EVERYTHING))
    return list(ExtxyzDataset(path, optional_labels=EVERYTHING))


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.aselmdb"])
def test_round_trip(tmp_path, samples, name):
    assert writer_for(tmp_path / name).write(iter(samples), tmp_path / name) == 4
    assert_same(read_back(tmp_path / name), samples)


def test_there_and_back_again(tmp_path, samples):
    """extxyz, database, extxyz: the same bytes."""
    first, middle, last = tmp_path / "a.extxyz", tmp_path / "b.aselmdb", tmp_path / "c.extxyz"
    for sample in samples:
        sample.info = {}
    ExtxyzWriter().write(samples, first)
    AseLmdbWriter().write(read_back(first), middle)
    ExtxyzWriter().write(read_back(middle), last)
    assert first.read_bytes() == last.read_bytes()
    again = tmp_path / "other" / "b.aselmdb"
    AseLmdbWriter().write(read_back(last), again)
    assert_same(read_back(again), read_back(middle))


def test_ase_reads_our_extxyz(tmp_path, samples):
    ExtxyzWriter().write(samples, tmp_path / "a.extxyz")
    frames = read(tmp_path / "a.extxyz", ":")
    assert len(frames) == 4
    for sample, frame in zip(samples, frames):
        assert np.array_equal(frame.numbers, sample.atoms.numbers)
        assert np.array_equal(frame.positions, sample.atoms.positions)
        assert np.array_equal(frame.cell.array, sample.atoms.cell.array)
        assert np.array_equal(frame.pbc, sample.atoms.pbc)
        results = frame.calc.results
        for name in ("energy", "forces", "magmoms"):
            assert (name in results) == (name in sample.labels)
            assert np.array_equal(results.get(name), sample.labels.get(name)), name
        if "stress" in sample.labels:
            assert np.array_equal(frame.get_stress(voigt=False), sample.labels["stress"])
        if "tags" in sample.labels:
            assert np.array_equal(frame.get_tags(), sample.labels["tags"])
        held = np.concatenate([np.array([], int), *(constraint.index for constraint in frame.constraints)])
        assert np.array_equal(held, np.flatnonzero(sample.labels.get("fixed", [])))
    info = frames[0].info
    expected = {key: value for key, value in samples[0].info.items() if key not in (*PRIVATE_INFO, "energy")}
    for key, value in expected.items():
        assert np.array_equal(info[key], value), key
        assert isinstance(info[key], str) == isinstance(value, str), key
    assert info["info_energy"] == "high"
    assert "source" not in info
    assert (frames[3].info["charge"], frames[3].info["spin"]) == (1, 1)


def test_the_database_is_what_ase_writes(tmp_path, samples):
    """Every row becomes an ASE row whose atoms have the same numbers; the special keys are those of the format."""
    path = tmp_path / "a.aselmdb"
    AseLmdbWriter().write(samples, path, {"licence": "CC0"})
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as entries:
        found = {bytes(key): json.loads(zlib.decompress(value)) for key, value in entries.cursor()}
    assert set(found) == {b"1", b"2", b"3", b"4", b"nextid", b"metadata"}
    assert found[b"nextid"] == 5
    assert found[b"metadata"] == {"licence": "CC0"}
    for number, sample in enumerate(samples, 1):
        row = AtomsRow(
            {
                **found[b"%d" % number],
                **{
                    k: np.array(v)
                    for k, v in found[b"%d" % number].items()
                    if isinstance(v, list) and k != "constraints"
                },
            }
        )
        atoms = row.toatoms()
        assert np.array_equal(atoms.positions, sample.atoms.positions)
        assert np.array_equal(atoms.pbc, sample.atoms.pbc)
        assert np.array_equal(atoms.calc.results["forces"], sample.labels["forces"])
        if "stress" in sample.labels:
            assert np.array_equal(atoms.get_stress(voigt=False), sample.labels["stress"])
    assert found[b"4"]["data"] == {"charge": 1, "spin": 1}
    assert np.load(tmp_path / "metadata.npz")["natoms"].tolist() == [4, 2, 2, 5]


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    sample = molecule(0)
    sample.labels["hamiltonian"] = np.eye(3)
    for writer in WRITERS:
        path = tmp_path / f"a{writer.suffixes[0]}"
        with pytest.raises(DataError, match=rf"hamiltonian, which {writer.name} files cannot hold.*mlip data prepare"):
            writer().write([molecule(1), sample], path)
        with pytest.raises(DataError, match="no structures"):
            writer().write([], path)
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    with pytest.raises(ConfigError, match=r"must end with \.extxyz, \.xyz, \.aselmdb.*Did you mean '\.extxyz'"):
        writer_for("a.extxy")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path, writer):
    path = tmp_path / f"a{writer.suffixes[0]}"
    writer().write([molecule(0)], path)
    before = path.read_bytes()

    def failing():
        yield molecule(1)
        raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        writer().write(failing(), path)
    assert path.read_bytes() == before
    assert len(read_back(path)) == 1
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, "metadata.npz"}


def test_a_database_grows_beyond_its_first_map(tmp_path, monkeypatch):
    monkeypatch.setattr(aselmdb, "FIRST_SIZE", 2**16)
    monkeypatch.setattr(aselmdb, "BATCH_BYTES", 2**15)
    many = [crystal(seed, "Na20Cl20") for seed in range(120)]
    assert AseLmdbWriter().write(iter(many), tmp_path / "a.aselmdb") == 120
    assert_same(read_back(tmp_path / "a.aselmdb"), many)


def test_info_that_is_no_json_is_an_error(tmp_path):
    sample = crystal(0)
    sample.info["number"] = 10**30
    with pytest.raises(DataError, match="cannot be written as JSON"):
        AseLmdbWriter().write([sample], tmp_path / "a.aselmdb")
    assert not list(tmp_path.iterdir())


def test_metadata_of_other_databases_stay_right(tmp_path):
    AseLmdbWriter().write([molecule(0)], tmp_path / "a.aselmdb")
    with pytest.raises(MlipError, match="describes the databases beside it"):
        AseLmdbWriter().write([molecule(1)], tmp_path / "b.aselmdb")
    AseLmdbWriter().write([molecule(0), molecule(1, "O2", 0, 3)], tmp_path / "a.aselmdb")
    assert np.load(tmp_path / "metadata.npz")["natoms"].tolist() == [3, 2]
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine" / "metadata.npz", results=np.ones(3))
    with pytest.raises(MlipError, match="is of something else"):
        AseLmdbWriter().write([molecule(1)], tmp_path / "mine" / "b.aselmdb")
    assert np.load(tmp_path / "mine" / "metadata.npz").files == ["results"]


def test_isolated_atoms_stay_isolated(tmp_path):
    alone = Sample(Atoms("Na"), {"energy": np.array(-1.5)}, isolated=True)
    for name in ("a.extxyz", "a.aselmdb"):
        writer_for(name).write([alone, crystal(0)], tmp_path / name)
        data = AseDbDataset(tmp_path / name) if name.endswith("lmdb") else ExtxyzDataset(tmp_path / name)
        assert len(data) == 1
        assert data.isolated_atom_energies() == {"Na": -1.5}
