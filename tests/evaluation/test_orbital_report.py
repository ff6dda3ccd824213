"""What is collected over molecules: means, rows, who is left out, and pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mlip.core.errors import DataError
from mlip.data import pyscf_extra
from mlip.data.build_graph import graph_of
from mlip.data.orbitals import num_orbitals
from mlip.evaluation import orbital_report, parity_points
from mlip.evaluation.metrics import ErrorStatistics
from mlip.evaluation.orbital_plots import MatrixPicture, matrix_plot
from mlip.evaluation.orbital_report import COLUMNS, OrbitalReport
from mlip.evaluation.parity_points import ParityPoints
from mlip.evaluation.predict import predict_each
from mlip.evaluation.report import predicted_frame
from tests.evaluation.orbital_cases import BASIS, metric, predictions, sample, small_qhnet, waters

SHIFT = 0.002


def matrix(atoms: Atoms, seed: int = 1) -> np.ndarray:
    size = num_orbitals(atoms.numbers, BASIS)
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return noise + noise.T


def shifted(atoms: Atoms, shift: float, source: str = "a.db:0", **labels):
    """Return a sample and a prediction whose orbitals are all too high by the same energy."""
    overlap, true = metric(atoms), matrix(atoms)
    return sample(atoms, source, hamiltonian=true, overlap=overlap, **labels), {"hamiltonian": true + shift * overlap}


def test_a_shift_of_all_orbitals(tmp_path: Path):
    """H + c S has the orbitals of H, each higher by c."""
    report = OrbitalReport(BASIS)
    molecules = waters(3)
    for k, atoms in enumerate(molecules):
        report.add(*shifted(atoms, (k - 1) * SHIFT, f"a.db:{k}"))
    errors = report.errors()
    mean = 1e6 * SHIFT * 2 / 3
    for key in ("occupied_energies_mae_uEh", "homo_mae_uEh", "lumo_mae_uEh"):
        assert errors[key] == pytest.approx(mean, rel=1e-9), key
    assert errors["gap_mae_uEh"] == pytest.approx(0, abs=1e-6)
    for key in ("similarity_percent", "similarity_cosine_percent", "similarity_subspace_percent"):
        assert errors[key] == pytest.approx(100, abs=1e-9)
    assert errors["hamiltonian_mae_uEh"] == pytest.approx(mean * np.abs(metric(molecules[0])).mean())
    assert set(errors) == {column.key for column in COLUMNS} - {"total_energy_mae_uEh", "dipole_mae_Debye"}
    report.write(tmp_path)
    with (tmp_path / "orbitals.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["source"] for row in rows] == ["a.db:0", "a.db:1", "a.db:2"]
    assert [float(row["homo_error_uEh"]) for row in rows] == pytest.approx([-2000, 0, 2000], abs=1e-6)
    assert rows[0]["formula"] == "H2O"
    assert (rows[0]["orbitals"], rows[0]["electrons"]) == ("24", "10")
    assert float(rows[2]["homo_predicted_Eh"]) - float(rows[2]["homo_Eh"]) == pytest.approx(SHIFT, abs=1e-8)
    assert not (tmp_path / "matrices.png").exists(), "nothing to look at again"
    occupied, frontier = report.panels()
    assert (occupied.count, frontier.count) == (15, 6)
    assert frontier.group.tolist() == ["HOMO", "LUMO"] * 3
    assert 1e6 * occupied.mae == pytest.approx(mean)


def test_the_mean_over_molecules_is_that_of_the_statistics():
    """Molecules of different size count the same, here and in `ErrorStatistics` and in the plot."""
    molecules = [waters(1)[0], Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]]), *waters(1)]
    model, samples, graphs = small_qhnet(), [], []
    for k, (atoms, predicted) in enumerate(zip(molecules, predictions(molecules), strict=True)):
        label = predicted["hamiltonian"] + (k + 1) * 1e-3 * matrix(atoms)
        samples.append(sample(atoms, f"a.db:{k}", hamiltonian=label, overlap=metric(atoms)))
        graphs.append(graph_of(atoms, model.graph_builder, {"hamiltonian": label}))
    statistics, report, points = ErrorStatistics(["hamiltonian"]), OrbitalReport(BASIS), ParityPoints()
    for one, (graph, predicted) in zip(
        samples, predict_each(model, graphs, ("hamiltonian",), statistics=statistics), strict=True
    ):
        report.add(one, predicted)
        points.add(graph, predicted)
        assert "hamiltonian" not in predicted_frame(one, predicted).info
    expected = statistics.compute()
    assert report.errors()["hamiltonian_mae_uEh"] == pytest.approx(expected["hamiltonian_mae_uEh"], rel=1e-9)
    (panel,) = points.panels()
    assert 1e6 * panel.mae == pytest.approx(expected["hamiltonian_mae_uEh"], rel=1e-9)
    assert 1e6 * panel.rmse == pytest.approx(expected["hamiltonian_rmse_uEh"], rel=1e-9)
    assert panel.unit == "Eh"
    assert panel.count == 2 * 24 * 25 // 2 + 28 * 29 // 2
    assert report.median_and_worst() == [("Median", 1), ("Worst", 2)]


def test_of_many_entries_some_are_kept_and_all_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parity_points, "MOST_ENTRIES", 500)
    (atoms,) = waters(1)
    graph = graph_of(atoms, small_qhnet().graph_builder, {"hamiltonian": matrix(atoms)})
    points = ParityPoints()
    for _ in range(5):
        points.add(graph, {"hamiltonian": matrix(atoms) + 0.001})
    (panel,) = points.panels()
    assert panel.count == 1500
    assert 250 <= len(panel.reference) <= 500
    assert panel.mae == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("symbols", "labels", "reason"),
    [("OH2", {"charge": 2}, "charged"), ("OH", {}, "open-shell"), ("OH2", {"spin": 3}, "open-shell")],
)
def test_charged_and_open_shells_have_errors_of_matrices_only(tmp_path: Path, symbols: str, labels, reason: str):
    atoms = Atoms(symbols, positions=waters(1)[0].positions[: len(Atoms(symbols))])
    report = OrbitalReport(BASIS)
    report.add(*shifted(atoms, SHIFT, "b.db:7", **labels))
    assert report.left_out() == {reason: ["b.db:7"]}
    assert set(report.errors()) == {column.key for column in COLUMNS[:3]}
    assert report.record()["molecules_with_orbitals"] == 0
    assert report.panels() == []
    report.write(tmp_path)
    (row,) = csv.DictReader((tmp_path / "orbitals.csv").read_text().splitlines())
    assert (row["left_out"], row["homo_Eh"]) == (reason, "")


def test_without_overlaps(monkeypatch: pytest.MonkeyPatch):
    """PySCF makes them; without PySCF there are errors of matrices only."""
    (atoms,) = waters(1)
    one, predicted = shifted(atoms, SHIFT)
    del one.labels["overlap"]
    monkeypatch.setattr(orbital_report, "overlap", lambda numbers, positions, basis: metric(atoms))
    with monkeypatch.context() as there:
        there.setattr(orbital_report, "has_pyscf", lambda: True)
        report = OrbitalReport(BASIS)
        report.add(one, predicted)
    assert report.errors()["homo_mae_uEh"] == pytest.approx(1e6 * SHIFT)
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    report = OrbitalReport(BASIS)
    report.add(one, predicted)
    assert report.left_out() == {"no overlap in the data, and PySCF is not installed": ["a.db:0"]}
    assert "homo_mae_uEh" not in report.errors()


def test_data_that_are_refused():
    (atoms,) = waters(1)
    one, predicted = shifted(atoms, SHIFT)
    with pytest.raises(
        DataError, match=r"a\.db:0: its matrices are in def2-SVP, the model predicts them in def2-tzvp\."
    ):
        OrbitalReport("def2-tzvp").add(one, predicted)
    one.labels["overlap"] = -one.labels["overlap"]
    with pytest.raises(DataError, match=r"a\.db:0: The overlap of orbitals must be positive definite"):
        OrbitalReport(BASIS).add(one, predicted)
    one, predicted = shifted(atoms, SHIFT)
    del one.info["functional"]
    with pytest.raises(DataError, match=r"a\.db:0: total energies need the functional of the data"):
        OrbitalReport(BASIS, energies=True).add(one, predicted)


def test_an_atom_has_no_blocks_of_two_atoms():
    report = OrbitalReport(BASIS)
    report.add(*shifted(Atoms("O"), SHIFT))
    assert "hamiltonian_off_diagonal_mae_uEh" not in report.errors()


def test_pictures_of_the_median_and_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pairs = [shifted(atoms, shift, f"a.db:{k}") for k, (atoms, shift) in enumerate(zip(waters(3), (3e-3, 1e-3, 2e-3)))]
    asked: list[int] = []
    drawn: list[MatrixPicture] = []
    monkeypatch.setattr(orbital_report, "matrix_plot", lambda path, pictures: drawn.extend(pictures))

    def look_again(indices):
        asked.extend(indices)
        return [pairs[index] for index in indices]

    report = OrbitalReport(BASIS, look_again=look_again)
    for one, predicted in pairs:
        report.add(one, predicted)
    report.write(tmp_path)
    assert asked == [2, 0]
    assert [picture.title for picture in drawn] == ["Median molecule: H2O, a.db:2", "Worst molecule: H2O, a.db:0"]
    assert np.array_equal(drawn[1].predicted, pairs[0][1]["hamiltonian"])
    with pytest.raises(DataError, match="no molecule"):
        matrix_plot(tmp_path / "none.png", [])


def test_a_picture_of_a_perfect_prediction_and_of_zeros(tmp_path: Path):
    """No scale of zero width, and no labels where there are too many atoms for them."""
    atom = np.arange(30)
    picture = MatrixPicture("title", ["H"] * 30, atom, np.zeros((30, 30)), np.zeros((30, 30)))
    matrix_plot(tmp_path / "zero.png", [picture])
    assert (tmp_path / "zero.png").stat().st_size > 5000
