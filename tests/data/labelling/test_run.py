"""Structures that are refused, several processes, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time

import numpy as np
import pytest
from ase import Atoms

from mlip.core.errors import MlipError
from mlip.core.units import HARTREE
from mlip.data.labelling.label_file import LabelFile
from mlip.data.labelling.run import checked, choose_layout, label_structures
from mlip.data.labelling.structures import structure
from tests.data.labelling.made import WATER, MadeUp, content, frames, moved, record


def make(path, structures, labeller, jobs):
    with LabelFile(path, record(structures, labeller)) as file:
        return label_structures(structures, labeller, file, jobs)


def water(**changes):
    atoms = Atoms("OHH", WATER)
    for name, value in changes.items():
        if name == "info":
            atoms.info.update(value)
        else:
            getattr(atoms, f"set_{name}")(value)
    return atoms


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pbc": [True, False, False]}, "is periodic along a, and only neutral closed-shell molecules can be computed"),
        (
            {"positions": WATER / 0.529177},
            "1.87 times a bond: the positions are probably in Bohr, multiply them by 0.529",
        ),
        ({"positions": WATER / 3}, "atoms overlap"),
        ({"positions": WATER * np.nan}, "must be finite"),
        ({"atomic_numbers": [8, 1, 0]}, "without an element"),
        ({"info": {"charge": 1}}, "says charge 1, and only neutral closed-shell molecules"),
        ({"info": {"total_charge": -1.0}}, "says total_charge -1.0"),
        ({"info": {"multiplicity": 3}}, "says multiplicity 3"),
        ({"info": {"spin": "triplet"}}, "says spin triplet"),
        ({"info": {"spin_multiplicity": 2}}, "says spin_multiplicity 2 (the multiplicity 2S + 1)"),
        ({"atomic_numbers": [7, 1, 1]}, "H2N has an odd number of electrons, 9"),
        ({"initial_charges": [np.nan, 0, 0]}, "initial_charges add up to nan e"),
        ({"initial_charges": [1, 0, 0]}, "initial_charges add up to 1 e"),
        ({"initial_magnetic_moments": [1, 1, 0]}, "initial_magmoms add up to 2 unpaired"),
    ],
)
def test_structures_that_are_refused(changes, message):
    assert message in structure(water(**changes), "a.xyz", 3).refused


def test_structures_that_are_taken():
    stated = {"charge": 0, "spin": 1, "multiplicity": 1.0, "energy": -3.0}
    atoms = water(info=stated, initial_charges=[-0.8, 0.4, 0.4], momenta=np.ones((3, 3)))
    found = structure(atoms, "a.xyz", 3)
    assert (found.refused, found.source) == ("", "a.xyz:3")
    assert found.kinetic == pytest.approx(sum(3 / (2 * mass) for mass in atoms.get_masses()) / HARTREE)
    assert structure(Atoms("He"), "a.xyz", 0).refused == ""


def test_what_the_labeller_refuses():
    found = checked([*frames(2), moved(0.1, symbols="NeHH")], MadeUp())
    assert [entry.refused for entry in found] == ["", "", "Neon cannot be computed."]


def test_layouts():
    assert choose_layout(frames(1)) == "stable"
    assert choose_layout([*frames(1), *frames(1, "b.xyz")]) == "stable"
    assert choose_layout([moved(0.5, "water.xyz", "SHH"), *frames(2)]) == "dynamic"


def test_progress(tmp_path):
    structures, calls = [*frames(2), moved(6.0)], []
    with LabelFile(tmp_path / "a.db", record(structures, MadeUp())) as file:
        label_structures(structures, MadeUp(), file, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_processes_make_the_same_file(tmp_path):
    structures = [*frames(9), moved(6.0), moved(4.0)]
    for jobs in (1, 2):
        report = make(tmp_path / f"{jobs}.db", structures, MadeUp(), jobs)
        assert (report.labelled, report.failed) == (9, 2)
    assert content(tmp_path / "1.db") == content(tmp_path / "2.db")


@pytest.mark.slow
def test_a_structure_that_kills_its_process(tmp_path):
    """It is noted, and the next time the others go on without it."""
    structures = [*frames(3), moved(9.0), *frames(3, "b.xyz", start=5)]
    with pytest.raises(MlipError, match=r"The process that computed bad.xyz:0 was killed.*--jobs 1"):
        make(tmp_path / "a.db", structures, MadeUp(), 2)
    report = make(tmp_path / "a.db", structures, MadeUp(), 2)
    assert report.failed == 0
    rows = content(tmp_path / "a.db")["mlip_structures"]
    assert [row[7] for row in rows] == ["labelled"] * 3 + ["failed"] + ["labelled"] * 3
    assert "killed" in rows[3][8]


def labelled(path):
    """Count the rows that are there, whoever writes."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        return connection.execute("SELECT count(*) FROM data").fetchone()[0]
    except sqlite3.Error:
        return 0  # Not there yet, or just being written.
    finally:
        connection.close()


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path):
    structures = frames(30)
    make(tmp_path / "whole.db", structures, MadeUp(), 1)
    path = tmp_path / "a.db"
    path.touch()
    before = 0
    for _ in range(2):
        slowly = (path, structures, MadeUp(seconds=0.1), 2)
        process = multiprocessing.get_context("spawn").Process(target=make, args=slowly)
        process.start()
        while labelled(path) < before + 4:
            assert process.is_alive()
            time.sleep(0.02)
        process.kill()
        process.join()
        before = labelled(path)
    assert before < 30
    make(path, structures, MadeUp(), 1)
    assert content(path) == content(tmp_path / "whole.db")
