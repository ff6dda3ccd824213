"""Adding to a store, and telling one preparation from another."""

import json

import h5py
import numpy as np
import pytest

from mlip.core.errors import DataError
from mlip.data.datasets.store import StoreDataset
from mlip.data.store.prepare import prepare
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
    opened = StoreDataset(tmp_path / "s")
    report = make(tmp_path / "s", second, name="b", append=True)
    assert (report.made, report.reused) == (2, 3)
    store = StoreDataset(tmp_path / "s")
    for found, expected in zip(store, first + second, strict=True):
        assert_same(found, expected)
    # Who had opened it before, such as a training, is not disturbed.
    for found, expected in zip(opened, first, strict=True):
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


def test_shards_of_an_addition_that_was_given_up_are_removed(tmp_path):
    make(tmp_path, samples(9))
    with pytest.raises(DataError, match="f:9 is broken"):
        make(tmp_path, [*samples(9, seed=2), DataError("f:9 is broken")], name="b", append=True)
    assert len(list(tmp_path.glob("*.h5"))) == 5
    (tmp_path / "plan.json").unlink()
    make(tmp_path, samples(4, seed=3), name="c", append=True)
    assert len(list(tmp_path.glob("*.h5"))) == 4
    assert len(StoreDataset(tmp_path)) == 13


def test_what_an_older_source_left_out_does_not_stop_an_addition(tmp_path):
    make(tmp_path, [*samples(4), DataError("f:4 is broken")], on_error="skip")
    make(tmp_path, samples(4, seed=2), name="b", append=True)
    assert len(StoreDataset(tmp_path)) == 8
    assert "f:4 is broken" in (tmp_path / "rejected.jsonl").read_text()


@pytest.mark.parametrize("size", [3, 5, 6])
def test_files_that_are_cut_in_another_way_do_not_overwrite_other_shards(tmp_path, size):
    make(tmp_path, samples(12))
    make(tmp_path, samples(5, seed=2), name="b", append=True)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.h5")}
    del before[tmp_path / "shard-000000.h5"]
    (tmp_path / "shard-000000.h5").unlink()
    newer = ListDataset(samples(12), name="a", chunk_samples=size)
    with pytest.raises(DataError, match="cuts these files into other shards"):
        prepare(newer, how("a"), tmp_path, workers=1)
    assert {path: path.read_bytes() for path in before} == before


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
