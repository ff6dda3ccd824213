"""The 12 GB object is cut without being parsed: never at a wrong place, nothing lost or doubled, in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlip.core.errors import DataError
from mlip.data.datasets import mptrj_json, mptrj_pieces
from mlip.data.datasets.mptrj import MPtrjDataset
from tests.data.fixtures.mptrj import frame


@pytest.fixture
def small(monkeypatch):
    """Cut everything at a few hundred bytes."""
    monkeypatch.setattr(mptrj_pieces, "BLOCK", 512)
    monkeypatch.setattr(mptrj_pieces, "AT_ONCE", 1500)
    monkeypatch.setattr(mptrj_pieces, "LARGEST_PIECE", 20_000)
    monkeypatch.setattr(mptrj_json, "CHUNK_BYTES", 3000)


def materials(counts):
    return {
        f"mp-{number}": {f"mp-{number}-{step % 2}-{step}": frame("mp-1", step, mp_id_=0) for step in range(count)}
        for number, count in enumerate(counts, start=100)
    }


def without_ids(data):
    for frames in data.values():
        for content in frames.values():
            del content["mp_id"], content["mp_id_"]
    return data


def write(tmp_path, data):
    path = tmp_path / "m.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def read(path):
    dataset = MPtrjDataset(path, "uncorrected")
    return [item for chunk in dataset.chunks() for item in dataset.read(chunk)]


def names(items):
    return [str(item) if isinstance(item, DataError) else item.source.rsplit(":", 1)[1] for item in items]


def everything(data):
    return [f"{mp_id}/{frame_id}" for mp_id, frames in data.items() for frame_id in frames]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.sampled_from([None, 1, 3]))
def test_pieces_are_the_whole_and_chunks_tile_the_file(small, tmp_path, counts, indent):
    data = without_ids(materials(counts))
    path = write(tmp_path, json.dumps(data, indent=indent))
    assert names(read(path)) == everything(data)
    chunks = list(MPtrjDataset(path, "uncorrected").chunks())
    ends = [0]
    for chunk in chunks:
        assert chunk.location[0] == ends[-1]
        ends.append(chunk.location[1])
    assert ends[-1] == path.stat().st_size
    assert len({chunk.key for chunk in chunks}) == len(chunks)


def test_text_that_looks_like_a_key_is_not_one(small, tmp_path):
    data = without_ids(materials([3, 3, 3]))
    data["mp-101"]["mp-101-1-1"]["note"] = '{"mp-1": {"mp-1-0-0": {}}, "mp-7": {"a": {}}}, "mp-8": {'
    assert names(read(write(tmp_path, data))) == everything(data)


def test_a_key_deeper_inside_is_an_error_and_not_a_cut(small, tmp_path):
    data = without_ids(materials([2, 2, 2]))
    data["mp-101"]["mp-101-0-0"]["inner"] = {"a": {"b": {"c": 1}}, "mp-5": {"mp-5-0-0": 2}}
    found = read(write(tmp_path, data))
    errors = [item for item in found if isinstance(item, DataError)]
    assert errors
    assert all("not valid JSON" in str(error) for error in errors)
    good = [name for name in names(found) if name.startswith("mp-10")]
    assert set(good) <= set(everything(data))
    assert len(good) == len(set(good))


def test_repeated_frames_and_other_contents_are_errors(small, tmp_path):
    one = json.dumps(without_ids(materials([1]))["mp-100"]["mp-100-0-0"])
    twice = f'{{"mp-1": {{"mp-1-0-0": {one}, "mp-1-0-0": {one}}}}}'
    assert "2 structures have only 1 different names" in names(read(write(tmp_path, twice)))[0]
    with pytest.raises(DataError, match="must be an object of frames, got list"):
        list(MPtrjDataset(write(tmp_path, '{"mp-1": [{"a": {"b": {}}}], "mp-2": {"c": {"d": {}}}}'), "corrected"))
    bad = without_ids(materials([2]))
    bad["mp-100"]["mp-100-0-0"]["force"][0][0] = float("nan")
    assert "it holds NaN" in names(read(write(tmp_path, bad)))[0]
    deep = '{"mp-1": {"mp-1-0-0": {"structure": ' + "[" * 3000 + "]" * 3000 + "}}}"
    assert "not valid JSON" in names(read(write(tmp_path, deep)))[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("[1, 2]", "one object .* was expected"),
        ('{"mp-1": {"mp-1-0-0": {"structure": {}', "is truncated: it does not end with"),
        ("{}", "hold no structures"),
        ('{"mp-1": {"a": {}}} {"mp-2": {"b": {}}}', "not valid JSON"),
    ],
)
def test_files_that_are_something_else(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        len(MPtrjDataset(write(tmp_path, text), "corrected"))


def test_one_material_without_end_is_refused(small, tmp_path):
    path = write(tmp_path, without_ids(materials([40, 1])))
    assert len(path.read_bytes()) > 20_000
    with pytest.raises(DataError, match="no material ends within"):
        read(path)


def test_every_cut_and_every_changed_byte_is_noticed_or_harmless(small, tmp_path):
    data = without_ids(materials([2, 1, 3]))
    path = write(tmp_path, data)
    whole, reference = path.read_bytes(), read(path)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:place])
        with pytest.raises(DataError):
            list(MPtrjDataset(path, "uncorrected"))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ int(rng.integers(1, 256))]) + whole[place + 1 :])
        try:
            found = list(MPtrjDataset(path, "uncorrected"))
        except DataError:
            continue
        assert len(found) == len(reference)


MEASURE = """
import sys
from mlip.data.datasets.mptrj import MPtrjDataset
def peak():  # getrusage would give that of the parent process where it is larger
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
dataset = MPtrjDataset(sys.argv[1], "uncorrected")
before = peak()
print(sum(1 for chunk in dataset.chunks() for item in dataset.read(chunk)), before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    frames = json.dumps(without_ids(materials([30]))["mp-100"])
    path = tmp_path / "m.json"
    copies = 3000
    with path.open("w") as stream:
        for number in range(copies):
            stream.write(f'{", " if number else "{"}"mp-{number}": {frames}')
        stream.write("}")
    assert path.stat().st_size > 70e6
    result = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    count, before, after = map(int, result.stdout.split())
    assert count == 30 * copies
    assert after < 500_000, f"{after} kB"
    assert after - before < 60_000, f"{after - before} kB, less than the file"
