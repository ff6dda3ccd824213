"""A training that stops after so many minutes, whatever number of steps that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from mlip.core.errors import ConfigError, did_you_mean
from mlip.core.numbers import is_number
from mlip.training.task import TrainingTask

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.monotonic, "cpu": time.thread_time}
"""Seconds: of the wall, or of the thread that trains, which other programs on the machine do not use up."""


class TimeLimit(Callback):
    """Stop after so many minutes of training, validations included, and tell the task how much of them is used.

    The schedules of rates and weights then go by the steps or by the time, whichever is further. What was trained
    last is validated after the limit. A resumed run has the time that its checkpoint left.

    Args:
        minutes: the limit.
        clock: returns seconds; with several processes the first one's time counts.

    Raises:
        ConfigError: the limit is not a positive number.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not is_number(minutes) or minutes <= 0:
            raise ConfigError(f"max_minutes is a positive number of minutes, or null for no limit, got {minutes!r}.")
        self.seconds, self.clock = 60.0 * minutes, clock
        self._before, self._since = 0.0, None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = float(state_dict["seconds"])

    def elapsed(self) -> float:
        """Return the seconds of training so far, all parts of an interrupted run together."""
        return self._before + (0.0 if self._since is None else self.clock() - self._since)

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        self._since = self.clock()
        self._stop_if_over(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: TrainingTask, *args: Any) -> None:
        # All processes must have the same rates.
        pl_module.time_share = trainer.strategy.broadcast(min(1.0, self.elapsed() / self.seconds))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingTask, *args: Any) -> None:
        # Lightning validates after the last step, also where it is stopped early.
        self._stop_if_over(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        if not trainer.sanity_checking:
            self._stop_if_over(trainer)

    def _stop_if_over(self, trainer: L.Trainer) -> None:
        if trainer.strategy.broadcast(self.elapsed() >= self.seconds):
            trainer.should_stop = True


def time_limit(minutes: float | None, clock: str = "wall") -> TimeLimit | None:
    """Return a limit as the settings ``max_minutes`` and ``clock`` say, None without one.

    Raises:
        ConfigError: a limit that is not positive, or an unknown clock.
    """
    if clock not in CLOCKS:
        raise ConfigError(f"There is no clock '{clock}'.{did_you_mean(str(clock), CLOCKS)} Known: {', '.join(CLOCKS)}.")
    return None if minutes is None else TimeLimit(minutes, CLOCKS[clock])
