"""Batched predictions equal single ones, in order, and bad ones are refused."""

import numpy as np
import pytest
import torch
from ase import Atoms

from mlip.core.errors import DataError, StructureError
from mlip.data.build_graph import build_graph
from mlip.evaluation.metrics import ErrorStatistics
from mlip.evaluation.predict import by_edges, predict_dataset
from mlip.nn.derivatives import predict
from tests.components import small_facet
from tests.evaluation.labelled import labelled_graph, structures

MODEL = small_facet()
FIELDS = ("energy", "forces", "stress")


def test_batched_equals_single_in_the_order_given() -> None:
    graphs = [build_graph(atoms, MODEL.cutoff) for atoms in structures(4) + structures(3, periodic=True)]
    done: list[int] = []
    found = predict_dataset(MODEL, graphs, FIELDS, max_edges=300, progress=done.append)
    assert sum(done) == len(graphs)
    assert len(done) > 1
    for graph, prediction in zip(graphs, found, strict=True):
        single = predict(MODEL, graph, FIELDS)
        assert prediction["energy"] == pytest.approx(single["energy"].item(), abs=1e-9)
        np.testing.assert_allclose(prediction["forces"], single["forces"], atol=1e-9)
        np.testing.assert_allclose(prediction["stress"], single["stress"][0], atol=1e-11)


def test_errors_are_those_that_were_put_in() -> None:
    graphs = [labelled_graph(MODEL, atoms, energy=0.009, force=0.02) for atoms in structures(3)]
    statistics = ErrorStatistics()
    predict_dataset(MODEL, graphs, ("energy", "forces"), statistics=statistics)
    errors = statistics.compute()
    assert errors["energy_mae_meV"] == pytest.approx(9.0, abs=1e-5)
    atoms = np.array([9, 6, 3])
    assert errors["energy_rmse_meV_per_atom"] == pytest.approx(np.sqrt(((9.0 / atoms) ** 2).mean()), abs=1e-5)
    assert errors["forces_rmse_meV_per_A"] == pytest.approx(20.0, abs=1e-5)
    assert errors["forces_mae_meV_per_A/O"] == pytest.approx(20.0, abs=1e-5)
    assert "stress_rmse_meV_per_A3" not in errors


def test_molecules_have_no_stress_error() -> None:
    crystal, gas = structures(1, periodic=True)[0], structures(1)[0]
    zero = {"energy": np.array(0.0), "forces": np.zeros((len(gas), 3)), "stress": np.zeros((3, 3))}
    graphs = [labelled_graph(MODEL, crystal), build_graph(gas, MODEL.cutoff, zero)]
    statistics = ErrorStatistics(["stress"])
    predict_dataset(MODEL, graphs, ["stress"], statistics=statistics)
    assert statistics.counts()["stress"] == {"labelled": 9, "missing": 9}


def test_groups_respect_the_budget_and_lose_nothing() -> None:
    graphs = [build_graph(atoms, 4.0) for atoms in structures(9)]
    cost = [graph.edge_index.shape[1] + graph.positions.shape[0] for graph in graphs]
    groups = list(by_edges(graphs, 100))
    assert [id(graph) for group in groups for graph in group] == [id(graph) for graph in graphs]
    start = 0
    for group in groups:
        assert len(group) == 1 or sum(cost[start : start + len(group)]) <= 100
        start += len(group)
    assert list(by_edges([], 100)) == []


def test_unknown_element_and_nan_are_refused() -> None:
    with pytest.raises(StructureError, match="contains S"):
        predict_dataset(MODEL, [build_graph(Atoms("S"), MODEL.cutoff)])
    broken = small_facet()
    with torch.no_grad():
        broken.embedding.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite for structure 0"):
        predict_dataset(broken, [build_graph(structures(1)[0], broken.cutoff)])
