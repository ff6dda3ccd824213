"""``mlip evaluate`` of a Hamiltonian model as a user runs it, against labels whose errors are known."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.io import read
from typer.testing import CliRunner

from mlip.cli import evaluate
from mlip.cli.evaluate_orbitals import check_energies
from mlip.cli.evaluate_orbitals import orbital_report as orbital_report_of
from mlip.cli.main import app
from mlip.core.errors import ConfigError, DataError
from mlip.data import pyscf_extra
from mlip.data.content_hash import content_hash
from mlip.data.datasets.qh9 import QH9Dataset
from mlip.data.orbitals import reorder
from mlip.data.quantum import overlap
from mlip.data.sample import Sample
from mlip.evaluation import orbital_report, report
from mlip.evaluation.orbital_plots import MatrixPicture
from mlip.evaluation.parity_points import Panel
from mlip.models.model_file import save_model
from tests.calculators.hamiltonian_models import random_hamiltonian_model
from tests.components import small_facet
from tests.data.fixtures.qh9 import BOHR_ANGSTROM, WATER, write_dynamic
from tests.evaluation.orbital_cases import BASIS, predictions, small_qhnet, waters

SHIFT = 0.003


def write_waters(path: Path, shift: float) -> Path:
    """Write QH9 rows whose Hamiltonians are the model's less a multiple of the overlap: all orbitals higher by it."""
    rows: list[tuple[object, ...]] = []
    molecules = waters(4)
    for frame, (atoms, predicted) in enumerate(zip(molecules, predictions(molecules), strict=True)):
        label = predicted["hamiltonian"]
        if shift:
            label = label - shift * overlap(atoms.numbers, atoms.positions, BASIS)
        blobs = struct.pack("<3i", *WATER), (atoms.positions / BOHR_ANGSTROM).tobytes()
        ham = reorder(label, WATER, BASIS, "mlip", "pyscf")
        rows.append((struct.pack("<q", 0), frame, 3, *blobs, 0.0, -76.0, -76.0, 0.0, ham.tobytes(), 1))
    return write_dynamic(path, rows)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in a folder with the small network; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    save_model("model.safetensors", small_qhnet())

    def run(*words: str, status: int = 0) -> str:
        words = ("evaluate", "model.safetensors", "data=qh9", "data.path=water.db", *words)
        if not any("variant" in word for word in words):
            words += ("data.dataset.variant=dynamic_300k",)
        result = CliRunner().invoke(app, words, env={"COLUMNS": "160"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return run


def test_orbitals_that_are_all_too_high(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pyscf")
    drawn: list[Panel] = []
    write_waters(tmp_path / "water.db", SHIFT)
    monkeypatch.setattr(report, "draw_parity", lambda path, panels, title: drawn.extend(panels))
    text = call()
    folder = tmp_path / "evaluate_water"
    content = json.loads((folder / "metrics.json").read_text())
    for key in ("occupied_energies_mae_uEh", "homo_mae_uEh", "lumo_mae_uEh"):
        assert content["errors"][key] == pytest.approx(1e6 * SHIFT, rel=1e-6), key
    assert content["errors"]["gap_mae_uEh"] == pytest.approx(0, abs=1e-3)
    assert content["errors"]["similarity_percent"] == pytest.approx(100, abs=1e-6)
    assert content["orbitals"]["molecules_with_orbitals"] == 4
    for part in ("4 molecules", "off-diagonal", "HOMO", "3,000", "81.6", "100.000", "µEh", "by level"):
        assert part in text, part
    with (folder / "orbitals.csv").open(newline="") as handle:
        assert [float(row["lumo_error_uEh"]) for row in csv.DictReader(handle)] == pytest.approx([3000] * 4, abs=1e-2)
    assert [panel.title.split()[0] for panel in drawn] == ["Entries", "Occupied", "Frontier"]
    assert (folder / "matrices.png").read_bytes()[:4] == b"\x89PNG"
    frames = read(folder / "predictions.xyz", ":")
    assert len(frames) == 4
    assert "hamiltonian" not in frames[0].info


def test_every_sample_is_read_once(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A guess takes PySCF seconds."""
    pytest.importorskip("pyscf")
    computed: list[np.ndarray] = []

    def guess(numbers: np.ndarray, positions: np.ndarray, *level: str) -> np.ndarray:
        computed.append(positions)
        return np.zeros((24, 24))

    write_waters(tmp_path / "water.db", 0.0)
    monkeypatch.setattr("mlip.data.datasets.qh9.initial_hamiltonian", guess)
    drawn: list[MatrixPicture] = []
    monkeypatch.setattr(orbital_report, "matrix_plot", lambda path, pictures: drawn.extend(pictures))
    monkeypatch.setattr(report, "draw_parity", lambda path, panels, title: None)
    save_model("model.safetensors", random_hamiltonian_model("model.onsite=null", "model/target=difference"))
    call("data.dataset.initial_guess=compute")
    assert (len(computed), len(drawn)) == (4, 2)
    found = Path("evaluate_water/metrics.json").read_text()
    # Without room what is drawn is read again, and nothing else changes.
    monkeypatch.setattr(evaluate, "_ROOM", 0)
    call("data.dataset.initial_guess=compute", "--overwrite")
    assert (len(computed), len(drawn)) == (4 + 4 + 2, 4)
    assert all(np.array_equal(one.true, other.true) for one, other in zip(drawn[:2], drawn[2:], strict=True))
    assert Path("evaluate_water/metrics.json").read_text() == found
    # The hash is that of the data set, by which a model knows its training data.
    data = QH9Dataset("water.db", variant="dynamic_300k", initial_guess="compute")
    assert json.loads(found)["sha256"] == content_hash(data)


def test_without_pyscf(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_waters(tmp_path / "water.db", 0.0)
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    monkeypatch.setattr(report, "draw_parity", lambda path, panels, title: None)
    monkeypatch.setattr(orbital_report, "matrix_plot", lambda path, pictures: None)
    text = call()
    assert "Errors of matrices only" in text
    assert "pip install 'mlip-kit[qm]'" in text
    assert "HOMO" not in text
    assert "hamiltonian_mae_uEh" in json.loads(Path("evaluate_water/metrics.json").read_text())["errors"]
    text = call("--energies", "--output", "other", status=1)
    assert "PySCF is needed for --energies" in text
    assert not Path("other").exists()


def test_another_functional(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "draw_parity", lambda path, panels, title: None)
    monkeypatch.setattr(orbital_report, "matrix_plot", lambda path, pictures: None)
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    write_waters(tmp_path / "water.db", 0.0)
    assert "the data were made with b3lyp, the model was trained on b3lyp5" in call("data.dataset.variant=dynamic_100k")


@pytest.mark.parametrize("stated", ["b3lyp5", "pbe", "not stated", None])
def test_an_initial_guess_of_another_functional(stated: str | None):
    """The model would add to a matrix that is tenths of a Hartree from the one that it was trained with."""
    model = SimpleNamespace(fields=("hamiltonian",), basis=BASIS, functional="b3lyp5", needs=("initial_hamiltonian",))
    atoms = waters(1)[0]
    first = Sample(atoms, {}, {"source": "a:0", "basis": BASIS, "functional": "b3lyp5", "initial_functional": stated})
    if stated in ("b3lyp5", None):
        assert orbital_report_of(model, [first], False, 100, None) is not None
    else:
        with pytest.raises(DataError, match=f"a:0: the functional of its initial Hamiltonian is {stated}, the model"):
            orbital_report_of(model, [first], False, 100, None)


def test_energies_are_for_hamiltonians():
    with pytest.raises(ConfigError, match="--energies is for models of Hamiltonians, this one predicts energy"):
        check_energies(small_facet(), energies=True)


@pytest.mark.slow
def test_total_energies_and_dipoles(call, tmp_path: Path):
    """A shift turns no orbital: the same density."""
    pytest.importorskip("pyscf")
    write_waters(tmp_path / "water.db", SHIFT)
    text = call("--energies")
    errors = json.loads(Path("evaluate_water/metrics.json").read_text())["errors"]
    assert errors["total_energy_mae_uEh"] == pytest.approx(0, abs=0.1)
    assert errors["dipole_mae_Debye"] == pytest.approx(0, abs=1e-6)
    assert "Debye" in text


@pytest.mark.reference
@pytest.mark.slow
def test_real_waters(call, reference_data: Path):
    """Against a separate evaluation of the same rows."""
    pytest.importorskip("pyscf")
    path = reference_data / "qh9" / "QH9Dynamic_sample_water.db"
    call(f"data.path={path}", "data.split.by=random", "data.split.train=190", "data.split.valid=5",
         "data.split.test=5", "--subset", "test", "--output", "real")  # fmt: skip
    content = json.loads(Path("real/metrics.json").read_text())
    assert content["orbitals"]["molecules_with_orbitals"] == 5
    assert Path("real/parity.png").read_bytes()[:4] == b"\x89PNG"
    with Path("real/orbitals.csv").open(newline="") as handle:
        homo = np.array([float(row["homo_Eh"]) for row in csv.DictReader(handle)])
    assert ((homo > -0.31) & (homo < -0.27)).all(), "that of water is at -0.29 Eh"
