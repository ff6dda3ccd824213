"""``mlip data label --ase`` and ``--model``, and how what they write is read."""

from __future__ import annotations

import json
import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.models.model_file import save_model
from tests.components import small_facet


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [bulk("Cu", "fcc", a=a, cubic=True) for a in (3.5, 3.6, 3.7)]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
        frame.info = {"uncertainty": 0.1 * number, "step": number}
    ase.io.write("selected.extxyz", frames)


def label(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["data", "label", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output + result.stderr


def test_labels_of_crystals_by_emt(tmp_path):
    words = ["selected.extxyz", "--ase", "emt", "--out", "new.extxyz", "--jobs", "1"]
    assert "3 computed; 3 labelled in new.extxyz" in label(*words)
    text = (tmp_path / "new.extxyz").read_bytes()
    assert "0 computed, 3 were there" in label(*words)
    assert (tmp_path / "new.extxyz").read_bytes() == text
    frames, before = ase.io.read("new.extxyz", ":"), ase.io.read("selected.extxyz", ":")
    for frame, old in zip(frames, before, strict=True):
        old.calc = EMT()
        assert frame.get_potential_energy() == pytest.approx(old.get_potential_energy(), abs=1e-12)
        assert frame.get_forces() == pytest.approx(old.get_forces(), abs=1e-12)
        assert frame.get_stress() == pytest.approx(old.get_stress(), abs=1e-12)
        assert {name: frame.info[name] for name in ("uncertainty", "step")} == old.info
        assert frame.info["method"] == "ASE calculator emt"
        assert frame.info["program"].startswith("emt through ASE ")
    sample = ExtxyzDataset("new.extxyz", labels=["energy", "forces", "stress"])[0]
    assert set(sample.labels) == {"energy", "forces", "stress"}
    words[4] = "other.extxyz"
    assert "0 computed" not in label(*words)
    asap = ["--ase-args", json.dumps({"asap_cutoff": True})]
    assert "arguments {} (now: {'asap_cutoff': True})" in label(*words, *asap, status=1)


def test_what_fails_is_told_and_the_rest_goes_on():
    frames = ase.io.read("selected.extxyz", ":")
    # EMT has no lithium.
    ase.io.write("mixed.extxyz", [frames[0], bulk("Li", "bcc", a=3.5), frames[1]])
    words = ["mixed.extxyz", "--ase", "emt", "--out", "new.extxyz", "--jobs", "1"]
    for computed in ("2 computed", "0 computed"):
        output = label(*words, status=1)
        assert f"{computed}" in output
        assert "2 labelled in new.extxyz" in output
        assert re.search(r"mixed.extxyz:1: NotImplementedError: No EMT-potential for Li", output)
    assert len(ase.io.read("new.extxyz", ":")) == 2


@pytest.mark.slow
def test_a_model_teaches():
    model = small_facet(seed=0)
    save_model("m.safetensors", model, {})
    ase.io.write("water.xyz", Atoms("OH2", [[0.0, 0, 0], [1.0, 0, 0], [-0.2, 0.9, 0]]))
    label("water.xyz", "--model", "m.safetensors", "--out", "new.extxyz")
    frame, alone = ase.io.read("new.extxyz"), ase.io.read("water.xyz")
    alone.calc = MLIPCalculator(model)
    assert frame.get_potential_energy() == pytest.approx(alone.get_potential_energy(), abs=1e-6)
    assert np.abs(frame.get_forces() - alone.get_forces()).max() < 1e-5
    assert frame.info["method"] == "model m.safetensors"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ase", "emtt"], "Did you mean 'emt'"),
        (["--ase", "emt", "--out", "a.db"], "A .db holds Hamiltonians"),
        (["--ase", "emt", "--model", "a"], "both compute"),
        (["--ase", "emt", "--xc", "pbe"], "--xc has no effect with --ase: leave it out"),
        (["--free-energy"], "--free-energy has no effect without --ase"),
        (["--ase", "emt", "--ase-args", "{"], "is not JSON"),
        (["--ase", "emt", "--ase-args", "none.json"], "must be JSON, or a file with it"),
        (["--model", "none.safetensors"], "There is no model file"),
        (["--charge", "1", "--out", "a.db"], "--charge cannot be in a .db"),
    ],
)
def test_refusals(words, message, tmp_path):
    before = set(tmp_path.iterdir())
    assert message in label("selected.extxyz", *words, status=1)
    assert set(tmp_path.iterdir()) == before


def test_a_program_that_is_not_set_up_leaves_nothing(tmp_path, monkeypatch):
    for name in ("ASE_VASP_COMMAND", "VASP_COMMAND", "VASP_SCRIPT"):
        monkeypatch.delenv(name, raising=False)
    before = set(tmp_path.iterdir())
    assert "'vasp' cannot run" in label("selected.extxyz", "--ase", "vasp", "--out", "a.xyz", "--jobs", "1", status=1)
    assert set(tmp_path.iterdir()) == before


def test_what_cannot_be_read_is_left_out(tmp_path):
    (tmp_path / "empty.xyz").touch()
    words = ["selected.extxyz", "empty.xyz", "--ase", "emt", "--out", "new.extxyz", "--jobs", "1"]
    assert "'empty.xyz' is empty (0 bytes). --on-error skip" in label(*words, status=1)
    output = label(*words, "--on-error", "skip", status=1)
    assert "3 labelled in new.extxyz" in output
    assert "Left out: The structure file 'empty.xyz' is empty" in output


def test_overlapping_atoms_have_no_label():
    frames = ase.io.read("selected.extxyz", ":2")
    frames[1].positions[1] = frames[1].positions[0] + [0.05, 0, 0]
    ase.io.write("close.extxyz", frames)
    words = ["close.extxyz", "--ase", "emt", "--out", "new.extxyz", "--jobs", "1"]
    assert "close.extxyz:1: It has overlapping atoms: atoms 0 (Cu) and 1 (Cu)" in label(*words, status=1)
    assert "overlapping atoms" in label(*words, "--on-error", "skip")
    assert len(ase.io.read("new.extxyz", ":")) == 1
    words[4] = "all.extxyz"
    assert "2 labelled" in label(*words, "--any-distance")
