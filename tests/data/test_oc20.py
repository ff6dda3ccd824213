"""OC20's text files: pairs and trajectories, references, outliers, and what is refused."""

import json
import lzma
import pickle

import numpy as np
import pytest

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.oc20 import OC20Dataset
from tests.data.fixtures.oc20 import FRAMES, REFERENCES, numbers_of, text_of, write

FLAT = [frame for frames in FRAMES for frame in frames]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pairs"
    path.mkdir()
    write(path)
    return path


def unpacked(folder):
    """The same files as ``uncompress`` of OC20's scripts leaves them."""
    for file in list(folder.glob("*.xz")):
        file.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
        file.unlink()
    return folder


def energies(dataset) -> list[float]:
    return [float(sample.labels["energy"]) for sample in dataset]


TOTAL = [numbers_of(*frame)[2] for frame in FLAT]
ADSORPTION = [numbers_of(*frame)[2] - REFERENCES[frame[0]] for frame in FLAT]


def test_total_and_adsorption_energies(folder):
    for path in (folder, unpacked(folder)):
        assert energies(OC20Dataset(path, "total")) == TOTAL
        assert energies(OC20Dataset(path, "adsorption")) == ADSORPTION


def test_forces_of_fixed_atoms_are_those_of_the_file(folder):
    sample = OC20Dataset(folder, "total")[0]
    assert sample.labels["fixed"].tolist() == [True, False, False]
    assert np.array_equal(sample.labels["forces"], numbers_of(*FLAT[0])[1])
    assert np.abs(sample.labels["forces"][0]).min() > 0
    assert not sample.atoms.constraints


def test_trajectories_of_systems(tmp_path):
    for system in REFERENCES:
        text = "".join(text_of(system, frame) for frame in range(3))
        (tmp_path / f"random{system}.extxyz.xz").write_bytes(lzma.compress(text.encode()))
    with pytest.raises(DataError, match=r"random11\.extxyz\.xz:0: the file has no reference energy"):
        OC20Dataset(tmp_path, "adsorption")
    assert len(OC20Dataset(tmp_path, "total")) == 6
    (tmp_path / "system.txt").write_text("random11,-7.25\nrandom902,-9.5\n")
    dataset = OC20Dataset(tmp_path, "adsorption")
    expected = [numbers_of(system, frame)[2] - REFERENCES[system] for system in (11, 902) for frame in range(3)]
    assert energies(dataset) == expected
    assert [(sample.info["sid"], sample.info["fid"]) for sample in dataset] == [
        (s, f) for s in (11, 902) for f in range(3)
    ]
    assert len(list(dataset.chunks())) == 2
    (tmp_path / "system.txt").write_text("random11,-7.25\n")
    with pytest.raises(DataError, match=r"system\.txt' has no line of random902"):
        list(OC20Dataset(tmp_path, "adsorption"))


def test_test_data_without_energies(tmp_path):
    """As published: no third column, no energy, no forces."""
    count, header, *rows = text_of(11, 0).splitlines()
    header = header.replace(":forces:R:3", "").split(" energy=")[0] + ' pbc="T T T"'
    text = "\n".join([count, header, *(" ".join(row.split()[:6]) for row in rows)]) + "\n"
    (tmp_path / "0.extxyz").write_text(text)
    (tmp_path / "0.txt").write_text("random11,frame0\n")
    for energy in ("total", "adsorption"):
        dataset = OC20Dataset(tmp_path, energy)
        assert dataset.provides == ("tags", "fixed")
        assert dataset[0].info["group"] == "random11"
    (tmp_path / "0.extxyz").write_text(text_of(11, 0))
    assert energies(OC20Dataset(tmp_path, "total")) == [TOTAL[0]]
    with pytest.raises(DataError, match="no reference energy of its system"):
        OC20Dataset(tmp_path, "adsorption")


@pytest.mark.parametrize("kind", ["json", "txt", "pkl"])
def test_tables_of_references(folder, tmp_path, kind):
    table = {f"random{system}": energy - 1 for system, energy in REFERENCES.items()}
    path = tmp_path / f"table.{kind}"
    path.write_bytes(
        {
            "json": json.dumps(table).encode(),
            "txt": "".join(f"{key},{value}\n" for key, value in table.items()).encode(),
            "pkl": pickle.dumps({key: np.float64(value) for key, value in table.items()}),
        }[kind]
    )
    found = energies(OC20Dataset(folder, "adsorption", reference_energies=path))
    assert np.allclose(found, np.array(ADSORPTION) + 1, rtol=0, atol=1e-12)
    del table["random902"]
    path = path.with_name("short.json")
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match="reference_energies has no energy of random902"):
        list(OC20Dataset(folder, "adsorption", reference_energies=path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[1]", "must hold a dictionary"),
        ("a.json", b'{"slab": 1}', "called random and a number, got 'slab'"),
        ("a.json", b'{"random1": null}', "must be a number, got 'None'"),
        ("a.json", b'{"random1": 1e999}', "not finite"),
        ("a.json", b"{}", "has no reference energies"),
        ("a.txt", b"random1,2,3\n", "line 1: random<number>,<energy> was expected"),
        ("a.txt", b"random1,2.5\nrandom1,2.6\n", "is there twice"),
        ("a.txt", b"random1,2.", "may be truncated"),
        ("a.pkl", b"cos\nsystem\n(S'x'\ntR.", "names 'os.system'"),
    ],
)
def test_bad_tables_of_references(folder, file, name, content, message):
    with pytest.raises(DataError, match=message):
        OC20Dataset(folder, "adsorption", reference_energies=file(content, name))


def test_linear_references(folder, tmp_path):
    coefficients = np.full(100, 1.7e12)
    coefficients[[29, 8]] = -2.5, -4.0
    np.savez(tmp_path / "linref.npz", coeff=coefficients)
    found = energies(OC20Dataset(folder, "total", linear_references=tmp_path / "linref.npz"))
    assert np.allclose(found, np.array(TOTAL) + 9.0, rtol=0, atol=1e-12)
    with pytest.raises(ConfigError, match="belong to total energies"):
        OC20Dataset(folder, "adsorption", linear_references=tmp_path / "linref.npz")
    coefficients[8] = np.nan
    np.savez(tmp_path / "linref.npz", coeff=coefficients)
    with pytest.raises(DataError, match=r"no energy of O \(it says nan eV"):
        OC20Dataset(folder, "total", linear_references=tmp_path / "linref.npz")
    np.savez(tmp_path / "linref.npz", coeff=coefficients[:20])
    with pytest.raises(DataError, match="ends before Cu"):
        OC20Dataset(folder, "total", linear_references=tmp_path / "linref.npz")
    np.savez(tmp_path / "linref.npz", x=coefficients)
    with pytest.raises(DataError, match="no array 'coeff'"):
        OC20Dataset(folder, "total", linear_references=tmp_path / "linref.npz")
    (tmp_path / "linref.npz").write_bytes(b"PK\x03\x04junk")
    with pytest.raises(DataError, match="truncated or not a zip archive"):
        OC20Dataset(folder, "total", linear_references=tmp_path / "linref.npz")


def test_outliers(folder):
    file = unpacked(folder) / "2.txt"
    lines = file.read_text().replace("random902,frame7,-9.5", "random902,frame7,-99.5")
    file.write_text(lines)
    for energy in ("total", "adsorption"):
        assert len(OC20Dataset(folder, energy)) == 5
        dropped = OC20Dataset(folder, energy, outliers="drop")
        assert [sample.info["fid"] for sample in dropped] == [0, 3, 0, 40]
        assert all(chunk.num_samples is None for chunk in dropped.chunks())
    refused = OC20Dataset(folder, "total", outliers="refuse")
    items = [item for chunk in refused.chunks() for item in refused.read(chunk)]
    assert [str(item) for item in items if isinstance(item, DataError)] == [
        f"{folder / '2.extxyz'}:1 is an outlier: its adsorption energy is {TOTAL[1] + 99.5:.4g} eV. "
        "Set outliers to 'drop' or 'keep'."
    ]
    file.write_text(lines.replace("-99.5", "-9.5"))
    frames = (folder / "2.extxyz").read_text()
    number = f"{numbers_of(11, 0)[1][0, 0]:16.8f}"
    (folder / "2.extxyz").write_text(frames.replace(number, f"{50.5:16.8f}"))
    assert [sample.info["fid"] for sample in OC20Dataset(folder, "total", outliers="drop")] == [7, 3, 0, 40]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"energy": "adsorbtion"}, ConfigError, "energy must be one of .*Did you mean 'adsorption'"),
        ({"task": "is2r"}, ConfigError, "task must be one of .*Did you mean 'is2re'"),
        ({"outliers": "ignore"}, ConfigError, "outliers must be one of"),
        ({"stored_energy": "adsorption"}, ConfigError, "holds total energies, stored_energy is 'adsorption'"),
        ({"task": "is2re"}, DataError, "is S2EF .*, but task is 'is2re'. Set task: s2ef"),
        ({"task": "relaxed"}, DataError, "Set task: s2ef"),
    ],
)
def test_options_that_cannot_be(folder, options, error, message):
    with pytest.raises(error, match=message):
        OC20Dataset(folder, **({"energy": "total"} | options))


def test_sidecars_that_do_not_belong(folder):
    unpacked(folder)
    table = folder / "2.txt"
    good = table.read_text()
    for text, message in (
        (good.replace("random902,frame7,-9.5\n", ""), r"2\.txt' has 2 lines, but .*2\.extxyz' has 3 frames"),
        (good + "random11,frame9,-7.25\n", "has 4 lines, but .* has 3 frames"),
        (good.replace("frame7", "7"), r"line 2: random<number>,frame<number>,<energy> was expected"),
        (good.replace("-9.5", "a"), "must be a number, got 'a'"),
        (good.replace("frame3,-7.25", "frame3,-7.26"), r"random11 has the reference energies -7\.25 and -7\.26"),
        (good[:-2], "may be truncated"),
        ("", "has 0 lines"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            list(OC20Dataset(folder, "adsorption"))
    table.unlink()
    with pytest.raises(DataError, match=r"2\.extxyz' lacks its table '2\.txt'"):
        OC20Dataset(folder, "total")


def test_ids_inside_of_frames_must_agree(folder):
    unpacked(folder)
    frames = (folder / "2.extxyz").read_text()
    (folder / "2.extxyz").write_text(frames.replace(" free_energy", " sid=random11 fid=0 free_energy", 1))
    assert len(OC20Dataset(folder, "total")) == 5
    (folder / "2.extxyz").write_text(frames.replace(" free_energy", " fid=4 free_energy", 1))
    with pytest.raises(DataError, match="its fid is 4, but the table says frame 0"):
        list(OC20Dataset(folder, "total"))


def test_paths_that_are_something_else(folder, tmp_path):
    with pytest.raises(DataError, match=r"There is no '.*pair'\. Did you mean 'pairs'\?"):
        OC20Dataset(tmp_path / "pair", "total")
    with pytest.raises(DataError, match=r"Did you mean '.*pairs'\?"):
        OC20Dataset(tmp_path, "total")
    (folder / "x.db").write_bytes(b"")
    with pytest.raises(DataError, match="files of several layouts"):
        OC20Dataset(folder, "total")
    (folder / "x.db").unlink()
    with pytest.raises(DataError, match=r"2\.txt\.xz' is not a file of OC20 by its name"):
        OC20Dataset(folder / "2.txt.xz", "total")
    assert len(OC20Dataset(folder / "2.extxyz.xz", "total")) == 3
    with pytest.raises(DataError, match=r"set data\.path"):
        OC20Dataset("", "total")


def test_it_is_recognised(folder, tmp_path):
    found = OC20Dataset.recognise(folder)
    assert found.certainty == 3
    assert found.options == {}, "the energy is the user's choice"
    assert len(OC20Dataset(folder, **found.preview)) == 5
    for other in (tmp_path, tmp_path / "nothing", folder / "2.txt.xz"):
        assert OC20Dataset.recognise(other) is None
    (folder / "2.txt.xz").write_bytes(b"")
    assert OC20Dataset.recognise(folder) is None
