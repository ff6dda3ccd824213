"""Checkpoints: the last one for an exact resume, the best one with its model file; and stopping cleanly."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from mlip.core.errors import CheckpointError, TrainingInterrupted
from mlip.core.files import write_atomically
from mlip.evaluation.run_files import MODEL
from mlip.models.model_file import save_model
from mlip.training.damage import check_parameters
from mlip.training.step_cost import ends_step
from mlip.training.task import TrainingTask

LAST = "last.ckpt"
BEST = "best.ckpt"
FINGERPRINT = "mlip_fingerprint"


def read_checkpoint(path: Path, fingerprint: dict[str, str]) -> dict[str, Any]:
    """Read a checkpoint (plain data only) and make sure that it belongs to this run.

    Args:
        path: checkpoint file.
        fingerprint: what must agree, by name: hashes of the model's configuration, of the data, ….

    Raises:
        CheckpointError: missing, truncated, foreign, or of another model or data. Training never starts
            over silently.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint '{path}' to resume from; start a new run without resume.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files, and all mean the same
        raise CheckpointError(
            f"The checkpoint '{path}' cannot be read, it is truncated or not a checkpoint ({type(error).__name__}). "
            "Nothing was started; resume from another checkpoint or start a new run."
        ) from error
    found = checkpoint.get(FINGERPRINT) if isinstance(checkpoint, dict) else None
    if found is None:
        raise CheckpointError(f"'{path}' is not a training checkpoint of mlip.")
    different = [name for name, value in fingerprint.items() if found.get(name) != value]
    if different:
        raise CheckpointError(
            f"The checkpoint '{path}' belongs to another run: {', '.join(different)} changed. "
            "Resume with the configuration and the data it was started with, or start a new run."
        )
    return checkpoint


class KeepLast(Checkpoint):
    """Write ``last.ckpt`` regularly, always at a point from which a resume is exact, and stop there on request.

    Such points are the end of a training batch, or the end of the validation that follows it. Ctrl-C or
    SIGTERM asks for a stop: the step in progress is finished, the checkpoint written, and
    :class:`TrainingInterrupted` raised. A second signal stops at once.

    Args:
        folder: where to write.
        every_steps: optimiser steps between checkpoints.
        fingerprint: see :func:`read_checkpoint`.
        resume_hint: what to tell the user, e.g. ``mlip train --resume RUN``.
    """

    def __init__(self, folder: Path, every_steps: int, fingerprint: dict[str, str], resume_hint: str) -> None:
        self.folder, self.every_steps = folder, max(1, every_steps)
        self.fingerprint, self.resume_hint = fingerprint, resume_hint
        self._asked_to_stop = False
        self._previous: dict[int, Any] = {}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[FINGERPRINT] = dict(self.fingerprint)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Only the main thread may set handlers; elsewhere (a notebook's worker thread) signals stay as they are.
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask_to_stop)
        except ValueError:
            self._previous.clear()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        # Gradients that are collected over several batches are in no checkpoint.
        if ends_step(trainer) and not _validation_follows(trainer):
            self._keep(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._keep(trainer, now=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._asked_to_stop:
            self._restore_handlers()
            raise KeyboardInterrupt
        self._asked_to_stop = True

    def _keep(self, trainer: L.Trainer, now: bool = False) -> None:
        # A signal may reach one process only; all must save and stop at the same step.
        stop = trainer.strategy.reduce_boolean_decision(self._asked_to_stop, all=False)
        if now or stop or trainer.global_step % self.every_steps == 0:
            check_parameters(trainer.lightning_module.model, self.folder / LAST)
            save_checkpoint(trainer, self.folder / LAST)
        if stop:
            self._restore_handlers()
            raise TrainingInterrupted(
                f"Stopped at step {trainer.global_step}; the state is in '{self.folder / LAST}'. "
                f"Go on with: {self.resume_hint}"
            )


class KeepBest(Checkpoint):
    """After a validation that is better than all before: write ``best.ckpt`` and ``model.safetensors``.

    Args:
        folder: where to write.
        monitor: logged metric, lower is better.
        metadata: called with the metrics, returns the card of the model file.
    """

    def __init__(self, folder: Path, monitor: str, metadata: Callable[[dict[str, float]], dict[str, Any]]) -> None:
        self.folder, self.monitor, self.metadata = folder, monitor, metadata
        self.best = math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        score = metrics.get(self.monitor, math.inf)
        # All ranks must agree, because saving is a collective operation.
        score = trainer.strategy.broadcast(score)
        if not score < self.best:
            return
        self.best = score
        save_checkpoint(trainer, self.folder / BEST)
        if trainer.is_global_zero:
            save_model(self.folder / MODEL, pl_module.averaged, self.metadata(metrics))


class EarlyStop(Callback):
    """Stop when the monitored metric has not improved for ``patience`` validations.

    Args:
        monitor: logged metric, lower is better.
        patience: validations to wait.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        self.monitor, self.patience = monitor, patience
        self.best, self.bad = math.inf, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.bad = state_dict["best"], state_dict["bad"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that was stopped early is not trained further when it is resumed.
        if self.bad >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        score = trainer.strategy.broadcast(float(trainer.callback_metrics.get(self.monitor, math.inf)))
        self.bad = 0 if score < self.best else self.bad + 1
        self.best = min(self.best, score)
        if self.bad >= self.patience:
            trainer.should_stop = True


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Put the handlers of SIGINT and SIGTERM back as they were; Lightning leaves its own behind."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        # Outside the main thread none can have been set.
        with suppress(ValueError):
            for number, handler in before.items():
                signal.signal(number, handler)


def save_checkpoint(trainer: L.Trainer, path: Path) -> None:
    """Write a Lightning checkpoint, whole or not at all."""
    if trainer.is_global_zero:
        write_atomically(path, trainer.save_checkpoint)
    else:
        trainer.save_checkpoint(path)  # Collects this rank's part; only rank zero writes.


def _validation_follows(trainer: L.Trainer) -> bool:
    if trainer.should_stop:
        return True
    every = trainer.val_check_batch
    return math.isfinite(every) and (trainer.fit_loop.epoch_loop.batch_idx + 1) % every == 0
