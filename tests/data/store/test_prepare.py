"""Preparing a store: everything once, whatever happens in between."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mlip.core.errors import ConfigError, DataError, MlipError
from mlip.data.datasets.store import StoreDataset
from mlip.data.sample import Sample
from mlip.data.store import prepare as module
from mlip.data.store.prepare import prepare
from mlip.data.store.shard_reader import OpenFiles, ShardReader
from mlip.data.store.work import perform
from tests.data.store.made import ListDataset, assert_same, crystal, samples

HOW = {"dataset": {"path": "unused"}, "words": ["data=list"]}


def contents(out: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a store."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != ".lock"}


def make(out, data, **options):
    return prepare(ListDataset(data), HOW, out, **{"workers": 1} | options)


def test_what_goes_in_comes_out(tmp_path):
    data = samples(11)
    calls = []
    report = make(tmp_path / "s", data, progress=lambda *numbers: calls.append(numbers))
    assert (report.made, report.reused) == (3, 0)
    assert calls == [(4, 100, 0), (8, 200, 0), (11, 300, 0)]
    assert sorted(contents(tmp_path / "s")) == [*(f"shard-00000{k}.h5" for k in range(3)), "store.json"]
    store = StoreDataset(tmp_path / "s")
    for found, expected in zip(store, data, strict=True):
        assert_same(found, expected)
    assert store.provides == ("energy", "forces")
    assert (store.licence, store.citation, dict(store.units)) == ("CC0-1.0", "nobody", {"energy": "eV"})


def test_a_second_time_nothing_is_done(tmp_path):
    make(tmp_path, samples(9))
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5")}
    report = make(tmp_path, samples(9))
    assert (report.made, report.reused) == (0, 3)
    assert contents(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5")} == times


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_only_what_is_missing_or_damaged_is_made_again(tmp_path, damage):
    make(tmp_path, samples(11))
    before = contents(tmp_path)
    path = tmp_path / "shard-000001.h5"
    if damage == "missing":
        path.unlink()
    else:
        half = len(before[path.name]) // 2
        path.write_bytes(before[path.name][:half])
    if damage == "changed":
        # Of the right size, so only an interrupted preparation looks at it.
        path.write_bytes(before[path.name][:-20] + b"x" * 20)
        (tmp_path / "store.json").unlink()
    report = make(tmp_path, samples(11))
    assert (report.made, report.reused) == (1, 2)
    assert contents(tmp_path) == before


def test_stopped_between_any_two_shards_it_goes_on(tmp_path):
    make(tmp_path / "whole", samples(11))

    def stop_after(number):
        def progress(structures, *_):
            if structures >= number:
                raise KeyboardInterrupt

        return progress

    for number in (1, 5, 9):
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "s", samples(11), progress=stop_after(number))
        with pytest.raises(DataError, match=r"not finished. Go on with: mlip data prepare data=list out="):
            StoreDataset(tmp_path / "s")
    make(tmp_path / "s", samples(11))
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    make(tmp_path, samples(5))
    (tmp_path / "store.json").unlink()
    (tmp_path / ".shard-000001-abc.h5").write_text("half")
    make(tmp_path, samples(5))
    assert not list(tmp_path.glob(".shard*"))


@pytest.mark.slow
def test_processes_make_the_same_store(tmp_path):
    make(tmp_path / "one", samples(40))
    report = make(tmp_path / "two", samples(40), workers=2)
    assert report.made == 10
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_compact_rounds_as_it_says_and_hashes_what_it_stores(tmp_path):
    data = samples(9)
    make(tmp_path / "a", data)
    make(tmp_path / "b", data, precision="compact")
    store = StoreDataset(tmp_path / "b")
    assert store.options["precision"] == "compact"
    for found, sample in zip(store, data, strict=True):
        assert np.abs(found.atoms.positions - sample.atoms.positions).max() <= 5.001e-7
        assert np.abs(found.atoms.cell.array - sample.atoms.cell.array).max() <= 5.001e-7
        assert np.abs(found.labels["forces"] - sample.labels["forces"]).max() <= 5.001e-6
        assert found.labels["energy"] == sample.labels["energy"]
        if "stress" in sample.labels:
            assert np.abs(found.labels["stress"] - sample.labels["stress"]).max() <= 5.001e-8
            # Fractional coordinates are kept.
            assert found.atoms.positions.tobytes() == sample.atoms.positions.tobytes()
    again = super(StoreDataset, store)
    np.testing.assert_array_equal(store.digests(range(9)), again.digests(range(9)))
    np.testing.assert_array_equal(store.geometry_digests(range(9)), again.geometry_digests(range(9)))
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).glob("*.h5")) for name in "ab"]
    assert sizes[1] < sizes[0]


# ---- damaged samples, isolated atoms


def damaged():
    data = samples(9)
    data[2], data[6] = DataError("f.xyz:2 is broken"), DataError("f.xyz:6 is broken")
    data[7].labels["energy"] = np.array(np.nan)
    return data


def test_a_damaged_sample_stops(tmp_path):
    with pytest.raises(DataError, match=r"f.xyz:2 is broken .*on_error=skip"):
        make(tmp_path, damaged())
    assert not contents(tmp_path), "nothing was made, so another command may use the folder"


def test_damaged_samples_are_left_out_and_listed_once(tmp_path):
    report = make(tmp_path, damaged(), on_error="skip")
    assert report.content["rejected"] == 3
    assert len(StoreDataset(tmp_path)) == 6
    (tmp_path / "shard-000000.h5").unlink()
    make(tmp_path, damaged(), on_error="skip")
    lines = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [line["error"] for line in lines][:2] == ["f.xyz:2 is broken", "f.xyz:6 is broken"]
    assert "not finite" in lines[2]["error"]
    assert [(line["shard"], line["chunk"]) for line in lines] == [
        ("shard-000000.h5", "list:0"),
        ("shard-000001.h5", "list:4"),
        ("shard-000001.h5", "list:4"),
    ]
    (tmp_path / "store.json").unlink()
    with pytest.raises(DataError, match=r"f.xyz:2 is broken"):
        make(tmp_path, damaged())


def test_structures_that_can_have_no_edges_are_damaged(tmp_path):
    flat = crystal(np.random.default_rng(0), source="f:3")
    flat.atoms.cell[2] = 0
    with pytest.raises(DataError, match="f:3: Periodic axes need lattice vectors"):
        make(tmp_path, [flat])


def isolated(symbol, energy, source):
    return Sample(Atoms(symbol), {"energy": np.array(energy)}, {"source": source}, isolated=True)


def test_isolated_atoms_are_kept_apart_over_all_shards(tmp_path):
    data = [isolated("H", -13.5, "f:0"), *samples(5), isolated("O", -2000.0, "f:6"), isolated("H", -13.5, "f:7")]
    make(tmp_path, data)
    store = StoreDataset(tmp_path)
    assert store.isolated_atom_energies() == {"H": -13.5, "O": -2000.0}
    assert len(store) == 5


def test_two_energies_of_one_element_are_refused(tmp_path):
    data = [isolated("H", -13.5, "f:0"), *samples(5), isolated("H", -13.6, "f:6")]
    with pytest.raises(DataError, match=r"Two energies for the isolated atom H: -13.5 eV \(f:0\) and -13.6 eV \(f:6\)"):
        make(tmp_path, data)
    with pytest.raises(DataError, match="isolated atom is there for its energy"):
        make(tmp_path / "b", [Sample(Atoms("H"), {}, {}, isolated=True)])


def test_nothing_to_store_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no structure that can be stored \(1 were damaged, 1 are isolated"):
        make(tmp_path, [DataError("broken"), isolated("H", -1.0, "f:0")], on_error="skip")


# ---- options, locks, folders


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "exakt"}, "Did you mean 'exact'"),
        ({"on_error": "ignore"}, "on_error must be stop or skip"),
        ({"cutoff": -1}, "cutoff must be a positive length"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path / "s", samples(1), **options)
    assert not (tmp_path / "s").exists()


def test_two_processes_do_not_prepare_the_same_store(tmp_path):
    with (
        module._locked(tmp_path),
        pytest.raises(MlipError, match=rf"Another process \(id {os.getpid()}\) is preparing"),
    ):
        make(tmp_path, samples(1))
    make(tmp_path, samples(1))


def test_folders_that_cannot_be_written_to_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MlipError, match=r"Cannot write into .* Choose another out"):
        make(tmp_path / "file" / "s", samples(1))


def test_unicode_paths(tmp_path):
    out = tmp_path / "Größe µ 数据"
    make(out, samples(5))
    assert len(StoreDataset(out)) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_and_a_store_in_one_is_read(tmp_path):
    make(tmp_path / "s", samples(3))
    (tmp_path / "s").chmod(0o555)
    try:
        with pytest.raises(MlipError, match="Cannot write into"):
            make(tmp_path / "s" / "t", samples(1))
        assert len(list(StoreDataset(tmp_path / "s"))) == 3
    finally:
        (tmp_path / "s").chmod(0o755)


def test_a_worker_without_a_parent_writes_nothing(tmp_path):
    settings = module.Settings(tmp_path, "p", 5.0, "exact", False, False)
    data = ListDataset(samples(4))
    task = module.Task(0, tuple(data.chunks()))
    assert "not wanted any more" in perform(data, settings, task, lambda: False).error
    assert list(tmp_path.iterdir()) == []


class SlowDataset(ListDataset):
    """Takes its time, so that there is something to kill."""

    def read(self, chunk):
        for item in super().read(chunk):
            time.sleep(0.05)
            yield item


def _prepare_slowly(out):
    prepare(SlowDataset(samples(40)), HOW, out, workers=2)


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path):
    prepare(SlowDataset(samples(40)), HOW, tmp_path / "whole", workers=1)
    context = multiprocessing.get_context("spawn")
    rng = np.random.default_rng(0)
    for wanted in (1, 5):
        process = context.Process(target=_prepare_slowly, args=(tmp_path / "s",))
        process.start()
        while len(list((tmp_path / "s").glob("shard*.h5"))) < wanted:
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(0.3 * rng.uniform())
        process.kill()
        process.join()
        assert not (tmp_path / "s" / "store.json").exists()
    prepare(SlowDataset(samples(40)), HOW, tmp_path / "s", workers=2)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
    shards = [ShardReader(tmp_path / "s" / f"shard-{k:06d}.h5", OpenFiles()) for k in range(10)]
    assert [shard.header["keys"] for shard in shards] == [[f"list:{4 * k}"] for k in range(10)]
