"""``mlip data label`` as a user calls it, on hydrogen in the smallest basis."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.core.errors import MlipError
from mlip.data import pyscf_extra
from mlip.data.datasets.ase_db import AseDbDataset
from mlip.data.datasets.qh9 import QH9Dataset

CHEAP = ["--xc", "hf", "--basis", "sto-3g", "--grid-level", "0", "--conv-tol", "1e-10", "--jobs", "1"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    pytest.importorskip("pyscf")
    monkeypatch.chdir(tmp_path)
    ase.io.write("h2.xyz", [hydrogen(length) for length in (0.7, 0.74, 0.8)])


def hydrogen(length: float, **options) -> Atoms:
    return Atoms("H2", positions=[[0, 0, 0], [0, 0, length]], **options)


def label(*words: object) -> str:
    result = CliRunner().invoke(app, ["data", "label", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*words: object) -> str:
    """Return the sentence that a user reads."""
    result = CliRunner().invoke(app, ["data", "label", *map(str, words)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("Error: ")
    return result.stderr[len("Error: ") :]


def test_hamiltonians(tmp_path):
    """Hartree-Fock in a minimal basis: the published energy of H2 at 1.4 Bohr is -1.1167 Hartree."""
    ase.io.write("one.xyz", hydrogen(1.4 * 0.52917721))
    output = label("h2.xyz", "one.xyz", "--out", "new/h2.db", "--forces", "--licence", "CC0-1.0", *CHEAP)
    assert "4 computed; 4 labelled in new/h2.db" in output
    words = "data=qh9 data.path=new/h2.db data.split.by=random model=qhnet 'loss=[hamiltonian]' cutoff=15"
    assert f"Next: mlip train {words}\n" in output
    data = QH9Dataset("new/h2.db")
    assert [sample.info["group"] for sample in data] == ["0", "0", "0", "1"]
    assert float(data[3].labels["energy"]) / 27.211386 == pytest.approx(-1.1167, abs=5e-5)
    assert data[0].labels["hamiltonian"].shape == (2, 2)
    # Published orbital energies: -0.578 and 0.671; the overlap is 0.6593.
    matrix = data[3].labels["hamiltonian"]
    assert (matrix[0, 0] + matrix[0, 1]) / 1.6593 == pytest.approx(-0.578, abs=2e-3)
    assert (matrix[0, 0] - matrix[0, 1]) / 0.3407 == pytest.approx(0.671, abs=2e-3)
    assert data.licence == "CC0-1.0"
    output = label("h2.xyz", "one.xyz", "--out", "new/h2.db", "--forces", *CHEAP)
    assert "0 computed, 4 were there; 4 labelled in new/h2.db" in output


def test_energies_and_forces_for_potentials():
    output = label("h2.xyz", "--out", "train.xyz", "--forces", *CHEAP)
    assert "Next: mlip train data.path=train.xyz" in output
    frames = ase.io.read("train.xyz", ":")
    energies = [frame.get_potential_energy() for frame in frames]
    forces = [frame.get_forces()[1, 2] for frame in frames]
    # The bond is stretched at the end and pressed at the beginning; the mean force is the slope between.
    assert forces[0] > 0 > forces[2]
    middle = -(energies[2] - energies[0]) / 0.1
    assert middle == pytest.approx((forces[0] + 4 * np.interp(0.75, [0.7, 0.74, 0.8], forces) + forces[2]) / 6, abs=0.1)
    ase.io.write("more.xyz", hydrogen(1.2))
    label("more.xyz", "--out", "train.xyz", "--forces", "--any-distance", *CHEAP)
    again = ase.io.read("train.xyz", ":")
    assert len(again) == 4
    assert [frame.get_potential_energy() for frame in again[:3]] == energies


def test_a_database_of_ase():
    for _ in range(2):
        output = label("h2.xyz", "--out", "train.aselmdb", *CHEAP)
        words = "data=ase_db data.path=train.aselmdb 'data.dataset.labels=[energy]' 'loss=[energy]'"
        assert f"Next: mlip train {words}\n" in output
    data = AseDbDataset("train.aselmdb", labels=["energy"], optional_labels=[])
    assert [set(sample.labels) for sample in data] == [{"energy"}] * 3
    assert -31 < float(data[0].labels["energy"]) < -30


def test_failures_are_told_and_the_others_go_on():
    frames = [hydrogen(0.74), hydrogen(0.75, pbc=True), hydrogen(0.76, info={"charge": 1})]
    ase.io.write("mixed.xyz", frames)
    message = refusal("mixed.xyz", *CHEAP)
    assert message.startswith(
        "mixed.xyz:1: The structure is periodic along a, b, c, and only neutral closed-shell molecules"
    )
    assert "2 of 3 structures cannot be computed; --on-error skip leaves them out." in message
    output = label("mixed.xyz", "--on-error", "skip", *CHEAP)
    assert "1 computed; 1 labelled in mixed_labels.db" in output
    assert "2 could not be computed:" in output
    assert "mixed.xyz:2: The structure says charge 1" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["h2.xyz", "--basis", "def2-svpq"], r"PySCF knows no basis 'def2-svpq'\. Did you mean 'def2-svp'\?"),
        (["h2.xyz", "--xc", "b3lyq5"], r"PySCF knows no functional 'b3lyq5'\. Did you mean 'b3lyp5'\?"),
        (["h2.xyz", "--method", "pyscv"], r"There is no method 'pyscv' .*Did you mean 'pyscf'\? Known: pyscf\."),
        (["h2.xyz", "--method", "own.yaml"], r"There is no method 'own.yaml'"),
        (["h2.xyz", "--method", "empty.yaml"], r"must have a _target_ that is a Labeller"),
        (["h2.xyz", "--grid-level", "12"], "grid_level must be 0 to 9"),
        (["h2.xyz", "--out", "store"], r"--out must end with \.db, \.extxyz, .* mlip data prepare FILE\.db out=FOLDER"),
        (["h2.xyz", "--out", "h2.xyz"], "'h2.xyz' is both read and written"),
        (["h2.xyz", "--out", "taken.xyz"], "'taken.xyz' is there already, and was not made by this command"),
        (["h2.xyz", "--out", "empty.yaml/h2.db"], "Cannot write 'empty.yaml/h2.db'"),
        (["h2.xyz", "--any-distance"], "readers of a .db refuse such molecules"),
        (["missing.xyz"], "There is no structure file 'missing.xyz'"),
        (["empty.yaml"], "is empty"),
        (["radical.xyz"], r"radical.xyz:0: .*odd number of electrons.* None of the 2 structures is usable\."),
        (["bohr.xyz"], "bohr.xyz:0: The closest atoms are 1.398 Å apart, .* probably in Bohr"),
        (["uranium.xyz", "--basis", "6-31g"], "uranium.xyz:0: The basis 6-31g has no orbitals for U"),
        (["h2.xyz", "--max-cycle", "1", "--conv-tol", "1e-14"], "None of the structures could be computed; h2.xyz:0: "),
    ],
)
def test_refusals(words, message, tmp_path):
    (tmp_path / "empty.yaml").touch()
    ase.io.write("taken.xyz", hydrogen(0.7))
    ase.io.write("radical.xyz", [Atoms("OH", positions=[[0, 0, 0], [0, 0, length]]) for length in (0.95, 0.97)])
    ase.io.write("bohr.xyz", hydrogen(0.74 / 0.5291772))
    ase.io.write("uranium.xyz", Atoms("U"))
    found = refusal(*words, "--jobs", "1")
    assert re.search(message, found), found
    assert len(found.strip().splitlines()) == 1
    assert "taken.xyz.db" not in {path.name for path in tmp_path.iterdir()}


def test_other_settings_are_refused():
    label("h2.xyz", "--out", "h2.db", *CHEAP)
    cheap = [word.replace("hf", "pbe") for word in CHEAP]
    assert "'h2.db' was made with functional hf (now: pbe)" in refusal("h2.xyz", "--out", "h2.db", *cheap)


def test_without_pyscf(monkeypatch):
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    assert "PySCF is needed for computing labels and not installed: pip install 'mlip-kit[qm]'." in refusal("h2.xyz")


def test_stopped_by_the_user(monkeypatch):
    """What is there can be used, and the file for potentials has it, too."""
    from mlip.data.labelling.kohn_sham import KohnShamLabeller

    compute, calls = KohnShamLabeller.compute, []

    def stopped(self, *structure):
        calls.append(structure)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(self, *structure)

    monkeypatch.setattr(KohnShamLabeller, "compute", stopped)
    result = CliRunner().invoke(app, ["data", "label", "h2.xyz", "--out", "train.xyz", *CHEAP])
    assert result.exit_code == 130
    assert "Stopped. What is computed is in train.xyz.db; the same command goes on." in result.output
    assert len(ase.io.read("train.xyz", ":")) == 2
    assert "1 computed, 2 were there; 3 labelled in train.xyz" in label("h2.xyz", "--out", "train.xyz", *CHEAP)


def test_a_full_disk_says_so_in_one_sentence(monkeypatch):
    from mlip.data.labelling.label_file import LabelFile

    def full(self, planned, labels):
        raise MlipError("Cannot write 'h2.db': database or disk is full.")

    monkeypatch.setattr(LabelFile, "store", full)
    assert "disk is full" in refusal("h2.xyz", "--out", "h2.db", *CHEAP)


def test_charged_molecules_and_open_shells():
    """UHF/STO-3G of the hydrogen atom is -0.466582 Hartree; H2+ has half of the bond's electrons."""
    ion = hydrogen(1.06, info={"charge": 1, "spin": 2, "step": 7, "uncertainty": 0.25})
    ase.io.write("open.xyz", [Atoms("H", info={"multiplicity": 2}), ion])
    label("open.xyz", "--out", "open.extxyz", "--forces", "--any-distance", *CHEAP)
    atom, found = ase.io.read("open.extxyz", ":")
    assert atom.get_potential_energy() / 27.211386 == pytest.approx(-0.466582, abs=1e-6)
    assert (found.info["charge"], found.info["spin"]) == (1, 2)
    assert (found.info["step"], found.info["uncertainty"]) == (7, 0.25)
    assert found.info["functional"] == "hf"
    assert found.info["program"].startswith("PySCF 2.")
    energies = []
    for sign in (1, -1):
        ase.io.write("moved.xyz", hydrogen(1.06 + sign * 1e-3))
        label("moved.xyz", "--charge", "1", "--spin", "2", "--out", f"moved{sign}.xyz", "--any-distance", *CHEAP)
        energies.append(ase.io.read(f"moved{sign}.xyz").get_potential_energy())
    assert found.get_forces()[1, 2] == pytest.approx(-(energies[0] - energies[1]) / 2e-3, abs=5e-5)
    ase.io.write("radical.xyz", [hydrogen(0.74), Atoms("H"), Atoms("H", info={"spin": 3}), hydrogen(0.8, pbc=True)])
    output = label("radical.xyz", "--out", "r.xyz", "--on-error", "skip", *CHEAP)
    assert "odd number of electrons, 1: state its charge, or the multiplicity (spin=2)" in output
    assert "H with charge 0 has 1 electrons, which cannot have the multiplicity 3" in output
    assert "radical.xyz:3: The structure is periodic, and only molecules can be computed" in output


@pytest.mark.slow
def test_density_fitting_is_close_and_another_level():
    label("h2.xyz", "--out", "plain.xyz", *CHEAP)
    label("h2.xyz", "--out", "fitted.xyz", "--density-fit", "--memory", "500", *CHEAP)
    plain, fitted = (ase.io.read(name).get_potential_energy() for name in ("plain.xyz", "fitted.xyz"))
    assert 0 < abs(plain - fitted) < 0.02
    assert "density_fit True (now: None)" in refusal("h2.xyz", "--out", "fitted.xyz", *CHEAP)
