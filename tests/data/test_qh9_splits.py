"""The published splits of QH9, number by number against SPHNet's index files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets import qh9_splits
from mlip.data.datasets.qh9 import QH9Dataset
from tests.data.fixtures import qh9 as fixture


class Listed:
    """Rows that are known by their ids and sizes alone: as many as a published file has."""

    layout, has_energy, has_initial, record = "sqlite", False, False, None

    def __init__(self, molecules, sizes=None, dynamic=True):
        self._molecules, self._sizes, self.dynamic = np.asarray(molecules), sizes, dynamic

    def __len__(self):
        return len(self._molecules)

    def molecules(self):
        return self._molecules

    def num_atoms(self):
        return self._sizes


def listed(monkeypatch, rows, variant, **options):
    monkeypatch.setattr("mlip.data.datasets.qh9.open_rows", lambda path: rows)
    return QH9Dataset("published.db", variant, **options)


def published(reference_data, name):
    path = reference_data / "qh9" / "sphnet_index" / f"processed_QH9{name}.pt"
    # Arrays of numpy, which weights_only refuses; the file is part of the reference data.
    return [np.asarray(part) for part in torch.load(path, weights_only=False)]


def assert_parts(split, parts):
    assert list(split) == ["train", "valid", "test"]
    for found, wanted in zip(split.values(), parts, strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.reference
def test_stable_iid_is_sphnets(reference_data, monkeypatch):
    data = listed(monkeypatch, Listed(np.arange(130_831), dynamic=False), "stable")
    split = data.official_split("stable_iid")
    assert [len(part) for part in split.values()] == [104_664, 13_083, 13_084]
    assert_parts(split, published(reference_data, "Stable_random_12"))


@pytest.mark.reference
def test_stable_ood_is_sphnets(reference_data, monkeypatch):
    """The sizes of QM9's molecules are not here; the index file says which of the three kinds each one is of."""
    parts = published(reference_data, "Stable_size_ood")
    rng = np.random.default_rng(0)
    sizes = np.zeros(130_831, dtype=np.int64)
    for rows, (low, high) in zip(parts, ((3, 20), (21, 22), (23, 29)), strict=True):
        sizes[rows] = rng.integers(low, high, size=len(rows), endpoint=True)
    assert sizes.min() == 3  # every molecule is in one of the parts
    data = listed(monkeypatch, Listed(np.arange(130_831), sizes, dynamic=False), "stable")
    split = data.official_split("stable_ood")
    assert [len(part) for part in split.values()] == [104_001, 17_495, 9_335]
    assert_parts(split, parts)


@pytest.mark.reference
@pytest.mark.parametrize(("name", "file"), [("dynamic_geo", "Dynamic_geometry"), ("dynamic_mol", "Dynamic_mol")])
def test_dynamic_rules_reproduce_sphnets_older_release(name, file, reference_data, monkeypatch):
    """SPHNet's files belong to 2,399 molecules of 60 frames; a file of that size is that release."""
    parts = published(reference_data, file)
    data = listed(monkeypatch, Listed(np.repeat(np.arange(2399) * 7, 60)), "dynamic_100k")
    assert_parts(data.official_split(name), parts)
    # SPHNet's own file does not say which molecule a frame is of; the size does.
    nameless = listed(monkeypatch, Listed(np.arange(143_940), dynamic=None), "dynamic_100k")
    assert_parts(nameless.official_split(name), parts)


@pytest.mark.parametrize(
    ("variant", "molecules", "geo", "mol"),
    [
        ("dynamic_300k", 2998, (239_840, 29_980, 29_980), (239_800, 29_900, 30_100)),
        ("dynamic_100k", 999, (79_920, 9_990, 9_990), (79_900, 9_900, 10_100)),
    ],
)
def test_sizes_of_the_dynamic_splits(variant, molecules, geo, mol, monkeypatch):
    """As the paper's table has them."""
    data = listed(monkeypatch, Listed(np.repeat(np.arange(molecules), 100)), variant)
    for name, sizes in (("dynamic_geo", geo), ("dynamic_mol", mol)):
        split = data.official_split(name)
        assert tuple(len(part) for part in split.values()) == sizes
        assert np.array_equal(np.sort(np.concatenate(list(split.values()))), np.arange(len(data)))
    parts = [set(np.asarray(part) // 100) for part in split.values()]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_other_files_are_refused_unless_asked_for(tmp_path, monkeypatch):
    path = fixture.write_dynamic(tmp_path / "d.db", [fixture.dynamic_row(k // 10, k % 10, k % 3) for k in range(100)])
    data = QH9Dataset(path, "dynamic_300k")
    with pytest.raises(DataError, match=r"2,998 molecules with 100 frames .* 10 molecules with 10 .*this_file"):
        data.official_split("dynamic_geo")
    with pytest.raises(DataError, match="130,831 rows, these data have 5 rows"):
        listed(monkeypatch, Listed(range(5), dynamic=False), "stable").official_split("stable_iid")
    monkeypatch.undo()
    own = QH9Dataset(path, "dynamic_300k", split_rule="this_file")
    geo = own.official_split("dynamic_geo")
    assert [len(part) for part in geo.values()] == [80, 10, 10]
    last = np.random.RandomState(29).permutation(10) + 20
    assert geo["train"][16:24] == last[:8].tolist()
    assert geo["test"][2] == last[9]
    mol = own.official_split("dynamic_mol")
    assert [len(part) for part in mol.values()] == [80, 10, 10]
    short = fixture.write_dynamic(tmp_path / "s.db", [fixture.dynamic_row(1, k, k) for k in range(3)])
    with pytest.raises(DataError, match="leaves the part train empty"):
        QH9Dataset(short, "dynamic_300k", split_rule="this_file").official_split("dynamic_mol")


def test_skipped_rows_drop_out_of_the_splits(tmp_path):
    rows = [fixture.dynamic_row(k // 10, k % 10, k % 3, converged=int(k != 25)) for k in range(40)]
    path = fixture.write_dynamic(tmp_path / "d.db", rows)
    whole = QH9Dataset(path, "dynamic_300k", split_rule="this_file").official_split("dynamic_geo")
    data = QH9Dataset(path, "dynamic_300k", split_rule="this_file", unconverged="skip")
    split = data.official_split("dynamic_geo")
    assert sorted(k for part in split.values() for k in part) == list(range(39))
    for name, part in whole.items():
        sources = [f"{path}:{k}" for k in part if k != 25]
        assert [data[k].info["source"] for k in split[name]] == sources


def test_names_of_splits(monkeypatch):
    data = listed(monkeypatch, Listed(np.arange(130_831), dynamic=False), "stable")
    with pytest.raises(ConfigError, match=r"Did you mean 'stable_iid'\?"):
        data.official_split("stable_id")
    with pytest.raises(ConfigError, match="is for QH9 Dynamic, these data are Stable"):
        data.official_split("dynamic_geo")
    assert data.official_splits == qh9_splits.SPLITS


def test_frames_of_a_molecule_must_stand_together():
    assert qh9_splits.runs(np.array([4, 4, 1, 9, 9, 9])) == [2, 1, 3]
    with pytest.raises(DataError, match="several places"):
        qh9_splits.runs(np.array([4, 1, 4]))
