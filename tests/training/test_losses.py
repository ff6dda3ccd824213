"""Losses: zero on equal input, mean over labels, blind to missing ones, weights that change."""

import math

import pytest
import torch
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError, ShapeError
from mlip.data.graph import AtomGraph
from mlip.training.losses.energy import EnergyLoss
from mlip.training.losses.field import FieldLoss
from mlip.training.losses.forces import ForcesLoss
from mlip.training.losses.penalties import L1, L2, Huber
from mlip.training.losses.stress import StressLoss
from mlip.training.losses.weights import WeightSchedule

LOSSES = [EnergyLoss, ForcesLoss, StressLoss]


def graph(num_atoms: int, seed: int) -> AtomGraph:
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return AtomGraph(
        positions=random(num_atoms, 3),
        atomic_numbers=torch.ones(num_atoms, dtype=torch.long),
        cell=random(1, 3, 3),
        pbc=torch.ones(1, 3, dtype=torch.bool),
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        cell_shifts=torch.zeros(0, 3, dtype=torch.long),
        energy=random(1),
        forces=random(num_atoms, 3),
        stress=random(1, 3, 3),
    )


def predictions(batch: AtomGraph, shift: float) -> dict[str, torch.Tensor]:
    return {name: (batch[name].nan_to_num() + shift).requires_grad_() for name in ("energy", "forces", "stress")}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("penalty", [L1(), L2(), Huber(0.1)])
def test_zero_on_equal_input_and_positive_otherwise(kind, penalty):
    batch = Batch.from_data_list([graph(2, 0), graph(5, 1)])
    loss = kind(weight=1.0, penalty=penalty)
    assert loss(predictions(batch, 0.0), batch).item() == 0
    assert loss(predictions(batch, 0.5), batch).item() > 0


def test_energy_is_per_atom_in_float64():
    batch = Batch.from_data_list([graph(2, 0), graph(5, 1)])
    batch.energy = torch.tensor([-1e6, -1e6], dtype=torch.float64)
    loss = EnergyLoss(weight=1.0, penalty=L2())
    found = loss({"energy": batch.energy + torch.tensor([2e-4, -5e-4], dtype=torch.float64)}, batch)
    assert found.item() == pytest.approx(1e-8, rel=1e-4)


@pytest.mark.parametrize("kind", LOSSES)
def test_mean_over_items_does_not_depend_on_the_batch(kind):
    graphs = [graph(3, seed) for seed in range(4)]
    loss = kind(weight=1.0, penalty=L2())

    def value(members):
        batch = Batch.from_data_list(members)
        return loss(predictions(batch, 0.1), batch).item()

    assert value(graphs) == pytest.approx(sum(value([g]) for g in graphs) / 4, rel=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_missing_labels_do_not_count_and_leave_no_gradient(kind):
    name = kind.required[0]
    labelled, missing = graph(3, 0), graph(3, 1)
    missing[name] = torch.full_like(missing[name], math.nan)
    batch = Batch.from_data_list([labelled, missing])
    loss = kind(weight=1.0, penalty=L2())
    predicted = predictions(batch, 0.3)
    value = loss(predicted, batch)
    alone = Batch.from_data_list([labelled])
    assert value.item() == pytest.approx(loss(predictions(alone, 0.3), alone).item(), rel=1e-12)
    value.backward()
    gradient = predicted[name].grad
    assert torch.isfinite(gradient).all()
    assert gradient[len(gradient) // 2 :].abs().max() == 0
    assert gradient[: len(gradient) // 2].abs().min() > 0


def test_a_prediction_that_is_nan_is_not_taken_for_a_missing_label():
    batch = Batch.from_data_list([graph(3, 0)])
    predicted = predictions(batch, 0.0)
    predicted["forces"] = predicted["forces"] * math.nan
    assert torch.isnan(ForcesLoss(weight=1.0, penalty=L2())(predicted, batch))


def test_field_loss_of_any_label():
    batch = Batch.from_data_list([graph(2, 0), graph(5, 1)])
    predicted = predictions(batch, 0.3)
    same = FieldLoss("forces", weight=1.0, penalty=L2())(predicted, batch)
    assert same.item() == ForcesLoss(weight=1.0, penalty=L2())(predicted, batch).item()
    batch.class_scores = torch.tensor([[1.0, 0.0], [math.nan, math.nan]], dtype=torch.float64)
    loss = FieldLoss("class_scores", weight=1.0, penalty=L2())
    assert loss.required == ("class_scores",)
    found = loss({"class_scores": torch.tensor([[0.5, 0.2], [3.0, 4.0]], dtype=torch.float64)}, batch)
    assert found.item() == pytest.approx((0.25 + 0.04) / 2)
    with pytest.raises(ConfigError, match="Did you mean 'chirality'"):
        FieldLoss("chiralty", weight=1.0, penalty=L2())


@pytest.mark.parametrize("columns", [1, 3])
def test_a_prediction_of_another_shape_is_refused_even_if_it_broadcasts(columns):
    batch = Batch.from_data_list([graph(2, 0), graph(5, 1)])
    batch.class_scores = torch.zeros(2, 2, dtype=torch.float64)
    loss = FieldLoss("class_scores", weight=1.0, penalty=L2())
    with pytest.raises(ShapeError, match=rf"'class_scores' of shape \(2, {columns}\).*shape \(2, 2\)"):
        loss({"class_scores": torch.zeros(2, columns, dtype=torch.float64)}, batch)
    with pytest.raises(ShapeError, match="'energy'"):
        EnergyLoss(weight=1.0, penalty=L2())({"energy": batch.energy[:, None]}, batch)


def test_weight_schedule():
    ramp = WeightSchedule(before=1.0, after=3.0, start=0.5, end=1.0)
    assert [ramp(p) for p in (0.0, 0.49, 0.75, 1.0)] == [1.0, 1.0, 2.0, 3.0]
    switch = WeightSchedule(before=1.0, after=10.0)
    assert [switch(p) for p in (0.74, 0.75)] == [1.0, 10.0]
    for wrong in ({"before": -1, "after": 1}, {"before": 1, "after": 1, "start": 0.9, "end": 0.1}):
        with pytest.raises(ConfigError):
            WeightSchedule(**wrong)


def test_penalties_against_their_formulas():
    x = torch.tensor([-2.0, -0.05, 0.0, 0.05, 2.0], dtype=torch.float64)
    assert torch.equal(L1()(x), x.abs())
    assert torch.equal(L2()(x), x**2)
    delta = 0.1
    expected = torch.where(x.abs() < delta, x**2 / 2, delta * (x.abs() - delta / 2))
    assert torch.allclose(Huber(delta)(x), expected)
    with pytest.raises(ConfigError, match="delta > 0"):
        Huber(0.0)
