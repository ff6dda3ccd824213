"""A time limit: where a run stops, what its rates are, and that a resume is exact; and what a step costs."""

from __future__ import annotations

import csv
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import Tensor

from mlip.core.errors import ConfigError, TrainingInterrupted
from mlip.models.model_file import load_model
from mlip.training import step_cost
from mlip.training.checkpoints import MODEL
from mlip.training.losses.penalties import L2
from mlip.training.schedules import WarmupCosine
from mlip.training.step_cost import StepMeter
from mlip.training.time_limit import CLOCKS, TimeLimit, time_limit
from tests.training.setup import make_run, run_training

LIMIT = 10
MANY_EPOCHS = 50


class Ticking(L2):
    """L2 and the hand of a clock: every training step takes a second. Presses Ctrl-C in a given step."""

    def __init__(self, stop: int = 0) -> None:
        super().__init__()
        self.now, self.stop = 100.0, stop

    def forward(self, errors: Tensor) -> Tensor:
        self.now += 1
        if self.now == 100 + self.stop:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(errors)


def run(folder: Path, stop: int = 0, resume: bool = False, console: Console | None = None):
    penalty = Ticking(stop)
    limit = TimeLimit(LIMIT / 60, clock=lambda: penalty.now)
    return run_training(make_run(folder, penalty, max_epochs=MANY_EPOCHS, limit=limit, resume=resume), console)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in found]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limited")
    return folder, *run(folder)


def test_it_stops_in_time_validates_and_anneals_by_the_time(straight):
    folder, model, outcome = straight
    assert outcome.steps == LIMIT
    last = rows(folder)[-1]
    assert float(last["step"]) == LIMIT
    # The tenth step starts after nine of ten seconds.
    steps_per_epoch = LIMIT / float(last["epoch"])
    total = round(MANY_EPOCHS * steps_per_epoch)
    schedule = WarmupCosine(torch.optim.SGD(model.parameters(), lr=0.01), total, warmup=0.1)
    assert float(last["lr"]) == pytest.approx(0.01 * schedule.factor(0.9 * total), rel=1e-12)
    assert outcome.cost.seconds > 0
    assert (folder / MODEL).is_file()


@pytest.mark.parametrize("stop", [4, pytest.param(LIMIT, marks=pytest.mark.slow)])
def test_resume_is_exact(straight, tmp_path, stop):
    folder, model, _ = straight
    with pytest.raises(TrainingInterrupted, match=f"Stopped at step {stop}"):
        run(tmp_path, stop=stop)
    resumed, outcome = run(tmp_path, resume=True)
    assert outcome.steps == LIMIT
    assert rows(tmp_path) == rows(folder)
    for found, expected in ((resumed, model), (load_model(tmp_path / MODEL), load_model(folder / MODEL))):
        for name, value in expected.state_dict().items():
            assert value.equal(found.state_dict()[name]), name
    console = Console(file=StringIO())
    assert run(tmp_path, resume=True, console=console)[1].steps == LIMIT
    assert f"had finished at step {LIMIT}, at the end of its max_minutes=" in console.file.getvalue()


@pytest.mark.slow
def test_a_limit_that_is_never_reached_changes_nothing(tmp_path):
    never = TimeLimit(1e9)
    limited, _ = run_training(make_run(tmp_path / "limited", limit=never))
    free, _ = run_training(make_run(tmp_path / "free"))
    for name, value in free.state_dict().items():
        assert value.equal(limited.state_dict()[name]), name


@pytest.mark.slow
def test_a_run_that_lost_patience_is_not_trained_further(tmp_path):
    def climb(folder: Path, resume: bool):
        changes = {"optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=1e-3, maximize=True)}
        return run_training(make_run(folder, patience=1, max_epochs=20, resume=resume, **changes))[1].steps

    stopped = climb(tmp_path, False)
    assert climb(tmp_path, True) == stopped


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan"), float("inf"), "ten", True])
def test_limits_that_are_none(minutes):
    with pytest.raises(ConfigError, match="max_minutes is a positive number"):
        time_limit(minutes)


def test_clocks():
    assert time_limit(None) is None
    with pytest.raises(ConfigError, match="Did you mean 'wall'"):
        time_limit(None, "wal")
    before = {name: clock() for name, clock in CLOCKS.items()}
    time.sleep(0.1)
    passed = {name: clock() - before[name] for name, clock in CLOCKS.items()}
    assert passed["wall"] >= 0.1
    assert passed["cpu"] < 0.05


def trainer_at(batch: int, batches_per_step: int) -> SimpleNamespace:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_idx=batch))
    return SimpleNamespace(fit_loop=loop, accumulate_grad_batches=batches_per_step)


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_the_cost_of_a_step_leaves_out_validations(monkeypatch, batches_per_step):
    module = torch.nn.Linear(1, 1)
    module.device = torch.device("cpu")
    meter, now = StepMeter(), [0.0]
    monkeypatch.setattr(step_cost, "_now", lambda: (now[0], now[0] / 2))
    batches = [part for step in (5.0, 1.0, 1.0, 3.0, 1.0) for part in [step / batches_per_step] * batches_per_step]
    for number, duration in enumerate(batches):
        meter.on_train_batch_start()
        now[0] += duration
        meter.on_train_batch_end(trainer_at(number, batches_per_step), module)
        if number + 1 == 4 * batches_per_step:
            meter.on_validation_start()
            now[0] += 1000.0
    assert (meter.cost().seconds, meter.cost().cpu_seconds) == (1.0, 0.5)
    resumed = StepMeter()
    resumed.load_state_dict(meter.state_dict())
    assert resumed.cost() == meter.cost()
    assert StepMeter().cost().seconds is None
