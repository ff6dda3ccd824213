"""What a training step costs: time and memory."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from mlip.core.peak_memory import forget_peak_memory, peak_memory

KEPT = 1000
"""Steps whose time is kept: the last ones."""


@dataclass(frozen=True)
class StepCost:
    """Cost of a step of a training.

    Attributes:
        seconds: median wall time from the end of one step to the end of the next, loading included; None without steps.
        cpu_seconds: the same of the training thread's own time, which other programs on the machine do not lengthen.
        peak_memory: highest memory in bytes, of the tensors on a GPU, else of the process; None where unknown.
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None


class StepMeter(Callback):
    """Measure a step while training; validations are left out, and checkpoints are too rare for a median."""

    def __init__(self) -> None:
        self._times: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._stamp: tuple[float, float] | None = None
        self._peak: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"times": [list(pair) for pair in self._times], "peak": self._peak}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._times.extend((float(wall), float(cpu)) for wall, cpu in state_dict["times"])
        self._peak = state_dict["peak"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            forget_peak_memory(pl_module.device)

    def on_train_batch_start(self, *args: Any) -> None:
        if self._stamp is None:
            self._stamp = _now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if not ends_step(trainer):
            return
        now = _now()
        if self._stamp is not None:
            self._times.append((now[0] - self._stamp[0], now[1] - self._stamp[1]))
        self._stamp = now
        peak = peak_memory(pl_module.device)
        self._peak = peak if self._peak is None or peak is None else max(peak, self._peak)

    def on_validation_start(self, *args: Any) -> None:
        self._stamp = None

    def cost(self) -> StepCost:
        """Return what was measured so far."""
        if not self._times:
            return StepCost(peak_memory=self._peak)
        wall, cpu = zip(*self._times)
        return StepCost(median(wall), median(cpu), self._peak)


def ends_step(trainer: L.Trainer) -> bool:
    """Return whether the optimiser stepped after the batch that has just ended, or gradients are still collected."""
    return (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0


def _now() -> tuple[float, float]:
    return time.monotonic(), time.thread_time()
