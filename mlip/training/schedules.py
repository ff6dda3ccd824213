"""Learning-rate schedules: functions of the step, and of the validation metric."""

import math
from abc import ABC, abstractmethod
from typing import Any

from torch.optim import Optimizer

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_number, is_whole


class Schedule(ABC):
    """Sets the learning rate of an optimiser. All state is plain numbers, for an exact resume.

    Args:
        optimizer: its groups' learning rates are the base rates.
        total_steps: steps of the whole training.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int) -> None:
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.base_rates = [group["lr"] for group in optimizer.param_groups]

    @abstractmethod
    def factor(self, step: float) -> float:
        """Return the multiplier of the base rates before optimiser step ``step`` (from 0).

        Under a time limit that lies between two steps, see :attr:`mlip.training.task.TrainingTask.position`.
        """

    def before_step(self, step: float) -> None:
        """Set the rates for a step."""
        for group, rate in zip(self.optimizer.param_groups, self.base_rates):
            group["lr"] = rate * self.factor(step)

    def after_validation(self, metric: float) -> None:  # noqa: B027 (a schedule may not care)
        """Take notice of a validation metric (lower is better)."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"base_rates": self.base_rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.base_rates = list(state["base_rates"])


class _WarmupDecay(Schedule):
    """Linear warm-up, then from 1 down to ``final`` in the shape of a subclass."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.02, final: float = 0.01) -> None:
        super().__init__(optimizer, total_steps)
        if not is_number(final) or not 0 <= final <= 1:
            raise ConfigError(f"final is a factor in [0, 1], got {final!r}.")
        self.warmup_steps = _warmup_steps(warmup, total_steps)
        self.final = final

    @abstractmethod
    def _left(self, done: float) -> float:
        """Return what is left of the way from 1 to ``final``, from 1 at ``done`` 0 to 0 at ``done`` 1."""

    def factor(self, step: float) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        return self.final + (1 - self.final) * self._left(done)


class WarmupCosine(_WarmupDecay):
    """Linear warm-up, then half a cosine down to ``final`` (arXiv 1608.03983, eq. 5, one period).

    Args:
        warmup: fraction of the steps.
        final: factor at the end.
    """

    def _left(self, done: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * done))


class WarmupLinear(_WarmupDecay):
    """Linear warm-up, then a straight line down to ``final``: QHNet's and SPHNet's.

    Args:
        warmup: fraction of the steps.
        final: factor at the end.
    """

    def _left(self, done: float) -> float:
        return 1 - done


class Plateau(Schedule):
    """Linear warm-up, then multiply by ``reduce`` when the validation metric stops falling.

    Args:
        warmup: fraction of the steps.
        reduce: factor of each reduction.
        patience: validations without improvement before a reduction.
        min_factor: floor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: float = 0.02,
        reduce: float = 0.8,
        patience: int = 10,
        min_factor: float = 1e-3,
    ) -> None:
        super().__init__(optimizer, total_steps)
        if not is_number(reduce) or not 0 < reduce < 1:
            raise ConfigError(f"reduce is a factor in (0, 1), got {reduce!r}.")
        if not is_whole(patience) or patience < 0:
            raise ConfigError(f"patience is a number of validations from 0, got {patience!r}.")
        if not is_number(min_factor) or not 0 <= min_factor <= 1:
            raise ConfigError(f"min_factor is a factor in [0, 1], got {min_factor!r}.")
        self.warmup_steps = _warmup_steps(warmup, total_steps)
        self.reduce, self.patience, self.min_factor = reduce, patience, min_factor
        self.reached, self.best, self.bad = 1.0, math.inf, 0

    def factor(self, step: float) -> float:
        return self.reached * min(1.0, (step + 1) / self.warmup_steps)

    def after_validation(self, metric: float) -> None:
        if metric < self.best:
            self.best, self.bad = metric, 0
            return
        self.bad += 1
        if self.bad > self.patience:
            self.reached, self.bad = max(self.min_factor, self.reached * self.reduce), 0

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"reached": self.reached, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.reached, self.best, self.bad = state["reached"], state["best"], state["bad"]


def _warmup_steps(warmup: float, total_steps: int) -> int:
    if not is_number(warmup) or not 0 <= warmup < 1:
        raise ConfigError(f"warmup is a fraction of the training in [0, 1), got {warmup!r}.")
    return max(1, round(warmup * total_steps))
