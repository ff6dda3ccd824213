"""The moving average of weights that is validated and exported."""

from collections.abc import Callable

import torch
from torch import Tensor


def moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """Return the update ``average ← d · average + (1 - d) · weights`` for `torch.optim.swa_utils.AveragedModel`.

        ``d = min(decay, (1 + n) / (10 + n))`` after n steps

    so that the average forgets the initial weights however short the training is: with a decay of 0.998 alone they
    would still be an eighth of it after 1000 steps.

    Args:
        decay: of long trainings.
    """

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], steps: Tensor | int) -> None:
        number = int(steps)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + number) / (10 + number)))

    return update
