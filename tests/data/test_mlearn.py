"""mlearn and MoNbTaW; the order and sign of their stresses against strain energies and symmetry."""

import itertools
import json
import re
from collections import defaultdict
from functools import cache

import numpy as np
import pytest
import spglib
from ase.neighborlist import neighbor_list
from scipy.interpolate import CubicSpline

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.mlearn import SWAPPED, VASP, MlearnDataset
from tests.data.fixtures import mlearn as fixture

KBAR = 1602.1766208


@pytest.fixture
def folder(tmp_path):
    fixture.write(tmp_path)
    return tmp_path


def write(path, entries):
    path.write_text(json.dumps(entries))
    return path


def test_official_split_and_options(folder):
    dataset = MlearnDataset(folder)
    assert dataset.official_split("tag") == {"train": [0, 2, 3, 4], "valid": [], "test": [1, 5]}
    assert len(MlearnDataset([folder / "b.json"])) == 2
    everything = MlearnDataset(folder, shear_order=SWAPPED)
    np.testing.assert_allclose(everything[0].labels["stress"] * -KBAR, fixture.SWAPPED, rtol=1e-8)
    assert MlearnDataset.recognise(folder).certainty == 3
    with pytest.raises(ConfigError, match="no official split 'tags'"):
        dataset.official_split("tags")
    with pytest.raises(ConfigError, match="shear_order must be"):
        MlearnDataset(folder, shear_order="yz xz xy")


def test_the_order_of_other_elements_is_the_users(tmp_path):
    path = write(tmp_path / "cu.json", [fixture.mlearn("Cu", "Elastic", "train", -7.0)])
    with pytest.raises(DataError, match="nobody has measured the order of the shear stresses of mlearn's 'Cu'"):
        len(MlearnDataset(path))
    assert MlearnDataset(path, shear_order=VASP).provides == ("energy", "forces", "stress")
    entry = fixture.mlearn("Cu", "Elastic", "train", -7.0)
    del entry["outputs"]["virial_stress"]
    assert MlearnDataset(write(path, [entry])).provides == ("energy", "forces")


def test_bad_files_and_entries(tmp_path, folder):
    good = fixture.mlearn("Li", "Elastic", "train", -7.0)
    changed = json.loads(json.dumps(good))
    changed["outputs"]["force"] = changed["outputs"].pop("forces")
    for entries, words in [
        ([changed], r"x\.json:0 has no 'forces'\. Did you mean 'force'"),
        ([good, good | {"num_atoms": 3}], r"x\.json:1 states 3 atoms, its structure has 2"),
        ([good | {"outputs": {**good["outputs"], "energy": None}}], "has no 'energy'"),
        ([good | {"outputs": {**good["outputs"], "virial_stress": [1, 2, 3]}}], r"stress must have shape \(6,\)"),
        ([7], "must be an object with structure and outputs"),
        ({"a": 1}, "must hold a list"),
        ([], "no structures"),
    ]:
        with pytest.raises(DataError, match=words):
            len(MlearnDataset(write(tmp_path / "x.json", entries)))
    (tmp_path / "x.json").write_text("[{")
    with pytest.raises(DataError, match="not valid JSON"):
        len(MlearnDataset(tmp_path / "x.json"))
    with pytest.raises(DataError, match="Did you mean"):
        MlearnDataset(folder / "c.json")
    with pytest.raises(DataError, match=r"has no \.json files"):
        MlearnDataset((tmp_path / "empty").mkdir() or tmp_path / "empty")
    with pytest.raises(DataError, match="listed once"):
        MlearnDataset([folder / "a.json", folder])


@cache
def opened(path):
    """Return a published data set; it is read once for all tests."""
    return MlearnDataset(path)


@pytest.mark.reference
def test_published_numbers(reference_data):
    for name, count, tests in (("mlearn/Li", 270, 29), ("mlearn/Si", 239, 25), ("mlearn/Ni", 31, 31)):
        dataset = opened(reference_data / name)
        assert len(dataset) == count
        assert len(dataset.official_split("tag")["test"]) == tests
    raw = json.loads((reference_data / "mlearn/Si/training.json").read_text())
    silicon = [s for s in opened(reference_data / "mlearn/Si") if "training.json" in s.source]
    per_atom = [float(sample.labels["energy"]) / len(sample.atoms) for sample in silicon]
    assert (round(min(per_atom), 3), round(max(per_atom), 3)) == (-5.425, -4.567)
    assert max(np.abs(sample.labels["forces"]).max() for sample in silicon) == pytest.approx(9.47, abs=0.005)
    for sample, entry in zip(silicon, raw, strict=True):
        sites = entry["structure"]["sites"]
        assert np.array_equal(sample.atoms.positions, [site["xyz"] for site in sites])
        assert np.array_equal(sample.labels["forces"], entry["outputs"]["forces"])
    for name, count in (("Mo_Elastic", 121), ("NbMo_Test", 40), ("TaW_Test", 40), ("W_Elastic", 121)):
        assert len(opened(reference_data / f"monbtaw/{name}.json")) == count


def strain_series(dataset):
    """Return elastic frames by mode of strain, sorted by its size; the unstrained one is in every series."""
    series = defaultdict(list)
    ground = []
    for sample in dataset:
        text = sample.info.get("description") or ""
        if found := re.search(r"mode (\d), strain (-?[\d.]+)|Strain\w* (\d)--(-?[\d.]+)", text):
            mode, size = [part for part in found.groups() if part is not None]
            series[mode].append((float(size), sample))
        elif text.startswith("Ground"):
            ground.append((0.0, sample))
    return [sorted(frames + ground, key=lambda item: item[0]) for frames in series.values() if len(frames) > 5]


def strain_error(dataset, change):
    """Return the rms difference of dE/dt / V and σ:dε/dt over all series in kbar, with ``change`` done to σ."""
    errors = []
    for frames in strain_series(dataset):
        sizes = [size for size, _ in frames]
        energy = CubicSpline(sizes, [float(sample.labels["energy"]) for _, sample in frames])(sizes, 1)
        cells = [sample.atoms.cell.array for _, sample in frames]
        for (_, sample), slope, cell, turn in list(zip(frames, energy, cells, CubicSpline(sizes, cells)(sizes, 1)))[
            2:-2
        ]:
            rate = np.linalg.solve(cell, turn)
            errors.append((change(sample.labels["stress"]) * rate).sum() - slope / abs(np.linalg.det(cell)))
    return np.sqrt(np.mean(np.square(errors))) * KBAR


def exchange_shears(order):
    """Return a function that puts the components yz, xz, xy of a tensor into another order."""
    places = [(1, 2), (0, 2), (0, 1)]

    def change(stress):
        changed = np.diag(np.diag(stress))
        for (i, j), source in zip(places, order):
            changed[i, j] = changed[j, i] = stress[places[source]]
        return changed

    return change


@pytest.mark.reference
@pytest.mark.parametrize(
    ("file", "error", "others"),
    [("mlearn/Si", 0.5, 90), ("monbtaw/Mo_Elastic.json", 4, 29), ("monbtaw/W_Elastic.json", 4, 41)],
)
def test_only_this_order_and_sign_fit_the_strain_energies(reference_data, file, error, others):
    dataset = opened(reference_data / file)
    assert strain_error(dataset, lambda stress: stress) < error
    assert strain_error(dataset, lambda stress: -stress) > 100
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            assert strain_error(dataset, exchange_shears(order)) > others, order


def symmetry_error(sample, change):
    """Return how much the stress in kbar differs from itself after the symmetry operations of the structure."""
    cell = sample.atoms.cell.array
    structure = (cell, sample.atoms.get_scaled_positions(), sample.atoms.numbers)
    rotations = spglib.get_symmetry(structure, symprec=1e-4)["rotations"]
    stress = change(sample.labels["stress"])
    turns = [cell.T @ rotation @ np.linalg.inv(cell.T) for rotation in np.unique(rotations, axis=0)]
    return max(np.abs(turn @ stress @ turn.T - stress).max() for turn in turns) * KBAR


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")
@pytest.mark.parametrize(
    ("file", "deciding"), [("mlearn/Li", 11), ("mlearn/Si", 29), ("mlearn/Ni", 4), ("monbtaw/Ta_Elastic.json", 40)]
)
def test_symmetric_structures_have_stresses_of_their_symmetry(reference_data, file, deciding):
    """Exchanging the yz and xz components breaks it wherever symmetry says anything about them."""
    decided = 0
    for sample in opened(reference_data / file):
        if sample.info["config_type"] == "AIMD-NVT":
            continue
        right, wrong = [symmetry_error(sample, exchange_shears(order)) for order in ((0, 1, 2), (1, 0, 2))]
        if max(right, wrong) > 0.3 and min(right, wrong) < 0.25 * max(right, wrong):
            decided += 1
            assert right < wrong, sample.source
    assert decided == deciding


def traction(sample):
    """Return the difference of σ·n by stress and by forces in kbar, as read and with yz and xz exchanged.

    Nothing is transmitted through the vacuum, so V σ·n = -Σ F (r·n) holds exactly, whatever the forces are.
    """
    cell = sample.atoms.cell.array
    normal = np.cross(cell[0], cell[1])
    normal /= np.linalg.norm(normal)
    heights = sample.atoms.get_scaled_positions()[:, 2]
    places = np.sort(heights)
    gaps = np.diff(np.append(places, places[0] + 1))
    assert gaps.max() * (cell[2] @ normal) > 10, "no vacuum"
    heights = (heights - places[(gaps.argmax() + 1) % len(places)]) % 1 * (cell[2] @ normal)
    virial = -(sample.labels["forces"].T @ heights) / abs(np.linalg.det(cell))
    return [
        (change(sample.labels["stress"]) @ normal - virial) * KBAR for change in (np.array, exchange_shears((1, 0, 2)))
    ]


@pytest.mark.reference
@pytest.mark.parametrize(("name", "deciding"), [("Si", 12), ("Li", 7)])
def test_forces_on_slabs_say_which_shear_is_which(reference_data, name, deciding):
    """An argument without symmetry or models: Si has another order than Li."""
    decided = 0
    for sample in opened(reference_data / f"mlearn/{name}"):
        if sample.info["config_type"] != "Surface":
            continue
        right, wrong = (np.linalg.norm(part[:2]) for part in traction(sample))
        assert right < 0.1, sample.source
        if wrong > 0.2:
            decided += 1
            assert right < 0.3 * wrong, sample.source
    assert decided == deciding


@pytest.mark.reference
def test_a_pair_potential_fitted_to_forces_knows_the_order_of_nickel(reference_data):
    """Forces do not depend on the order; the virial of what fits them says which shear is which."""
    frames = [s for s in opened(reference_data / "mlearn/Ni") if s.info["config_type"] == "AIMD-NVT"][::2]
    knots, rows, virials = np.linspace(2.0, 5.0, 16), [], []
    for sample in frames:
        first, vectors, lengths = neighbor_list("iDd", sample.atoms, 5.0)
        pull = np.exp(-(((lengths[:, None] - knots) / 0.25) ** 2) / 2) * (1 - lengths[:, None] / 5.0) ** 2
        units = vectors / lengths[:, None]
        each = np.einsum("pb,pa->pba", pull, units)
        forces = np.zeros((len(sample.atoms), *each.shape[1:]))
        np.add.at(forces, first, each)
        rows.append(forces.transpose(0, 2, 1).reshape(-1, len(knots)))
        virials.append(np.einsum("pba,pc->bac", each, vectors) / 2 / sample.atoms.get_volume())
    wanted = np.concatenate([sample.labels["forces"].ravel() for sample in frames])
    weights = np.linalg.lstsq(np.concatenate(rows), wanted, rcond=None)[0]
    errors = []
    for order in itertools.permutations(range(3)):
        change = exchange_shears(order)
        rest = [change(s.labels["stress"]) - np.tensordot(weights, v, 1) for s, v in zip(frames, virials, strict=True)]
        errors.append(np.sqrt(np.mean([[r[1, 2] ** 2, r[0, 2] ** 2, r[0, 1] ** 2] for r in rest])) * KBAR)
    assert errors[0] < 5
    assert min(errors[1:]) > 3 * errors[0]
