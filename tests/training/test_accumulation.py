"""Gradients of several batches a step: schedules end with the training, and a resume is exact between two steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlip.core.errors import ConfigError, TrainingError, TrainingInterrupted
from mlip.training.run import Run
from tests.training.setup import make_run, run_training
from tests.training.test_resume import StopAt, assert_same, log_rows


def accumulating(folder: Path, penalty: object = None, number: object = 3, **changes: object) -> Run:
    trainer = {"accelerator": "cpu", "devices": 1, "accumulate_grad_batches": number}
    return make_run(folder, penalty, trainer=trainer, **changes)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, *run_training(accumulating(folder))


def test_schedules_end_with_the_training(straight, tmp_path):
    folder, _, outcome = straight
    _, single = run_training(make_run(tmp_path))
    # As many passes over the data as without, in a third of the steps.
    assert single.steps / 3 - 1 < outcome.steps < single.steps / 3 + 2
    rows = log_rows(folder)
    assert float(rows[-1]["epoch"]) == pytest.approx(float(log_rows(tmp_path)[-1]["epoch"]), abs=0.5)
    assert float(rows[-1]["lr"]) < 0.15 * 0.01


@pytest.mark.parametrize("stop", [2, pytest.param(9, marks=pytest.mark.slow), pytest.param(13, marks=pytest.mark.slow)])
def test_resume_is_exact(straight, tmp_path, stop):
    folder, model, outcome = straight
    with pytest.raises(TrainingInterrupted):
        run_training(accumulating(tmp_path, StopAt(stop)))
    resumed, again = run_training(accumulating(tmp_path, resume=True))
    assert again.steps == outcome.steps
    assert_same(resumed, model)
    assert log_rows(tmp_path) == log_rows(folder)


@pytest.mark.parametrize("number", [0, 1.5, "2"])
def test_numbers_that_are_none(tmp_path, number):
    with pytest.raises(ConfigError, match="accumulate_grad_batches must be a whole number from 1"):
        run_training(accumulating(tmp_path, number=number))


def test_a_training_without_a_validation_says_so(tmp_path):
    trainer = {"accelerator": "cpu", "devices": 1, "limit_train_batches": 2}
    with pytest.raises(TrainingError, match="ended at step 2, before its first validation"):
        run_training(make_run(tmp_path, trainer=trainer))
