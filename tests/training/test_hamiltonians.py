"""Training on Hamiltonians: losses and errors against plain formulas, and gates that survive an interruption."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from rich.console import Console
from torch_geometric.data import Batch

from mlip.core.errors import ShapeError, TrainingInterrupted
from mlip.data.build_graph import build_graph
from mlip.data.graph import AtomGraph
from mlip.data.loading import GraphDataset
from mlip.data.sample import Sample
from mlip.evaluation.metrics import ErrorStatistics, error_keys, error_unit
from mlip.evaluation.predict import square_matrices
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.models.model_file import load_model
from mlip.testing.evaluate import evaluate
from mlip.training.checkpoints import LAST, MODEL
from mlip.training.losses.field import FieldLoss
from mlip.training.losses.penalties import L1, L1L2, L2, Penalty
from mlip.training.run import Outcome, Run, train
from tests.models.hamiltonian_cases import configuration
from tests.training.setup import make_run
from tests.training.test_resume import StopAt, assert_same, log_rows

SIZES = (3, 1, 5)


def labelled(sizes: tuple[int, ...] = SIZES) -> tuple[AtomGraph, list[np.ndarray]]:
    """Return a batch with random matrices of several sizes."""
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(n, n)) for n in sizes]
    graphs = [build_graph(molecule("H2"), 2.0, {"hamiltonian": matrix}) for matrix in matrices]
    return Batch.from_data_list(graphs), matrices


def predicted(batch: AtomGraph) -> tuple[dict[str, torch.Tensor], list[np.ndarray]]:
    errors = [np.random.default_rng(n).normal(scale=1e-3, size=(n, n)) for n in SIZES]
    flat = torch.from_numpy(np.concatenate([error.ravel() for error in errors]))
    return {"hamiltonian": batch.hamiltonian + flat, "num_orbitals": batch.num_orbitals}, errors


def test_losses_are_means_over_all_entries() -> None:
    batch, _ = labelled()
    predictions, errors = predicted(batch)
    every = np.concatenate([error.ravel() for error in errors])
    for penalty, expected in ((L1(), np.abs(every)), (L2(), every**2), (L1L2(), np.abs(every) + every**2)):
        loss = FieldLoss("hamiltonian", 1.0, penalty)
        assert float(loss(predictions, batch)) == pytest.approx(expected.mean(), rel=1e-12)
    assert loss.required == ("hamiltonian",)
    with pytest.raises(ShapeError, match="'hamiltonian' of shape"):
        loss({"hamiltonian": predictions["hamiltonian"][1:]}, batch)


def test_slope_of_the_penalty() -> None:
    x = torch.tensor([-2.0, -1e-6, 0.0, 1e-6, 0.5], dtype=torch.float64, requires_grad=True)
    L1L2()(x).sum().backward()
    assert x.grad.tolist() == pytest.approx([-5.0, -1.000002, 0.0, 1.000002, 2.0])


def test_errors_are_means_over_molecules_of_means_over_entries() -> None:
    """As QH9 counts: a small molecule weighs as much as a large one; µEh."""
    batch, _ = labelled()
    predictions, errors = predicted(batch)
    statistics = ErrorStatistics(["hamiltonian"])
    statistics.update(predictions, batch)
    found = statistics.compute()
    mae, rmse = error_keys("hamiltonian")
    assert (mae, rmse, error_unit("hamiltonian")) == ("hamiltonian_mae_uEh", "hamiltonian_rmse_uEh", ("µEh", 1e-6))
    assert found[mae] == pytest.approx(1e6 * np.mean([np.abs(error).mean() for error in errors]))
    assert found[rmse] == pytest.approx(1e6 * np.mean([(error**2).mean() for error in errors]) ** 0.5)
    # In parts and in several processes, it is the same.
    parts = [ErrorStatistics(["hamiltonian"]) for _ in SIZES]
    starts = np.cumsum([0, *(n * n for n in SIZES)])
    for k, (part, graph) in enumerate(zip(parts, batch.to_data_list(), strict=True)):
        own = predictions["hamiltonian"][starts[k] : starts[k + 1]]
        part.update({"hamiltonian": own, "num_orbitals": graph.num_orbitals}, graph)
    for other in parts[1:]:
        parts[0].merge(other.state())
    assert parts[0].compute() == pytest.approx(found)
    assert parts[0].counts() == statistics.counts()


def test_a_damaged_prediction_is_no_small_error() -> None:
    batch, _ = labelled()
    predictions, _ = predicted(batch)
    predictions["hamiltonian"][4] = torch.nan
    statistics = ErrorStatistics(["hamiltonian"])
    statistics.update(predictions, batch)
    assert all(np.isnan(value) for value in statistics.compute().values())


def test_matrices_are_cut_where_they_end() -> None:
    batch, matrices = labelled()
    found = square_matrices(batch.hamiltonian.numpy(), batch.num_orbitals.tolist())
    assert all(np.array_equal(a, b) for a, b in zip(found, matrices, strict=True))
    assert square_matrices(np.zeros(0), []) == []


def waters(count: int, seed: int) -> list[Sample]:
    """Return rattled waters with matrices that somebody made up."""
    rng, found = np.random.default_rng(seed), []
    for k in range(count):
        atoms = molecule("H2O")
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
        matrix = 0.1 * rng.normal(size=(24, 24)) - np.eye(24)
        info = {"source": f"made up:{k}", "basis": "def2-svp", "functional": "b3lyp5"}
        found.append(Sample(atoms, {"hamiltonian": matrix + matrix.T}, info))
    return found


def run_training(folder: Path, penalty: Penalty | None = None, **changes: Any) -> tuple[AtomisticModel, Outcome]:
    """Train a small SPHNet for 16 steps, whose paths are drawn for 5, adapted for 5 and then fixed."""
    phases = ("model.path_gate.random_steps=5", "model.path_gate.adaptive_steps=5", "model.path_gate.sparsity=0.5")
    model = build_model(configuration("sphnet", *phases) | {"elements": ["H", "O"]}, seed=0)
    losses = {"hamiltonian": FieldLoss("hamiltonian", 1.0, penalty or L1L2())}
    run: Run = make_run(folder, losses=losses, batch_edges=None, batch_graphs=2, **changes)
    graphs = [GraphDataset(part, 6.0, labels=["hamiltonian"]) for part in (waters(8, 0), waters(3, 1))]
    return model, train(model, *graphs, run, Console(quiet=True))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AtomisticModel, Outcome]:
    folder = tmp_path_factory.mktemp("straight")
    return folder, *run_training(folder)


def test_gates_are_fixed_in_the_model_and_in_its_average(uninterrupted: tuple[Path, AtomisticModel, Outcome]) -> None:
    """The exported model is the average, which was made before any path was chosen."""
    folder, model, outcome = uninterrupted
    assert outcome.steps == 16
    exported = load_model(folder / MODEL)
    for mine, other in zip(model.pair_layers, exported.pair_layers, strict=True):
        gate = mine.product.gate
        assert gate.is_fixed
        assert int(gate.step) == 15
        assert torch.equal(other.product.gate.fixed, gate.fixed)
        assert int((gate.fixed != 0).sum()) == gate.num_kept
    rows = [float(row["valid/hamiltonian_rmse_uEh"]) for row in log_rows(folder)]
    assert all(np.isfinite(rows))
    assert np.isfinite(evaluate(exported, molecule("H2O"))["hamiltonian"]).all()


# In the phase of random paths, in the adaptive one, at the step that fixes them, and after it.
@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 7, 10, 13])
def test_resume_in_any_phase_is_exact(
    uninterrupted: tuple[Path, AtomisticModel, Outcome], tmp_path: Path, stop: int
) -> None:
    straight, model, _ = uninterrupted

    class StopAtStep(StopAt):
        def forward(self, errors: torch.Tensor) -> torch.Tensor:
            return L1L2()(errors) + 0.0 * super().forward(errors)

    with pytest.raises(TrainingInterrupted):
        run_training(tmp_path, StopAtStep(stop))
    assert (tmp_path / LAST).exists()
    resumed, _ = run_training(tmp_path, resume=True)
    assert_same(resumed, model)
    assert_same(load_model(tmp_path / MODEL), load_model(straight / MODEL))
    assert log_rows(tmp_path) == log_rows(straight)


def test_begin_step_of_a_model_without_gates_does_nothing() -> None:
    model = build_model(configuration("qhnet"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.begin_step(10**6)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert partial(model.begin_step, 0)() is None
