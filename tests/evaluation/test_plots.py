"""Plots: the panels that the data allow, the numbers of `ErrorStatistics`, and clear refusals."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from matplotlib.figure import Figure

from mlip.core.errors import DataError, MlipError
from mlip.data.build_graph import build_graph
from mlip.evaluation import parity_points, plots
from mlip.evaluation.learning_curve import learning_curve_plot, read_curves, smooth
from mlip.evaluation.metrics import ErrorStatistics
from mlip.evaluation.parity_points import Panel
from mlip.evaluation.plots import parity_plot
from mlip.evaluation.predict import predict_dataset
from tests.components import small_facet
from tests.evaluation.labelled import labelled_graph, structures

MODEL = small_facet()


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """Panels that were drawn, in order."""
    found: list[Panel] = []
    draw = plots._draw

    def spy(parity: object, residual: object, panel: Panel) -> None:
        found.append(panel)
        draw(parity, residual, panel)

    monkeypatch.setattr(plots, "_draw", spy)
    return found


def test_panels_show_the_errors_of_the_table(tmp_path: Path, drawn: list[Panel]) -> None:
    atoms = structures(3, periodic=True)
    graphs = [labelled_graph(MODEL, a, energy=0.01 * k, force=0.02) for k, a in enumerate(atoms)]
    graphs[0].forces[0] = np.nan
    statistics = ErrorStatistics()
    predictions = predict_dataset(MODEL, graphs, ("energy", "forces", "stress"), statistics=statistics)
    parity_plot(tmp_path / "parity.png", graphs, predictions, "a title")
    assert is_png(tmp_path / "parity.png")
    errors = statistics.compute()
    keys = ("energy_rmse_meV_per_atom", "forces_rmse_meV_per_A", "stress_rmse_meV_per_A3")
    for panel, key in zip(drawn, keys, strict=True):
        rmse = 1e3 * np.sqrt(((panel.predicted - panel.reference) ** 2).mean())
        assert rmse == pytest.approx(errors[key], rel=1e-9, abs=1e-9)
    assert set(drawn[1].group) == {"H", "C", "O"}


def test_unlabelled_fields_have_no_panel(tmp_path: Path, drawn: list[Panel]) -> None:
    graphs = [labelled_graph(MODEL, atoms) for atoms in structures(2)]
    parity_plot(tmp_path / "p.png", graphs, predict_dataset(MODEL, graphs, ("energy", "forces", "stress")))
    assert [panel.unit for panel in drawn] == ["eV/atom", "eV/Å"]


def test_errors_of_matrices_are_in_microhartree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the tables and in the papers on QH9."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_png", lambda figure, path: figures.append(figure))
    matrix = np.diag([-19.0, 0.5])
    graph = build_graph(Atoms("H"), MODEL.cutoff, {"hamiltonian": matrix})
    parity_plot(tmp_path / "p.png", [graph], [{"hamiltonian": matrix + 1e-4 * np.eye(2)}])
    parity, residual = figures[0].axes
    assert "Entries of the Hamiltonian\nRMSE 70.7, MAE 50 µEh" in parity.get_title()
    assert (parity.get_ylabel(), residual.get_ylabel()) == ("predicted / Eh", "error / µEh")
    assert residual.collections[0].get_offsets()[:, 1].max() == pytest.approx(100)


def test_many_points_become_a_density(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "DENSE", 10)
    graphs = [labelled_graph(MODEL, atoms, force=0.01) for atoms in structures(3)]
    parity_plot(tmp_path / "p.png", graphs, predict_dataset(MODEL, graphs))
    assert is_png(tmp_path / "p.png")


def test_of_too_many_points_some_are_drawn_and_all_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [labelled_graph(MODEL, atoms, force=0.01 * k) for k, atoms in enumerate(structures(9))]
    graphs[2].forces[1] = np.nan
    predictions = predict_dataset(MODEL, graphs)
    found = {}
    for most in (1_000_000, 40):
        monkeypatch.setattr(parity_points, "MOST", most)
        points = parity_points.ParityPoints()
        for graph, prediction in zip(graphs, predictions, strict=True):
            points.add(graph, prediction)
        found[most] = points.panels()
    for whole, some in zip(found[1_000_000], found[40], strict=True):
        assert (some.count, some.rmse, some.mae) == (whole.count, whole.rmse, whole.mae)
    whole, some = found[1_000_000][1], found[40][1]
    assert whole.count == len(whole.reference) == 3 * (3 * (9 + 6 + 3) - 1)
    assert 20 <= len(some.reference) <= 40
    assert np.array_equal(some.reference, whole.reference[::4])
    assert np.array_equal(some.group, whole.group[::4])
    plots.draw_parity(tmp_path / "p.png", points.panels())
    assert is_png(tmp_path / "p.png")


def test_a_single_atom_can_be_drawn(tmp_path: Path) -> None:
    graph = build_graph(Atoms("H"), MODEL.cutoff, {"energy": np.array(-13.6)})
    parity_plot(tmp_path / "p.png", [graph], predict_dataset(MODEL, [graph]))
    assert is_png(tmp_path / "p.png")


def test_nothing_to_plot_is_said(tmp_path: Path) -> None:
    graphs = [build_graph(atoms, MODEL.cutoff) for atoms in structures(2)]
    predictions = predict_dataset(MODEL, graphs)
    with pytest.raises(DataError, match="nothing to plot"):
        parity_plot(tmp_path / "p.png", graphs, predictions)
    with pytest.raises(DataError, match="2 structures but 1 predictions"):
        parity_plot(tmp_path / "p.png", graphs, predictions[:1])
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    graphs = [labelled_graph(MODEL, atoms) for atoms in structures(1)]
    with pytest.raises(MlipError, match="Cannot write"):
        parity_plot(tmp_path / "file" / "p.png", graphs, predict_dataset(MODEL, graphs))


TABLE = """step,epoch,lr,train/loss,valid/forces_rmse_meV_per_A,valid/forces_rmse_meV_per_A/C,note
10,1,0.01,5.0,200,210,a
20,2,0.01,,150,,b
20,2,0.005,2.0,140,160,
30,3,0.001,nan,90,100,
"""


def test_learning_curve(tmp_path: Path) -> None:
    table = tmp_path / "log.csv"
    table.write_text(TABLE)
    curves = read_curves(table)
    np.testing.assert_array_equal(curves["valid/forces_rmse_meV_per_A"], [[10, 20, 30], [200, 140, 90]])
    np.testing.assert_array_equal(curves["train/loss"], [[10, 20], [5, 2]])
    assert "note" not in curves
    learning_curve_plot(tmp_path / "curve.png", table, "run")
    assert is_png(tmp_path / "curve.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no table of metrics"),
        ("a,b\n1,2\n", "no column 'step'"),
        ("step,x\n", "no numbers"),
        ("step,x\n1,2\n", "known"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str | None, message: str) -> None:
    table = tmp_path / "log.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(DataError, match=message):
        learning_curve_plot(tmp_path / "curve.png", table)


def test_smoothing_keeps_a_constant() -> None:
    steps, values = smooth(np.arange(1000.0), np.full(1000, 3.0))
    assert len(steps) == 100
    np.testing.assert_allclose(values, 3.0)
