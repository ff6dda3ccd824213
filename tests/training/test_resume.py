"""A run that is stopped anywhere and resumed ends exactly like one that was never stopped."""

from __future__ import annotations

import csv
import os
import pickle
import signal
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from mlip.core.errors import CheckpointError, TrainingError, TrainingInterrupted
from mlip.models.model_file import load_model
from mlip.training.checkpoints import BEST, LAST, MODEL, read_checkpoint
from mlip.training.losses.penalties import L2, Penalty
from mlip.training.run import Run
from mlip.training.schedules import Plateau
from tests.training import setup
from tests.training.setup import make_run, run_training

FINGERPRINT = {"the setting 'model'": "a", "the training data": "b"}


class StopAt(Penalty):
    """L2 that presses Ctrl-C in a given training step."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.left, self.number = step, number

    def forward(self, errors: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return errors.square()


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["cpu_seconds"]
    return rows


def assert_same(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    for (name, a), b in zip(found.state_dict().items(), expected.state_dict().values()):
        assert torch.equal(a, b), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, *run_training(make_run(folder))


def steps_of(folder: Path) -> list[int]:
    return [int(float(row["step"])) for row in log_rows(folder)]


def test_the_problem_is_learned(uninterrupted):
    folder, _, outcome = uninterrupted
    errors = [float(row["valid/forces_rmse_meV_per_A"]) for row in log_rows(folder)]
    assert errors[-1] < 0.95 * errors[0]
    assert outcome.steps == steps_of(folder)[-1]


# Relative to a validation: in the middle, one before, at it, one after, and just before the end.
@pytest.mark.parametrize(
    "place",
    ["middle", "at", *(pytest.param(place, marks=pytest.mark.slow) for place in ("first", "before", "after", "late"))],
)
def test_resume_is_exact(uninterrupted, tmp_path, place):
    straight, model, outcome = uninterrupted
    every = steps_of(straight)[0]
    stop = {
        "first": 1, "middle": every // 2 + every, "before": every - 1, "at": every, "after": every + 1,
        "late": outcome.steps - 1,
    }[place]  # fmt: skip
    with pytest.raises(TrainingInterrupted, match=r"Stopped at step \d+.*mlip train --resume"):
        run_training(make_run(tmp_path, StopAt(stop)))
    checkpoint = read_checkpoint(tmp_path / LAST, FINGERPRINT)
    assert checkpoint["global_step"] == stop
    resumed, resumed_outcome = run_training(make_run(tmp_path, resume=True))
    assert resumed_outcome.steps == outcome.steps
    assert_same(resumed, model)
    assert_same(load_model(tmp_path / MODEL), load_model(straight / MODEL))
    assert log_rows(tmp_path) == log_rows(straight)
    assert resumed_outcome.best_score == outcome.best_score


@pytest.mark.slow
def test_two_interruptions_with_plateau_early_stopping_and_dropout(tmp_path, monkeypatch):
    config = setup.model_config()
    config["head"]["energy"]["dropout"] = 0.1
    monkeypatch.setattr(setup, "model_config", lambda: config)

    def run(folder: Path, **changes: object) -> Run:
        plateau = partial(Plateau, patience=0, reduce=0.5)
        return make_run(folder, changes.pop("penalty", None), schedule=plateau, patience=3, max_epochs=8, **changes)

    model, outcome = run_training(run(tmp_path / "straight"))
    folder = tmp_path / "stopped"
    for resume, stop in ((False, 5), (True, 4)):
        with pytest.raises(TrainingInterrupted):
            run_training(run(folder, penalty=StopAt(stop, signal.SIGTERM), resume=resume))
    resumed, resumed_outcome = run_training(run(folder, resume=True))
    assert resumed_outcome.steps == outcome.steps
    assert_same(resumed, model)
    assert log_rows(folder) == log_rows(tmp_path / "straight")


def test_the_last_checkpoint_is_the_last_step_even_if_the_best_is_older(tmp_path):
    # Climbing up the loss makes every validation worse than the first.
    run_training(make_run(tmp_path, optimizer=_climb))
    last, best = (torch.load(tmp_path / name, weights_only=True)["global_step"] for name in (LAST, BEST))
    assert last == steps_of(tmp_path)[-1]
    assert best < last


def _climb(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3, maximize=True)


def test_a_finished_run_is_not_trained_further_and_says_so(uninterrupted):
    folder, model, outcome = uninterrupted
    run = make_run(folder, resume=True)
    console = Console(file=StringIO())
    resumed, again = run_training(run, console)
    assert again.steps == outcome.steps
    assert_same(resumed, model)
    text = console.file.getvalue()
    assert f"had finished at step {outcome.steps}, at the end of its max_epochs={run.max_epochs:g}" in text
    assert "larger max_epochs" in text
    assert f"finetune.model={folder / MODEL}" in text


class TestCheckpointsThatAreRefused:
    def test_missing(self, tmp_path):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            run_training(make_run(tmp_path, resume=True))

    @pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
    def test_truncated(self, uninterrupted, tmp_path, keep):
        whole = (uninterrupted[0] / LAST).read_bytes()
        (tmp_path / LAST).write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
        with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
            run_training(make_run(tmp_path, resume=True))

    def test_of_other_settings(self, uninterrupted, tmp_path):
        (tmp_path / LAST).write_bytes((uninterrupted[0] / LAST).read_bytes())
        other = dict(FINGERPRINT, **{"the setting 'model'": "changed"})
        with pytest.raises(CheckpointError, match="the setting 'model' changed"):
            run_training(make_run(tmp_path, resume=True, fingerprint=other))

    def test_a_pickle_is_not_executed(self, tmp_path):
        class Malicious:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "executed",))

        (tmp_path / LAST).write_bytes(pickle.dumps(Malicious()))
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            run_training(make_run(tmp_path, resume=True))
        assert not (tmp_path / "executed").exists()

    def test_foreign(self, tmp_path):
        torch.save({"state_dict": {}}, tmp_path / LAST)
        with pytest.raises(CheckpointError, match="not a training checkpoint of mlip"):
            run_training(make_run(tmp_path, resume=True))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Broken(L2):
        def forward(self, errors: Tensor) -> Tensor:
            return super().forward(errors) * float("nan")

    with pytest.raises(TrainingError, match="loss became nan at step 0"):
        run_training(make_run(tmp_path, Broken()))


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run_training(make_run(tmp_path, max_epochs=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
