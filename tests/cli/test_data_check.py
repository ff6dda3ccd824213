"""``mlip data check`` as a user runs it: files with mistakes, exit status, reports."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from typer.testing import CliRunner

from mlip.cli.main import app
from tests.components import repository_root
from tests.data.checks.generated import change, crystals, molecules

BUNDLED = repository_root() / "data"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in a folder of its own; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words, status=0):
        result = CliRunner().invoke(app, ("data", "check", *map(str, words)), env={"COLUMNS": "300"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return run


def save(name, frames):
    write(name, frames, format="extxyz")
    return name


def test_good_data_are_confirmed(call):
    text = call(BUNDLED / "silicon_dft" / "silicon.xyz", "--strict")
    for part in ("0 errors, 0 warnings in 99 structures", "confirmed: sign of the stress", "energy residual"):
        assert part in text, part
    monkey = call(BUNDLED / "ethanol_dft" / "ethanol.xyz", "--strict")
    assert "energies are all-electron totals in eV" in monkey


def test_a_flipped_stress_sets_the_status(call):
    path = BUNDLED / "silicon_dft" / "silicon.xyz"
    text = call(path, "data.dataset.stress_sign=-1", status=1)
    assert "The stress has the wrong sign" in text
    assert "2 errors, 0 warnings" in text
    skipped = call(path, "data.dataset.stress_sign=-1", "--skip", "stress sign", "--skip", "energy differences")
    assert "0 errors" in skipped


def test_a_misspelt_key_is_an_error_that_lists_the_keys(call):
    frames = molecules()
    for atoms in frames:
        atoms.info["enrgy"] = atoms.calc.results.pop("energy")
    text = call(save("my.xyz", frames), "--json", "report.json", status=1)
    assert "enrgy" in text
    assert "no energy" in text
    content = json.loads(Path("report.json").read_text())
    assert content["errors"] == 1
    assert content["findings"][0]["check"] == "reading"
    assert content["format"] == "extxyz"
    assert "0 errors" in call("my.xyz", "data.dataset.energy_key=enrgy")


def test_strict_counts_warnings(call):
    frames = crystals()
    save("my.xyz", change(frames, slice(0, 3), lambda r: r.pop("stress")))
    assert "3 of 30 periodic structures lack a stress" in call("my.xyz")
    call("my.xyz", "--strict", status=1)


def test_results_in_a_folder(call):
    frames = crystals()
    save("my.xyz", frames)
    call("my.xyz", "--out", "result")
    rows = list(csv.DictReader(Path("result/outliers.csv").read_text().splitlines()))
    forces = [float(row["value"]) for row in rows if row["quantity"] == "largest force"]
    expected = sorted((np.linalg.norm(a.calc.results["forces"], axis=1).max() for a in frames), reverse=True)
    np.testing.assert_allclose(forces, expected, rtol=1e-5)
    content = json.loads(Path("result/report.json").read_text())
    assert content["errors"] == 0
    assert content["data"]["structures"] == 30
    assert Path("result/check.png").read_bytes()[:4] == b"\x89PNG"


def test_leakage_from_a_test_file(call):
    frames = crystals()
    save("train.xyz", frames)
    save("test.xyz", [*crystals(5, seed=7), frames[3]])
    text = call("train.xyz", "data.test_path=test.xyz", status=1)
    assert "1 structure has a geometry that is in another part" in text
    assert "test.xyz:5 (test)" in text


def test_several_files_by_pattern_and_awkward_names(call):
    save("a part.xyz", crystals(10))
    save("b=1 ü'x.xyz", crystals(10, seed=5))
    assert "20 structures" in call("*.xyz")
    assert "10 structures" in call("b=1 ü'x.xyz")
    assert "10 structures" in call("data=a part.xyz")


def test_a_sample_says_that_it_is_one(call):
    save("my.xyz", crystals())
    text = call("my.xyz", "--limit", "10")
    assert "0 errors, 0 warnings in 10 structures (of a sample of the data)" in text
    assert "leakage between the parts of the split was not looked for" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.xyz"], "There is no file or folder 'nothing.xyz'"),
        (["silicn"], "Did you mean 'silicon'"),
        (["notes.txt"], "a text file that begins with 'just some words'"),
        (["data.bin"], "a binary file of an unknown kind"),
        (["my.xyz", "other.xyz"], "One path at a time"),
        (["data=extxyz"], "data.path=…"),
        (["my.xyz", "data.dataset.energykey=x"], "Did you mean 'data.dataset.energy_key'"),
        (["my.xyz", "--skip", "leak"], "There is no check 'leak'"),
    ],
)
def test_mistakes_of_the_user_are_one_sentence(call, words, message, tmp_path):
    (tmp_path / "notes.txt").write_text("just some words\n")
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 4)
    save("my.xyz", crystals(3))
    save("other.xyz", crystals(3))
    result = call(*words, status=1)
    assert "Traceback" not in result
    assert message in result


def test_a_choice_that_is_the_users_is_asked_for(call, tmp_path):
    """MPtrj has two energies; the configuration says which."""
    lattice = {"matrix": [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]]}
    site = {"species": [{"element": "Cu", "occu": 1}], "abc": [0, 0, 0], "xyz": [0, 0, 0]}
    frame = {
        "structure": {"@module": "pymatgen.core.structure", "@class": "Structure", "lattice": lattice, "sites": [site]},
        "uncorrected_total_energy": -3.5,
        "corrected_total_energy": -3.6,
        "force": [[0, 0, 0]],
        "stress": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "magmom": None,
    }
    (tmp_path / "mp.json").write_text(json.dumps({"mp-1": {"mp-1-0-0": frame}}))
    text = call("mp.json", status=1)
    assert "data=mptrj leaves a choice to you: data.dataset.energy=… (uncorrected" in text
    assert "1 structure" in call("mp.json", "data.dataset.energy=uncorrected")
