"""Statistics of training samples, their sources and their cache."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

import mlip.data.statistics as statistics_module
from mlip.core.errors import ConfigError, DataError
from mlip.data.content_hash import content_hash
from mlip.data.sample import Sample
from mlip.data.statistics import cached_statistics, compute_statistics

E0 = {"H": -13.6, "C": -1029.0, "O": -2042.0}


def samples(names=("CH4", "H2O", "CH3OH", "C2H6"), seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for name in names:
        atoms = molecule(name)
        energy = sum(E0[symbol] for symbol in atoms.symbols)
        made.append(Sample(atoms, {"energy": np.array(energy), "forces": rng.normal(size=(len(atoms), 3))}))
    return made


def test_against_ase_and_numpy():
    data = [*samples(), Sample(bulk("C"), {"energy": np.array(-2060.0), "forces": np.full((2, 3), 2.0)})]
    result = compute_statistics(data, 3.0, E0)
    distances = [neighbor_list("d", sample.atoms, 3.0) for sample in data]
    num_atoms = sum(len(sample.atoms) for sample in data)
    assert result["elements"] == ["H", "C", "O"]
    assert result["num_atoms"] == num_atoms
    assert result["num_edges"] == sum(map(len, distances))
    assert result["num_neighbors"] == pytest.approx(sum(map(len, distances)) / num_atoms)
    assert result["min_distance"] == pytest.approx(min(d.min() for d in distances))
    assert result["max_distance"] == pytest.approx(max(d.max() for d in distances))
    forces = np.concatenate([sample.labels["forces"] for sample in data])
    assert result["force_rms"] == pytest.approx(np.sqrt((forces**2).mean()))
    assert result["atomic_energies"] == E0
    assert result["atomic_energies_source"] == "isolated atoms"
    assert result["energy_per_atom_std"] == pytest.approx(np.std([0, 0, 0, 0, -1.0]))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_least_squares_finds_the_energies_that_made_the_data():
    result = compute_statistics(samples(), 3.0)
    assert result["atomic_energies_source"] == "least squares"
    for symbol, energy in E0.items():
        assert result["atomic_energies"][symbol] == pytest.approx(energy)
    assert result["energy_per_atom_std"] < 1e-9


def test_one_composition_gives_the_minimum_norm_and_says_so():
    data = samples(["CH3OH"] * 3)
    result = compute_statistics(data, 3.0)
    assert "minimum norm" in result["atomic_energies_source"]
    assert "1 of 3 elements" in result["atomic_energies_source"]
    total = sum(result["atomic_energies"][symbol] for symbol in data[0].atoms.symbols)
    assert total == pytest.approx(float(data[0].labels["energy"]))


def test_isolated_atoms_that_are_incomplete_or_foreign_are_refused():
    with pytest.raises(DataError, match="missing for O, and needed for H, C, O"):
        compute_statistics(samples(), 3.0, {"H": -13.6, "C": -1029.0})
    with pytest.raises(DataError, match="do not belong to the energies"):
        compute_statistics(samples(), 3.0, {"H": -0.5, "C": -37.8, "O": -75.0})
    with pytest.raises(DataError, match="missing for H, C, O"):
        compute_statistics(samples(), 3.0, atomic_energy_source="isolated")
    with pytest.raises(ConfigError, match="auto, isolated or least_squares"):
        compute_statistics(samples(), 3.0, atomic_energy_source="guess")
    with pytest.raises(DataError, match="at least one"):
        compute_statistics([], 3.0)


def test_least_squares_can_be_asked_for_in_spite_of_isolated_atoms():
    result = compute_statistics(samples(), 3.0, {"H": 0.0}, "least_squares")
    assert result["atomic_energies_source"] == "least squares"


def test_structures_without_edges_and_labels():
    result = compute_statistics([Sample(Atoms("H"), {})], 3.0)
    assert result["num_neighbors"] == 0
    assert result["min_distance"] is None
    assert result["force_rms"] is None
    assert result["energy_per_atom_std"] is None
    assert result["atomic_energies_source"].startswith("zero")


def test_content_hash_sees_every_change():
    def changed(change):
        data = samples()
        change(data)
        return content_hash(data)

    def move(data):
        data[1].atoms.positions[0, 0] += 1e-12

    def relabel(data):
        data[0].labels["energy"] = data[0].labels["energy"] + 1e-9

    def drop_label(data):
        del data[0].labels["forces"]

    def transmute(data):
        data[0].atoms.numbers[0] = 14

    changes = [move, relabel, drop_label, transmute, lambda data: data.pop(), lambda data: data.reverse()]
    hashes = {changed(lambda data: None), *map(changed, changes)}
    assert len(hashes) == len(changes) + 1
    assert content_hash(samples()) == changed(lambda data: data[0].info.update(source="elsewhere"))


@pytest.fixture
def counted(monkeypatch):
    """Count the calls of the real computation."""
    calls = []
    real = compute_statistics
    monkeypatch.setattr(statistics_module, "compute_statistics", lambda *args: calls.append(1) or real(*args))
    return calls


def test_cache_is_used_for_the_same_data_only(tmp_path, counted):
    first = cached_statistics(samples(), 3.0, folder=tmp_path)
    assert cached_statistics(samples(), 3.0, folder=tmp_path) == first
    assert len(counted) == 1
    cached_statistics(samples(), 3.5, folder=tmp_path)
    cached_statistics(samples(seed=1), 3.0, folder=tmp_path)
    cached_statistics(samples(), 3.0, E0, folder=tmp_path)
    assert len(counted) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("13.6", "13.7"),
        lambda text: "[1, 2]",
        lambda text: '{"key": 1, "checksum": 2, "statistics": 3}',
    ],
    ids=["empty", "truncated", "altered", "list", "types"],
)
def test_damaged_cache_is_computed_anew(tmp_path, counted, damage):
    first = cached_statistics(samples(), 3.0, E0, folder=tmp_path)
    (file,) = tmp_path.glob("*.json")
    damaged = damage(file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    assert cached_statistics(samples(), 3.0, E0, folder=tmp_path) == first
    assert len(counted) == 2
    assert cached_statistics(samples(), 3.0, E0, folder=tmp_path) == first
    assert len(counted) == 2, "the damaged file was replaced"


def test_cache_folder_that_cannot_be_written_to_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "file" / "below"))
    assert cached_statistics(samples(), 3.0)["elements"] == ["H", "C", "O"]


def test_progress_is_reported():
    seen = []
    compute_statistics(samples(), 3.0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
