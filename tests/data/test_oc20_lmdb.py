"""OC20's LMDB files and databases: objects of old and new versions, S2EF and IS2RE, gaps and damage."""

import pickle
import random

import lmdb
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.oc20 import OC20Dataset
from tests.data.fixtures.oc20 import CELL, FRAMES, NUMBERS, REFERENCES, numbers_of

FLAT = [frame for frames in FRAMES for frame in frames]


def fields(system: int, frame: int, old: bool, referenced: bool = True) -> dict:
    """An S2EF entry as the preprocessing of OC20 makes it; single precision except for the energy."""
    positions, forces, energy = numbers_of(system, frame)
    return {
        "pos": torch.tensor(positions, dtype=torch.float32),
        "cell": torch.tensor(CELL, dtype=torch.float32)[None],
        "atomic_numbers": torch.tensor(NUMBERS, dtype=torch.float32 if old else torch.uint8),
        "natoms": 3,
        "tags": torch.tensor([0, 1, 2]),
        "fixed": torch.tensor([1.0, 0.0, 0.0]) if old else torch.tensor([1, 0, 0], dtype=torch.int32),
        "sid": system if old else torch.tensor([system]),
        "fid": frame,
        "y" if old else "energy": energy - REFERENCES[system] * referenced,
        "force" if old else "forces": torch.tensor(forces, dtype=torch.float32),
        "edge_index": torch.zeros(2, 4, dtype=torch.int64),
    }


def pickled(entry: dict, old: bool) -> bytes:
    if not old:
        return pickle.dumps(Data(**entry))
    # PyG 1 pickled the attributes of the object, those that it did not use as None.
    state = {"x": None, "edge_attr": None, "normal": None, "face": None, **entry}
    return b"\x80\x02ctorch_geometric.data.data\nData\n)\x81" + pickle.dumps(state)[2:-1] + b"b."


def write(path, values, length=None):
    entries = values if isinstance(values, dict) else dict(enumerate(values))
    if length is not None:
        entries = entries | {"length": pickle.dumps(length)}
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=2**26) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in entries.items():
            transaction.put(str(key).encode(), value)
    return path


@pytest.fixture(params=[True, False], ids=["old", "new"])
def folder(request, tmp_path):
    old = request.param
    write(tmp_path / "data.0000.lmdb", [pickled(fields(*frame, old), old) for frame in FLAT[:3]], length=3)
    write(tmp_path / "data.0001.lmdb", [pickled(fields(*frame, old), old) for frame in FLAT[3:]])
    (tmp_path / "data.0000.lmdb-lock").write_bytes(b"")
    (tmp_path / "data_log.0000.txt").write_text("11,0\n902,7\n11,3\n")
    return tmp_path


def test_structures_of_both_versions(folder):
    dataset = OC20Dataset(folder, "adsorption", stored_energy="adsorption")
    assert dataset.provides == ("energy", "forces", "tags", "fixed")
    assert len(dataset) == 5
    for sample, (system, frame) in zip(dataset, FLAT, strict=True):
        positions, forces, energy = numbers_of(system, frame)
        assert sample.labels["energy"] == energy - REFERENCES[system]
        assert np.array_equal(sample.labels["forces"], forces.astype(np.float32))
        assert np.array_equal(sample.atoms.positions, positions.astype(np.float32))
        assert sample.atoms.numbers.tolist() == NUMBERS
        assert sample.atoms.pbc.all()
        assert np.array_equal(sample.atoms.cell.array, CELL)
        assert sample.labels["tags"].tolist() == [0, 1, 2]
        assert sample.labels["fixed"].tolist() == [True, False, False]
        assert (sample.info["sid"], sample.info["fid"], sample.info["group"]) == (system, frame, f"random{system}")
    chunks = list(pickle.loads(pickle.dumps(dataset)).chunks())
    assert [(chunk.key, chunk.num_samples) for chunk in chunks] == [
        ("0:data.0000.lmdb:0-2", 3),
        ("1:data.0001.lmdb:0-1", 2),
    ]
    assert [sample.info for chunk in chunks for sample in dataset.read(chunk)] == [sample.info for sample in dataset]


def test_what_is_stored_must_be_stated(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.0000\.lmdb:0' does not say .*: set stored_energy.*The first is"):
        OC20Dataset(folder, "adsorption")
    with pytest.raises(DataError, match="no reference energy of its system"):
        OC20Dataset(folder, "total", stored_energy="adsorption")
    table = tmp_path / "system.txt"
    table.write_text("".join(f"random{key},{value}\n" for key, value in REFERENCES.items()))
    dataset = OC20Dataset(folder, "total", stored_energy="adsorption", reference_energies=table)
    expected = [numbers_of(*frame)[2] for frame in FLAT]
    assert np.allclose([sample.labels["energy"] for sample in dataset], expected, rtol=0, atol=1e-12)
    write(tmp_path / "total.lmdb", [pickled(fields(*frame, False, False), False) for frame in FLAT])
    dataset = OC20Dataset(tmp_path / "total.lmdb", "adsorption", stored_energy="total", reference_energies=table)
    assert np.allclose(
        [sample.labels["energy"] for sample in dataset],
        [numbers_of(*frame)[2] - REFERENCES[frame[0]] for frame in FLAT],
        rtol=0,
        atol=1e-12,
    )


def test_statements_that_cannot_be_right(tmp_path):
    for energy, stated, looks in ((0.1, "total", "adsorption"), (-300.0, "adsorption", "total")):
        entry = fields(11, 0, False) | {"energy": energy}
        write(tmp_path / f"{stated}.lmdb", [pickled(entry, False)])
        with pytest.raises(DataError, match=f"which is no {stated} energy. Set stored_energy: {looks}"):
            OC20Dataset(tmp_path / f"{stated}.lmdb", stated, stored_energy=stated)
        with pytest.raises(ConfigError, match=f"looks like '{looks}'"):
            OC20Dataset(tmp_path / f"{stated}.lmdb", stated)


@pytest.mark.parametrize("old", [True, False])
def test_is2re(tmp_path, old):
    first, last = fields(11, 0, old), fields(11, 40, old)
    key = "y" if old else "energy"
    entry = {name: value for name, value in first.items() if name not in ("fid", key)}
    entry |= {"y_init": float(first[key]), "y_relaxed": float(last[key]), "pos_relaxed": last["pos"]}
    path = write(tmp_path / "data.lmdb", [pickled(entry, old)])
    kept = {"stored_energy": "adsorption", "energy": "adsorption"}
    energies = {frame: numbers_of(11, frame)[2] - REFERENCES[11] for frame in (0, 40)}
    positions = {frame: numbers_of(11, frame)[0].astype(np.float32) for frame in (0, 40)}
    for task, at, of in (("is2re", 0, 40), ("initial", 0, 0), ("relaxed", 40, 40)):
        sample = OC20Dataset(path, task=task, **kept)[0]
        assert sample.labels["energy"] == energies[of]
        assert np.array_equal(sample.atoms.positions, positions[at])
        assert ("relaxed_positions" in sample.labels) == (task == "is2re")
        assert "forces" not in sample.labels, "the file does not say of which structure they are"
    sample = OC20Dataset(path, task="is2re", **kept)[0]
    assert np.array_equal(sample.labels["relaxed_positions"], positions[40])
    with pytest.raises(DataError, match=r"is IS2RE .*, but task is 's2ef'. Set task to 'is2re'"):
        OC20Dataset(path, **kept)
    found = OC20Dataset.recognise(path)
    assert found.options == {"task": "relaxed"}
    assert len(OC20Dataset(path, **found.options, **found.preview)) == 1
    hidden = {name: value for name, value in entry.items() if name not in ("y_init", "y_relaxed", "pos_relaxed")}
    test = OC20Dataset(write(tmp_path / "test.lmdb", [pickled(hidden, old)]), task="is2re", **kept)
    assert "energy" not in test[0].labels


def test_s2ef_is_not_is2re(folder):
    for task in ("is2re", "initial", "relaxed"):
        with pytest.raises(DataError, match=f"is S2EF .* but task is '{task}'. Set task: s2ef"):
            OC20Dataset(folder, "adsorption", task, "adsorption")
    guess = OC20Dataset.recognise(folder).preview
    assert guess["energy"] == guess["stored_energy"]


def test_gaps_lengths_and_other_entries(tmp_path):
    values = [pickled(fields(*frame, False), False) for frame in FLAT]
    numbered = {number: value for number, value in enumerate(values) if number != 3}
    for name, entries, length, message in (
        ("gap", numbered, None, "has no entry '3', though later ones"),
        ("gap_and_length", numbered, 5, "has no entry '3', though later ones"),
        ("short", values[:4], 5, "has 4 entries, but says that it has 5"),
        ("empty", [], None, "has no entries"),
        ("length", [], 0, "has no entries"),
        ("names", {"a": b"", "b": b""}, None, "not one of OC20"),
        ("malicious", values[:1], None, None),
    ):
        path = write(tmp_path / f"{name}.lmdb", entries, length)
        if message:
            with pytest.raises(DataError, match=message):
                OC20Dataset(path, "adsorption", stored_energy="adsorption")
    path = write(tmp_path / "more.lmdb", dict(enumerate(values)) | {"metadata": b"x"}, 5)
    assert len(OC20Dataset(path, "adsorption", stored_energy="adsorption")) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"natoms": 4}, "natoms is 4, but there are 3 positions"),
        ({"pos": torch.zeros(3, 2)}, r"pos must have the shape \(3, 3\)"),
        ({"pos": torch.full((3, 3), torch.nan)}, "pos must be finite"),
        ({"cell": torch.zeros(2, 3)}, r"cell must have the shape \(3, 3\)"),
        ({"atomic_numbers": torch.tensor([1.5, 1, 1])}, "atomic_numbers must be whole"),
        ({"fixed": torch.tensor([2, 0, 0])}, "fixed must be 0 or 1"),
        ({"energy": torch.tensor([1.0, 2.0])}, "the energy must be one number"),
        ({"energy": float("nan")}, "the energy must be finite"),
        ({"y": 3.0}, "has both 'energy' and 'y', with different values"),
        ({"forces": torch.zeros(2, 3)}, r"forces must have the shape \(3, 3\)"),
        ({"sid": "slab"}, "called random and a number"),
        ({"tags": [{}, {}, {}]}, "'tags' is not an array of numbers"),
        ({"cell": torch.zeros(3, 3, dtype=torch.complex64)}, "'cell' is not an array"),
        ({"energy": None}, "has no energy, the first structure has"),
        ({"y_relaxed": 1.0}, "is IS2RE"),
    ],
)
def test_damaged_entries_are_errors_and_the_others_are_read(tmp_path, change, message):
    entry = {name: value for name, value in (fields(11, 0, False) | change).items() if value is not None}
    path = write(tmp_path / "x.lmdb", [pickled(fields(11, 3, False), False), pickled(entry, False)])
    dataset = OC20Dataset(path, "adsorption", stored_energy="adsorption")
    (chunk,) = dataset.chunks()
    good, bad = dataset.read(chunk)
    assert good.info["fid"] == 3
    assert isinstance(bad, DataError)
    with pytest.raises(DataError, match=message) as caught:
        dataset[1]
    assert f"{path}:1" in str(caught.value)


def test_a_malicious_entry_does_not_run(tmp_path):
    marker = tmp_path / "marker"
    payload = f"cposix\nsystem\n(S'touch {marker}'\ntR.".replace("S'", "V").replace("'\n", "\n").encode()
    path = write(tmp_path / "x.lmdb", [payload])
    with pytest.raises(DataError, match=r"x\.lmdb:0 is a pickle that names 'posix\.system'"):
        OC20Dataset(path, "adsorption", stored_energy="adsorption")
    assert OC20Dataset.recognise(path) is None
    assert not marker.exists()


def test_damage_to_files_never_crashes(folder):
    file = folder / "data.0000.lmdb"
    content = file.read_bytes()
    numbers = random.Random(1)
    outcomes = set()
    for _ in range(60):
        changed = bytearray(content)
        if numbers.random() < 0.5:
            del changed[numbers.randrange(len(content)) :]
        else:
            for _ in range(30):
                changed[numbers.randrange(len(content))] = numbers.randrange(256)
        file.write_bytes(changed)
        try:
            outcomes.add(len(list(OC20Dataset(folder, "adsorption", stored_energy="adsorption"))))
        except DataError:
            outcomes.add("error")
    assert "error" in outcomes
    assert outcomes <= {"error", 5}
