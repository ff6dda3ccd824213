"""Learning-rate schedules against their formulas, and their state; numbers that they and the optimiser refuse."""

import math

import pytest
import torch

from mlip.core.errors import ConfigError
from mlip.training.losses.weights import constant
from mlip.training.optimizers import adamw
from mlip.training.schedules import Plateau, WarmupCosine, WarmupLinear


def optimizer(lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_warmup_cosine():
    schedule = WarmupCosine(optimizer(), total_steps=100, warmup=0.1, final=0.05)
    assert schedule.factor(0) == pytest.approx(0.1)
    assert schedule.factor(9) == pytest.approx(1.0)
    assert schedule.factor(55) == pytest.approx(0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert schedule.factor(100) == pytest.approx(0.05)
    factors = [schedule.factor(step) for step in range(10, 101)]
    assert factors == sorted(factors, reverse=True)


def test_warmup_linear():
    schedule = WarmupLinear(optimizer(), total_steps=110, warmup=1 / 11, final=0.1)
    assert schedule.factor(4) == pytest.approx(0.5)
    assert schedule.factor(10) == pytest.approx(1.0)
    assert schedule.factor(60) == pytest.approx(0.55)
    assert schedule.factor(500) == pytest.approx(0.1)


def test_the_rate_of_every_group_is_set():
    opt = optimizer(0.2)
    opt.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.02})
    schedule = WarmupCosine(opt, total_steps=10, warmup=0.5, final=0.0)
    schedule.before_step(0)
    assert [group["lr"] for group in opt.param_groups] == pytest.approx([0.2 / 5, 0.02 / 5])


def test_plateau_reduces_after_patience_and_resumes():
    schedule = Plateau(optimizer(), total_steps=100, warmup=0.01, reduce=0.5, patience=1)
    for metric in (1.0, 0.9, 0.95, 0.95):
        schedule.after_validation(metric)
    assert schedule.factor(50) == 0.5
    other = Plateau(optimizer(), total_steps=100, warmup=0.01, reduce=0.5, patience=1)
    other.load_state_dict(schedule.state_dict())
    for s in (schedule, other):
        s.after_validation(0.95)
        s.after_validation(0.95)
    assert schedule.factor(50) == other.factor(50) == 0.25


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        *[(WarmupCosine, "warmup", value) for value in (1.5, "abc", float("nan"))],
        *[(kind, "final", value) for kind in (WarmupCosine, WarmupLinear) for value in (-0.1, None)],
        *[(Plateau, "warmup", value) for value in (-0.5, None)],
        (Plateau, "reduce", "0.5"),
        (Plateau, "patience", 0.5),
        (Plateau, "min_factor", 2),
    ],
)
def test_bad_options(kind, option, value):
    with pytest.raises(ConfigError, match=f"^{option} is .*got {value!r}"):
        kind(optimizer(), total_steps=10, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("lr", 0), ("lr", "abc"), ("lr", float("nan")), ("weight_decay", -1), ("betas", [0.9]), ("betas", [0.9, 1.0])],
)
def test_bad_options_of_the_optimizer(option, value):
    with pytest.raises(ConfigError, match=rf"^optimizer\.{option} must be"):
        adamw(torch.nn.Linear(1, 1), **{option: value})


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none(value):
    with pytest.raises(ConfigError, match="Loss weights are numbers that are not negative"):
        constant(value)
