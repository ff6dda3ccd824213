"""``mlip data convert`` as a user runs it."""

import re

import numpy as np
import pytest
from ase.io import read
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.data.writers.extxyz import ExtxyzWriter
from tests.data.ase_files import crystal, row_of, write_aselmdb


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in a folder of its own; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["data", "convert", *words])
        assert result.exit_code == status, result.output
        return " ".join(result.output.split())

    return run


@pytest.fixture
def source(tmp_path):
    """Three labelled crystals in a.extxyz, and the same in a database whose second row is damaged."""
    samples = [crystal(k) for k in range(3)]
    ExtxyzWriter().write(samples, tmp_path / "a.extxyz")
    rows = {k: row_of(sample) for k, sample in enumerate(samples, 1)}
    write_aselmdb(tmp_path / "bad" / "a.aselmdb", rows | {2: rows[2] | {"energy": None}})
    return samples


def test_there_and_back(call, source, tmp_path):
    assert "3 structures written to b/b.aselmdb" in call("a.extxyz", "b/b.aselmdb")
    call("data=ase_db", "data.path=b/b.aselmdb", "c.xyz")
    assert (tmp_path / "c.xyz").read_bytes() == (tmp_path / "a.extxyz").read_bytes()
    call("a.extxyz", "d.xyz", "--limit", "2")
    assert [frame.get_potential_energy() for frame in read(tmp_path / "d.xyz", ":")] == [
        float(sample.labels["energy"]) for sample in source[:2]
    ]


def test_damaged_structures_stop_or_are_counted(call, source, tmp_path):
    message = call("data=ase_db", "data.path=bad/a.aselmdb", "b.xyz", status=1)
    assert "a.aselmdb:1: no energy" in message
    assert not (tmp_path / "b.xyz").exists()
    message = call("data=ase_db", "data.path=bad/a.aselmdb", "b.xyz", "--on-error", "skip")
    assert "1 structures were left out, the first: bad/a.aselmdb:1: no energy" in message
    assert "2 structures written" in message
    found = [frame.get_forces() for frame in read(tmp_path / "b.xyz", ":")]
    np.testing.assert_array_equal(found, [source[0].labels["forces"], source[2].labels["forces"]])


def test_nothing_is_overwritten_by_accident(call, source, tmp_path):
    before = (tmp_path / "a.extxyz").read_bytes()
    call("a.extxyz", "b.xyz")
    assert "'b.xyz' is there already. Use --overwrite" in call("a.extxyz", "b.xyz", "--limit", "1", status=1)
    assert len(read(tmp_path / "b.xyz", ":")) == 3
    call("a.extxyz", "b.xyz", "--limit", "1", "--overwrite")
    assert len(read(tmp_path / "b.xyz", ":")) == 1
    assert "both read and written" in call("a.extxyz", "a.extxyz", "--overwrite", status=1)
    assert "both read and written" in call("data=extxyz", "data.path=a.extxyz", "./a.extxyz", "--overwrite", status=1)
    assert (tmp_path / "a.extxyz").read_bytes() == before


def test_wrong_outputs_say_what_to_do(call, source):
    assert "Two names are needed" in call("a.extxyz", status=1)
    assert "mlip data prepare a.extxyz out=store" in call("a.extxyz", "store", status=1)
    assert "must end with .extxyz, .xyz, .aselmdb" in call("a.extxyz", "a.json", status=1)
    assert "none.xyz" in call("none.xyz", "b.xyz", status=1)


def test_what_nobody_asked_for_is_named(call, source, tmp_path):
    for sample in source:
        sample.labels |= {"charge": np.array(-1), "spin": np.array(2)}
    ExtxyzWriter().write(source, tmp_path / "b.xyz")
    message = call("b.xyz", "c.xyz")
    assert "Warning: the data have charge, spin, not asked for, so not written" in message
    assert "charge" not in (tmp_path / "c.xyz").read_text()
    words = re.search(r"'(data\.dataset\.optional_labels=\S+)'", message)[1]
    assert "Warning" not in call("b.xyz", words, "d.xyz")
    assert (tmp_path / "d.xyz").read_bytes() == (tmp_path / "b.xyz").read_bytes()
