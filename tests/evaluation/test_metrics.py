"""Errors do not depend on batching, skip only missing labels, and equal their definition."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError, DataError
from mlip.data.build_graph import build_graph
from mlip.data.graph import AtomGraph
from mlip.evaluation.metrics import ErrorStatistics, error_keys, error_unit, headline

NAN = math.nan


def make(seed: int, number: int, stress: bool = True) -> tuple[AtomGraph, dict[str, torch.Tensor]]:
    """A labelled periodic structure and predictions with random errors."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(
        rng.choice(["H", "C", "O"], size=number).tolist(),
        rng.uniform(0, 6, (number, 3)),
        cell=[6, 6, 6],
        pbc=True,
    )
    labels = {"energy": rng.normal(), "forces": rng.normal(size=(number, 3))}
    if stress:
        labels["stress"] = rng.normal(size=(3, 3))
    graph = build_graph(atoms, 2.0, labels)
    predictions = {
        "energy": graph.energy + torch.from_numpy(rng.normal(size=1)),
        "forces": graph.forces + torch.from_numpy(rng.normal(size=(number, 3))),
        "stress": torch.from_numpy(rng.normal(size=(1, 3, 3))),
    }
    return graph, predictions


def joined(
    parts: list[tuple[AtomGraph, dict[str, torch.Tensor]]],
) -> tuple[dict[str, torch.Tensor], AtomGraph]:
    graphs, predictions = zip(*parts)
    return {key: torch.cat([p[key] for p in predictions]) for key in predictions[0]}, Batch.from_data_list(list(graphs))


def test_errors_equal_their_definition() -> None:
    parts = [make(0, 3), make(1, 7)]
    statistics = ErrorStatistics()
    statistics.update(*joined(parts))
    found = statistics.compute()
    energy = np.array([(p["energy"] - g.energy).item() for g, p in parts])
    sizes = np.array([3, 7])
    forces = np.concatenate([(p["forces"] - g.forces).numpy() for g, p in parts])
    stress = np.concatenate([(p["stress"] - g.stress).numpy() for g, p in parts])
    numbers = np.concatenate([g.atomic_numbers.numpy() for g, _ in parts])
    assert found["energy_mae_meV"] == pytest.approx(1e3 * np.abs(energy).mean())
    assert found["energy_rmse_meV"] == pytest.approx(1e3 * np.sqrt((energy**2).mean()))
    assert found["energy_mae_meV_per_atom"] == pytest.approx(1e3 * np.abs(energy / sizes).mean())
    assert found["energy_rmse_meV_per_atom"] == pytest.approx(1e3 * np.sqrt(((energy / sizes) ** 2).mean()))
    assert found["forces_mae_meV_per_A"] == pytest.approx(1e3 * np.abs(forces).mean())
    assert found["forces_rmse_meV_per_A"] == pytest.approx(1e3 * np.sqrt((forces**2).mean()))
    assert found["stress_rmse_meV_per_A3"] == pytest.approx(1e3 * np.sqrt((stress**2).mean()))
    for symbol, z in (("H", 1), ("C", 6), ("O", 8)):
        if (numbers == z).any():
            expected = 1e3 * np.sqrt((forces[numbers == z] ** 2).mean())
            assert found[f"forces_rmse_meV_per_A/{symbol}"] == pytest.approx(expected)
    assert len(statistics.elements()) == len(set(numbers.tolist()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=6), data=st.data())
def test_independent_of_batching_and_of_processes(sizes: list[int], data: st.DataObject) -> None:
    parts = [make(seed, number, stress=seed % 2 == 0) for seed, number in enumerate(sizes)]
    for graph, _ in parts:
        if graph.get("stress") is None:
            graph.stress = torch.full((1, 3, 3), NAN, dtype=torch.float64)
    whole = ErrorStatistics()
    whole.update(*joined(parts))
    cut = data.draw(st.integers(1, len(parts) - 1))
    first, second = ErrorStatistics(), ErrorStatistics()
    first.update(*joined(parts[:cut]))
    for graph, predictions in parts[cut:]:
        second.update(predictions, graph)
    first.merge(second.state())
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert first.counts() == whole.counts()


def test_missing_labels_are_skipped_counted_and_never_zero() -> None:
    graph, predictions = make(2, 4, stress=False)
    graph.forces[1, 2] = NAN
    statistics = ErrorStatistics()
    statistics.update(predictions, graph)
    found = statistics.compute()
    assert not any(key.startswith("stress") for key in found)
    assert statistics.counts()["stress"] == {"labelled": 0, "missing": 9}
    assert statistics.counts()["forces"] == {"labelled": 11, "missing": 1}
    error = (predictions["forces"] - graph.forces).flatten()
    assert found["forces_mae_meV_per_A"] == pytest.approx(1e3 * error[~error.isnan()].abs().mean().item())


def test_a_nan_prediction_is_not_hidden() -> None:
    graph, predictions = make(3, 4)
    predictions["forces"][0, 0] = NAN
    statistics = ErrorStatistics()
    statistics.update(predictions, graph)
    assert math.isnan(statistics.compute()["forces_rmse_meV_per_A"])


def test_float32_predictions_of_large_energies_lose_nothing_more() -> None:
    graph, predictions = make(4, 4)
    graph.energy = torch.tensor([-4e4 + 0.001], dtype=torch.float64)
    predictions["energy"] = torch.tensor([-4e4], dtype=torch.float32)
    statistics = ErrorStatistics(["energy"])
    statistics.update(predictions, graph)
    assert statistics.compute()["energy_mae_meV"] == pytest.approx(1.0, rel=1e-6)


def test_nothing_added_gives_nothing_and_reset_forgets() -> None:
    graph, predictions = make(5, 2)
    statistics = ErrorStatistics()
    assert statistics.compute() == {}
    statistics.update(predictions, graph)
    statistics.reset()
    assert statistics.compute() == {}


def test_fields_without_a_unit_are_reported_as_they_are() -> None:
    graph, _ = make(7, 3)
    graph.class_scores = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    graph.chirality = torch.tensor([NAN], dtype=torch.float64)
    statistics = ErrorStatistics()
    scores = torch.tensor([[0.7, 0.0, 0.4]], dtype=torch.float64)
    statistics.update({"class_scores": scores, "chirality": torch.ones(1, dtype=torch.float64)}, graph)
    assert statistics.compute() == pytest.approx(
        {"class_scores_mae": 0.7 / 3, "class_scores_rmse": math.sqrt(0.25 / 3)}, rel=1e-12
    )
    assert statistics.counts() == {
        "class_scores": {"labelled": 3, "missing": 0},
        "chirality": {"labelled": 0, "missing": 1},
    }


@pytest.mark.parametrize(
    ("group", "unit", "size", "rmse"),
    [
        ("energy", "meV", 1e-3, "energy_rmse_meV"),
        ("energy_per_atom", "meV/atom", 1e-3, "energy_rmse_meV_per_atom"),
        ("forces/C", "meV/Å", 1e-3, "forces_rmse_meV_per_A/C"),
        ("stress", "meV/Å³", 1e-3, "stress_rmse_meV_per_A3"),
        ("chirality", "", 1.0, "chirality_rmse"),
    ],
)
def test_units_and_keys(group: str, unit: str, size: float, rmse: str) -> None:
    assert error_unit(group) == (unit, size)
    assert error_keys(group)[1] == rmse
    assert headline("energy") == "energy_per_atom"
    assert headline("chirality") == "chirality"


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'forces'"):
        ErrorStatistics(["force"])
    graph, predictions = make(6, 3)
    predictions["forces"] = predictions["forces"][:2]
    with pytest.raises(DataError, match=r"shape \(3, 3\)"):
        ErrorStatistics().update(predictions, graph)
