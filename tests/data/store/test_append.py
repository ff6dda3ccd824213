"""Adding to a store, and telling one preparation from another."""

import json

import h5py
import numpy as np
import pytest

from mlip.core.errors import DataError
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.datasets.store import StoreDataset
from mlip.data.store.prepare import prepare
from tests.data.frames import frame_text
from tests.data.store.made import ListDataset, assert_same, samples


def how(name, **options):
    return {"dataset": {"name": name, **options}, "words": [f"data.path={name}"]}


def make(out, data, name="a", **options):
    theory = options.pop("theory", {})
    dataset = ListDataset(data, name=name, level_of_theory=theory)
    return prepare(dataset, how(name), out, **{"workers": 1} | options)


def test_what_is_added_comes_after_and_statistics_are_of_all(tmp_path):
    first, second = samples(9, seed=1), samples(6, seed=2)
    make(tmp_path / "s", first)
    report = make(tmp_path / "s", second, name="b", append=True)
    assert (report.made, report.reused) == (2, 3)
    store = StoreDataset(tmp_path / "s")
    for found, expected in zip(store, first + second, strict=True):
        assert_same(found, expected)
    make(tmp_path / "all", first + second)
    together = StoreDataset(tmp_path / "all").statistics
    added = store.statistics
    fits = [statistics.pop("atomic_energies") for statistics in (added, together)]
    assert added.pop("force_rms") == pytest.approx(together.pop("force_rms"), rel=1e-12)
    assert added == together
    np.testing.assert_allclose([*fits[0]["energies"].values()], [*fits[1]["energies"].values()], rtol=1e-9)
    assert [(source["first_shard"], source["num_shards"]) for source in store.sources] == [(0, 3), (3, 2)]


def test_an_interrupted_addition_goes_on_and_the_old_store_stays(tmp_path):
    def stop(structures, *_):
        if structures > 10:
            raise KeyboardInterrupt

    make(tmp_path, samples(9))
    before = (tmp_path / "store.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, samples(12, seed=2), name="b", append=True, progress=stop)
    assert (tmp_path / "store.json").read_bytes() == before
    with pytest.raises(DataError, match=r"not finished. Go on with: .*append=true, or give up adding by deleting"):
        StoreDataset(tmp_path)
    make(tmp_path, samples(12, seed=2), name="b", append=True)
    assert len(StoreDataset(tmp_path)) == 21


def test_an_addition_can_be_given_up_and_another_made(tmp_path):
    broken = [*samples(6, seed=2), DataError("f:6 is broken")]
    make(tmp_path, samples(9))
    with pytest.raises(DataError, match="f:6 is broken"):
        make(tmp_path, broken, name="b", append=True)
    with pytest.raises(DataError, match=r"unfinished preparation with other settings: name was 'b' and is 'c'"):
        make(tmp_path, samples(5, seed=3), name="c", append=True)
    (tmp_path / "plan.json").unlink()
    assert len(StoreDataset(tmp_path)) == 9
    # The shard of the one that was given up is not taken for one of the other.
    make(tmp_path, samples(5, seed=3), name="c", append=True)
    assert_same(StoreDataset(tmp_path)[9], samples(5, seed=3)[0])


def test_the_same_data_twice_are_refused(tmp_path):
    make(tmp_path, samples(9))
    with pytest.raises(DataError, match="holds these data already: nothing was added"):
        make(tmp_path, samples(9), append=True)


def test_killed_before_the_plan_is_removed_the_store_is_complete(tmp_path):
    make(tmp_path / "s", samples(9))
    store = json.loads((tmp_path / "s" / "store.json").read_text())
    plan = {"format_version": 1, "source": store["sources"][0], "options": store["options"]}
    (tmp_path / "s" / "plan.json").write_text(json.dumps(plan))
    assert len(StoreDataset(tmp_path / "s")) == 9
    assert make(tmp_path / "s", samples(9)).made == 0
    assert not (tmp_path / "s" / "plan.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoff": 6.0}, "cutoff was 5.0 and is 6.0"),
        ({"precision": "compact"}, "precision was 'exact' and is 'compact'"),
        ({"graphs": True}, "graphs was False and is True"),
        ({"name": "b"}, "name was 'a' and is 'b'.*append=true"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, options, message):
    make(tmp_path, samples(3))
    with pytest.raises(DataError, match=message):
        make(tmp_path, samples(3), **options)


def test_additions_need_the_same_options_and_level_of_theory(tmp_path):
    make(tmp_path, samples(3), theory={"functional": "PBE"})
    with pytest.raises(DataError, match=r"same options: cutoff is 5.0 there and 6.0 here"):
        make(tmp_path, samples(3), name="b", append=True, cutoff=6.0)
    with pytest.raises(DataError, match="another level of theory"):
        make(tmp_path, samples(3), name="b", append=True, theory={"functional": "B3LYP"})


def test_duplicates_are_counted(tmp_path):
    data = samples(6)
    copy = samples(6)[4]
    relabelled = samples(6)[5]
    relabelled.labels["energy"] = relabelled.labels["energy"] + 1
    make(tmp_path, [*data, copy, relabelled])
    store = json.loads((tmp_path / "store.json").read_text())
    assert store["duplicates"] == {"same": 1, "same_geometry": 2}


# ---- sources in files


def source(paths, labels=("energy",)):
    names = [str(path) for path in paths]
    config = {"path": names if len(names) > 1 else names[0], "labels": list(labels)}
    return ExtxyzDataset(names, labels=labels), {"dataset": config, "words": []}


def test_changed_source_files_are_refused_by_name(tmp_path, file):
    path = file(frame_text())
    prepare(*source([path]), tmp_path / "s", workers=1)
    file(frame_text("energy=-11.0"))
    with pytest.raises(DataError, match=rf"the file '{path}' is changed"):
        prepare(*source([path]), tmp_path / "s", workers=1)


def test_a_new_file_in_a_folder_or_pattern_is_noticed(tmp_path, file):
    file(frame_text(), "x1.xyz")
    pattern = {"dataset": {"path": f"{tmp_path}/x*.xyz"}}
    prepare(ExtxyzDataset(f"{tmp_path}/x*.xyz"), pattern, tmp_path / "s", workers=1)
    new = file(frame_text("energy=-1.0"), "x2.xyz")
    with pytest.raises(DataError, match=rf"the file '{new}' is new"):
        prepare(ExtxyzDataset(f"{tmp_path}/x*.xyz"), pattern, tmp_path / "s", workers=1)


def test_chunks_of_a_file_that_is_there_already_are_refused(tmp_path, file):
    a, b = file(frame_text(), "a.xyz"), file(frame_text("energy=-1.0"), "b.xyz")
    prepare(*source([a]), tmp_path / "s", workers=1)
    with pytest.raises(DataError, match="already: nothing was added"):
        prepare(*source([a, b]), tmp_path / "s", workers=1, append=True)
    prepare(*source([b]), tmp_path / "s", workers=1, append=True)
    assert len(StoreDataset(tmp_path / "s")) == 2


def test_newer_and_foreign_files_are_refused(tmp_path):
    make(tmp_path, samples(3))
    text = (tmp_path / "store.json").read_text()
    (tmp_path / "store.json").write_text(text.replace('"format_version": 1', '"format_version": 2'))
    for read in (lambda: StoreDataset(tmp_path), lambda: make(tmp_path, samples(3))):
        with pytest.raises(DataError, match=r"format version 2, .* reads up to 1. Update mlip"):
            read()
    for content in ("", "{", "[]", "{}", '{"format_version": "x"}', "\udcff"):
        (tmp_path / "store.json").write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(DataError, match=r"store\.json' (cannot be read|is not a file of a store)"):
            StoreDataset(tmp_path)
    (tmp_path / "store.json").write_text(text.replace('"rejected": 0', '"rejected": 1'))
    with pytest.raises(DataError, match="damaged"):
        StoreDataset(tmp_path)
    (tmp_path / "store.json").write_text(text)
    with h5py.File(tmp_path / "shard-000000.h5", "r+") as handle:
        handle.attrs["format_version"] = 7
    with pytest.raises(DataError, match=r"format version 7|damaged|another size"):
        StoreDataset(tmp_path)[0]
