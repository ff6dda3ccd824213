"""The moving average against its formula."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from mlip.training.moving_average import moving_average


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_formula(decay: float) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(model, multi_avg_fn=moving_average(decay))
    expected = None
    for number in range(40):
        with torch.no_grad():
            model.weight.fill_(float(number) ** 2)
        averaged.update_parameters(model)
        share = min(decay, (1 + number) / (10 + number))
        expected = 0.0 if number == 0 else share * expected + (1 - share) * number**2
    assert float(averaged.module.weight.detach()) == pytest.approx(expected, rel=1e-5)


def test_initial_weights_are_forgotten_in_short_trainings() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(model, multi_avg_fn=moving_average(0.999))
    with torch.no_grad():
        model.weight.fill_(1000.0)
    averaged.update_parameters(model)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(100):
        averaged.update_parameters(model)
    assert float(averaged.module.weight.detach()) == pytest.approx(1.0, abs=1e-3)
