"""Losses, gradients and weights that are not finite: the run stops, says whose they are, and damages no file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from mlip.core.errors import TrainingError
from mlip.data.loading import GraphDataset
from mlip.data.sample import Sample
from mlip.models.model_file import load_model
from mlip.training.checkpoints import BEST, LAST, MODEL
from mlip.training.damage import all_finite, check_parameters
from mlip.training.losses.penalties import L2
from mlip.training.optimizers import adamw
from mlip.training.run import Run, train
from tests.training.setup import CUTOFF, make_model, make_run, samples


def with_energy(found: list[Sample], number: int, energy: float) -> list[Sample]:
    labels = found[number].labels | {"energy": np.array(energy)}
    return [*found[:number], replace(found[number], labels=labels), *found[number + 1 :]]


def run_on(run: Run, training: list[Sample], validation: list[Sample] | None = None) -> None:
    sets = GraphDataset(training, CUTOFF), GraphDataset(validation or samples(4, 1), CUTOFF)
    train(make_model(), *sets, run, Console(quiet=True))


class Trap(L2):
    """L2 that fills a weight of the model with NaN in a given step, as a broken optimiser would."""

    def __init__(self, step: int, model: torch.nn.Module) -> None:
        super().__init__()
        self.left, self.model = step, [model]

    def forward(self, errors: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            with torch.no_grad():
                self.model[0].embedding.fill_(float("nan"))
        return super().forward(errors)


# The square of the first is infinite in float64; the gradient of the second in float32.
@pytest.mark.parametrize(
    ("energy", "what"),
    [(1e200, "The loss became inf"), pytest.param(1e60, "The gradients became infinite", marks=pytest.mark.slow)],
)
def test_an_absurd_label_is_named(tmp_path, energy, what):
    with pytest.raises(TrainingError) as stopped:
        run_on(make_run(tmp_path), with_energy(samples(16, 0), 11, energy))
    message = str(stopped.value)
    assert f"{what}" in message
    assert " at step " in message
    listed = message.split("in the batch of ")[1].split(". Alone ")[0]
    assert "made up:11" in listed
    assert 1 < len(listed.split(", ")) <= 3
    assert "Alone made up:11 does it: look for absurd labels" in message
    assert "No checkpoint was written yet" in message
    assert not (tmp_path / LAST).exists()
    assert not (tmp_path / MODEL).exists()


@pytest.mark.slow
def test_a_label_that_is_only_much_too_large_shows_in_the_message(tmp_path):
    class Broken(L2):
        def forward(self, errors: Tensor) -> Tensor:
            # Not finite for the batch, finite for each structure.
            return super().forward(errors) * (float("nan") if len(errors) > 6 else 1.0)

    with pytest.raises(TrainingError, match=r"The largest loss alone is .*look for absurd labels there") as stopped:
        run_on(make_run(tmp_path, Broken(), batch_graphs=16, batch_edges=10_000), with_energy(samples(16, 0), 3, 1e6))
    assert "of made up:3; the median is" in str(stopped.value)
    assert "and 8 more" in str(stopped.value)


@pytest.mark.slow
def test_after_divergence_the_files_are_those_of_before(tmp_path):
    """A learning rate of a million from the seventh step on."""

    class Explodes(torch.optim.AdamW):
        def step(self, closure=None):
            self.taken = getattr(self, "taken", 0) + 1
            for group in self.param_groups:
                group["lr"] = 1e6 if self.taken > 7 else 1e-3
            return super().step(closure)

    kept: dict[str, bytes] = {}

    class Remember(L2):
        calls = 0

        def forward(self, errors: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 8:
                kept.update({name: (tmp_path / name).read_bytes() for name in (LAST, BEST, MODEL)})
            return super().forward(errors)

    run = make_run(
        tmp_path,
        Remember(),
        optimizer=lambda model: Explodes(model.parameters()),
        trainer={"accelerator": "cpu", "devices": 1},
    )
    with pytest.raises(TrainingError, match="None of them is finite alone: the weights have diverged") as stopped:
        run_on(run, samples(16, 0))
    assert f"'{tmp_path / LAST}' and the best model are those of before and intact" in str(stopped.value)
    assert "finetune.model=" in str(stopped.value)
    assert kept
    for name, content in kept.items():
        assert (tmp_path / name).read_bytes() == content, name
    assert all_finite(list(load_model(tmp_path / MODEL).state_dict().values()))


@pytest.mark.slow
def test_a_learning_rate_of_a_million_ends_in_a_sentence(tmp_path):
    with pytest.raises(TrainingError, match=r"lower optimizer.lr|Lower optimizer.lr"):
        run_on(make_run(tmp_path, optimizer=partial(adamw, lr=1e6)), samples(16, 0))


@pytest.mark.slow
def test_an_absurd_label_to_validate_on_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"The validation score became inf at step .* with made up:2: look for"):
        run_on(make_run(tmp_path), samples(16, 0), with_energy(samples(4, 1), 2, 1e300))
    assert not (tmp_path / BEST).exists()
    assert not (tmp_path / LAST).exists()


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    model = make_model()
    check_parameters(model, tmp_path / LAST)
    with torch.no_grad():
        model.layers[0].convolution.linear.weights[0][0, 0] = float("inf")
    with pytest.raises(TrainingError, match=r"first 'layers.0.convolution.linear.weights.0'"):
        check_parameters(model, tmp_path / LAST)


def test_finite_is_what_torch_calls_finite():
    good = [torch.full((3,), 3e38), torch.zeros(0), torch.full((2, 2), 1e308, dtype=torch.float64)]
    assert all_finite(good)
    assert all_finite([])
    for value in (float("inf"), -float("inf"), float("nan")):
        assert not all_finite([*good, torch.tensor([0.0, value])])


@pytest.mark.slow
def test_damage_between_two_steps_does_not_reach_a_checkpoint(tmp_path):
    model = make_model()
    run = make_run(tmp_path, Trap(4, model), checkpoint_every=1)
    sets = GraphDataset(samples(16, 0), CUTOFF), GraphDataset(samples(4, 1), CUTOFF)
    with pytest.raises(TrainingError):
        train(model, *sets, run, Console(quiet=True))
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert state["global_step"] == 3
    assert all_finite([v for v in state["state_dict"].values() if v.is_floating_point()])


@pytest.mark.slow
def test_absurd_forces_are_traced(tmp_path: Path):
    found = samples(16, 0)
    labels = found[5].labels | {"forces": np.full_like(found[5].labels["forces"], 1e180)}
    with pytest.raises(TrainingError, match="Alone made up:5 does it"):
        run_on(make_run(tmp_path), [*found[:5], replace(found[5], labels=labels), *found[6:]])
