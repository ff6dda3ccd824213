"""rMD17 and MD17: npz as published, extxyz as others made it, and the official splits."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import units

from mlip.core.errors import ConfigError, DataError
from mlip.core.units import KCAL_PER_MOL
from mlip.data.datasets.rmd17 import RMD17Dataset
from mlip.data.splits import split_indices
from tests.components import repository_root
from tests.data.fixtures.rmd17 import write

BOX = 'Lattice="50.0 0.0 0.0 0.0 50.0 0.0 0.0 0.0 50.0" Properties=species:S:1:pos:R:3:forces:R:3'


def save(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "nuclear_charges": np.array([1, 8], dtype=np.uint8),
        "coords": rng.normal(size=(3, 2, 3)),
        "energies": rng.normal(size=3),
        "forces": rng.normal(size=(3, 2, 3)),
    }
    arrays |= changes
    np.savez_compressed(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.fixture
def archive(tmp_path):
    case = write(tmp_path, frames=12)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "index_train_01.csv").write_text("\n".join(map(str, [5, 0, 9, 3])) + "\n")
    (tmp_path / "splits" / "index_test_01.csv").write_text("1\n11\n")
    return case


def test_the_official_split(archive):
    data = RMD17Dataset(**archive.options)
    assert data.official_split("01") == {"train": [5, 0, 9, 3], "valid": [], "test": [1, 11]}
    assert data.official_split(1)["train"] == [5, 0, 9, 3], "YAML reads 01 as a number"
    held = RMD17Dataset(**archive.options, official_valid=1).official_split("01")
    assert (held["train"], held["valid"]) == ([5, 0, 9], [3])
    with pytest.raises(ConfigError, match=r"no official split '07'"):
        data.official_split("07")
    with pytest.raises(DataError, match=r"index_train_02.csv.* not there"):
        data.official_split("02")
    with pytest.raises(ConfigError, match="below the 4 training frames"):
        RMD17Dataset(**archive.options, official_valid=4).official_split("01")


@pytest.mark.parametrize("content", ["1\n12\n", "1\n1\n", "x\n", "", "-1\n2\n"])
def test_index_files_that_do_not_fit_are_refused(archive, tmp_path, content):
    (tmp_path / "splits" / "index_test_01.csv").write_text(content)
    with pytest.raises(DataError, match=r"index_test_01\.csv"):
        RMD17Dataset(**archive.options).official_split("01")


def test_frames_that_train_and_test_are_refused(archive, tmp_path):
    (tmp_path / "splits" / "index_test_01.csv").write_text("9\n")
    with pytest.raises(DataError, match="train and test"):
        RMD17Dataset(**archive.options).official_split("01")


def test_the_original_md17(tmp_path):
    energies = np.array([[-1.0], [-2.0], [-3.0]])
    rng = np.random.default_rng(1)
    positions, forces = rng.normal(size=(2, 3, 2, 3)).astype(np.float32)
    path = tmp_path / "md17_x.npz"
    np.savez(path, z=np.array([8, 1]), R=positions, E=energies, F=forces, name=np.array("x"), theory=np.array("pbe"))
    data = RMD17Dataset(path)
    assert float(data[2].labels["energy"]) == -3.0 * units.kcal / units.mol
    assert np.array_equal(data[1].atoms.positions, positions[1].astype(float))
    assert np.array_equal(data[1].labels["forces"], forces[1].astype(float) * KCAL_PER_MOL)
    assert "Chmiela" in data.citation
    assert data.num_atoms().tolist() == [2, 2, 2]
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"forces": None}, r"no array 'forces'"),
        ({"forces": None, "force": np.zeros((3, 2, 3))}, r"Did you mean 'force'\?"),
        ({"energies": np.zeros(4)}, r"F x n x 3 positions and forces, got .*energies \(4,\)"),
        ({"coords": np.zeros((3, 2))}, r"coords \(3, 2\)"),
        ({"forces": np.zeros((3, 2, 3), dtype=int)}, "int64"),
        ({"nuclear_charges": np.array([0, 300])}, "atomic numbers"),
        ({"energies": np.array([1, 2, None], dtype=object)}, "Python objects, which are not read"),
        ({"energies": np.array([1.0, np.nan, 2.0])}, r"x\.npz:1: the energy are not finite"),
        ({"energies": np.zeros(0), "coords": np.zeros((0, 2, 3)), "forces": np.zeros((0, 2, 3))}, "its frames"),
    ],
)
def test_arrays_that_cannot_be_right_are_refused(tmp_path, changes, words):
    with pytest.raises(DataError, match=words) as caught:
        list(RMD17Dataset(save(tmp_path / "x.npz", **changes)))
    assert "x.npz" in str(caught.value)


def test_the_default_split_fits_the_thousand_frames_of_the_xyz_files(archive):
    config = yaml.safe_load((repository_root() / "configs" / "data" / "rmd17.yaml").read_text())
    wanted = {part: config["split"][part] for part in ("train", "valid", "test")}
    assert [len(part) for part in split_indices(1000, **wanted).values()] == [950, 50, 0]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the list of open files of Linux")
def test_no_file_stays_open(archive):
    frames = RMD17Dataset(**archive.options)
    opened = [Path(os.readlink(link)).name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert len(frames[0].atoms)
    opened += [Path(os.readlink(link)).name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [name for name in opened if name.endswith(".npz")]


def test_headers_that_claim_too_much_are_refused(tmp_path):
    path = save(tmp_path / "x.npz")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for old, new in ((b"(3, 2, 3)", b"(9999999999, 2, 3)"), (b"'<f8'", b"'|O'"), (b"(3, 2, 3)", b"((((3, 2")):
        broken = members | {"coords.npy": members["coords.npy"].replace(old.ljust(len(new)), new, 1)}
        if broken == members:
            broken["coords.npy"] = members["coords.npy"].replace(
                old + b", }" + b" " * (len(new) - len(old)), new + b", }"
            )
        assert broken["coords.npy"] != members["coords.npy"]
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in broken.items():
                archive.writestr(name, content)
        with pytest.raises(DataError, match=r"'coords'"):
            RMD17Dataset(path)


def test_molecules_are_chosen_by_name(tmp_path):
    for molecule in ("ethanol", "uracil"):
        save(tmp_path / f"rmd17_{molecule}.npz")
    with pytest.raises(DataError, match=r"several molecules.*There: ethanol, uracil"):
        RMD17Dataset(tmp_path)
    with pytest.raises(DataError, match=r"no molecule 'etanol'\. Did you mean 'ethanol'\?"):
        RMD17Dataset(tmp_path, "etanol")
    assert RMD17Dataset(tmp_path, "uracil")[0].source.endswith("rmd17_uracil.npz:0")
    assert RMD17Dataset.recognise(tmp_path).certainty == 3
    assert "several molecules" in RMD17Dataset.recognise(tmp_path).note
    assert RMD17Dataset.recognise(tmp_path).preview == {"molecule": "ethanol"}
    (tmp_path / "aspirin").mkdir()
    for part in ("train", "test"):
        (tmp_path / "aspirin" / f"{part}_02.xyz").write_text(f"1\n{BOX} Energy=-1\nO\t0\t0\t0\t0\t0\t1\n")
    with pytest.raises(DataError, match=r"There: aspirin, ethanol, uracil"):
        RMD17Dataset(tmp_path)
    assert RMD17Dataset(tmp_path, "aspirin")[1].source.endswith("test_02.xyz:0")
    with pytest.raises(DataError, match=r"not there: set data.path"):
        RMD17Dataset(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="official_valid"):
        RMD17Dataset(tmp_path, "uracil", official_valid=-1)


def test_the_box_of_the_extxyz_form_is_dropped(tmp_path):
    folder = tmp_path / "ethanol"
    folder.mkdir()
    for name, energies in (("train_03", (-1.5, -2.5)), ("test_03", (-3.5,))):
        frames = [
            f"2\n{BOX} Energy={energy}\nO\t0\t0\t{-energy}\t0\t0\t1\nH\t0\t0\t0\t0\t0\t-1\n" for energy in energies
        ]
        (folder / f"{name}.xyz").write_text("".join(frames))
    data = RMD17Dataset(tmp_path)
    assert [float(sample.labels["energy"]) for sample in data] == [-1.5, -2.5, -3.5]
    assert not data[0].atoms.pbc.any()
    assert not data[0].atoms.cell.any()
    assert data.official_split("03") == {"train": [0, 1], "valid": [], "test": [2]}
    with pytest.raises(DataError, match=r"split 01 needs a folder with train_01.xyz"):
        data.official_split("01")
    chunked = [sample for chunk in data.chunks() for sample in data.read(chunk)]
    assert not any(sample.atoms.pbc.any() for sample in chunked)
    assert RMD17Dataset.recognise(tmp_path).certainty == 2
    assert RMD17Dataset.recognise(folder / "train_03.xyz").certainty == 2


def test_other_files_are_not_recognised(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=1\nH 0 0 0\n")
    (tmp_path / "a.npz").write_bytes(b"PK")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    (tmp_path / "c.json").write_text(json.dumps({}))
    for path in (*tmp_path.iterdir(), tmp_path):
        assert RMD17Dataset.recognise(path) is None


@pytest.mark.reference
def test_npz_and_extxyz_hold_the_same_thousand_frames(reference_data):
    folder = reference_data / "rmd17"
    if not folder.is_dir():
        pytest.skip(f"no rMD17 in {reference_data}")
    npz, xyz = RMD17Dataset(folder / "rmd17_ethanol_sample.npz"), RMD17Dataset(folder / "ethanol")
    assert (len(npz), len(xyz)) == (1000, 2000)
    # The factor that the authors of the extxyz files used, 2.6e-7 above ours.
    theirs = 0.0433641153087705 / KCAL_PER_MOL
    for one, other in zip(npz, xyz):
        assert np.array_equal(one.atoms.positions, other.atoms.positions)
        assert float(one.labels["energy"]) * theirs == pytest.approx(float(other.labels["energy"]), rel=1e-14)
        np.testing.assert_allclose(one.labels["forces"] * theirs, other.labels["forces"], rtol=1e-13, atol=1e-15)
    energies = [float(sample.labels["energy"]) for sample in xyz]
    assert (min(energies), max(energies)) == pytest.approx((-4210.04, -4208.76), abs=0.01)
    rms = np.sqrt(np.mean(np.concatenate([sample.labels["forces"].ravel() for sample in npz]) ** 2))
    assert rms == pytest.approx(1.19, abs=0.01)
