"""Optimisers; weight decay acts on matrices only, never on scales and shifts."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_number
from mlip.training.parameter_groups import parameter_groups


def adamw(
    model: nn.Module,
    lr: float = 0.005,
    weight_decay: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    amsgrad: bool = False,
    lr_factors: Mapping[str, float] | None = None,
) -> Optimizer:
    """AdamW (arXiv 1711.05101), with AMSGrad on request.

    Args:
        model: whose parameters are trained, but for frozen ones.
        lr: learning rate.
        weight_decay: on matrices only.
        betas: decay of the averages of the gradients and of their squares.
        amsgrad: never let the denominator shrink (arXiv 1904.09237).
        lr_factors: see :func:`mlip.training.parameter_groups.parameter_groups`.

    Raises:
        ConfigError: a number that makes no sense.
    """
    if not is_number(lr) or lr <= 0:
        raise ConfigError(f"optimizer.lr must be a positive number, got {lr!r}.")
    if not is_number(weight_decay) or weight_decay < 0:
        raise ConfigError(f"optimizer.weight_decay must be a number from 0, got {weight_decay!r}.")
    if not isinstance(betas, list | tuple) or len(betas) != 2 or not all(is_number(b) and 0 <= b < 1 for b in betas):
        raise ConfigError(f"optimizer.betas must be two numbers in [0, 1), got {betas!r}.")
    groups = parameter_groups(model, lr, weight_decay, lr_factors)
    return torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), amsgrad=amsgrad)
