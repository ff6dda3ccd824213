"""One training run: from built objects and graphs to a run folder with a model file."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from torch.optim import Optimizer

from mlip.core.errors import ConfigError, TrainingError
from mlip.core.numbers import is_whole
from mlip.data.loading import GraphDataset, ResumableLoader
from mlip.data.sampling import Reservoir
from mlip.models.base import AtomisticModel
from mlip.training.checkpoints import (
    LAST,
    MODEL,
    EarlyStop,
    KeepBest,
    KeepLast,
    read_checkpoint,
    signal_handlers_kept,
)
from mlip.training.damage import Culprits
from mlip.training.logs import CsvLog, ProgressLines
from mlip.training.losses.base import Loss
from mlip.training.schedules import Schedule
from mlip.training.step_cost import StepCost, StepMeter
from mlip.training.stream import BatchPass, BatchStream
from mlip.training.task import TrainingTask
from mlip.training.time_limit import TimeLimit


@dataclass(frozen=True)
class Run:
    """Everything a training needs besides model and data.

    Attributes:
        folder: run folder.
        losses: terms by name.
        optimizer, schedule: factories, see :class:`TrainingTask`.
        max_epochs: passes over the data, counted with the first pass's number of batches and rounded up to
            whole intervals of validation.
        batch_edges: edges a batch may have.
        batch_graphs: structures a batch may have; None for no limit.
        batch_atoms: atoms a batch may have; None for no limit.
        bucket: structures that are sorted by size together, see :class:`mlip.data.sampling.EdgeBudgetSampler`.
        validate_every: passes between validations.
        checkpoint_every: steps between checkpoints for resuming (validations write one, too).
        ema_decay: of the averaged weights.
        patience: validations without improvement before stopping early; None never stops.
        seed: of the order of the batches, and of what a model draws in training (dropout).
        num_workers: processes that collate batches.
        trainer: options of Lightning's Trainer.
        resume: continue from ``last.ckpt`` of the folder.
        fingerprint: what a checkpoint must agree with.
        card: entries of the model file's card.
        resume_hint: the command that resumes this run.
        limit: of the time; None for none.
        reservoir: the last training structures, if each pass is to have only some of them (a replay set).
    """

    folder: Path
    losses: Mapping[str, Loss]
    optimizer: Callable[..., Optimizer]
    schedule: Callable[..., Schedule]
    max_epochs: float
    batch_edges: int
    batch_graphs: int | None = None
    batch_atoms: int | None = None
    bucket: int = 0
    validate_every: float = 1.0
    checkpoint_every: int = 100
    ema_decay: float = 0.99
    patience: int | None = None
    seed: int = 0
    num_workers: int = 0
    trainer: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    resume_hint: str = "mlip train --resume RUN"
    limit: TimeLimit | None = None
    reservoir: Reservoir | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Attributes:
        steps: optimiser steps in total.
        seconds: wall time of the training with its validations, all parts of an interrupted run together.
        best_score: lowest ``valid/score``.
        device: that this process trained on.
        cost: of a step.
    """

    steps: int
    seconds: float
    best_score: float
    device: str = "cpu"
    cost: StepCost = field(default_factory=StepCost)


def train(
    model: AtomisticModel,
    train_set: GraphDataset,
    valid_set: GraphDataset,
    run: Run,
    console: Console,
    further: Mapping[str, GraphDataset] | None = None,
) -> Outcome:
    """Train a model and leave ``model.safetensors``, ``best.ckpt``, ``last.ckpt`` and ``log.csv`` in the folder.

    Args:
        model: changed in place.
        train_set: what to train on.
        valid_set: what decides which model is best.
        run: everything else.
        console: where to report.
        further: structures by name whose errors are logged after each validation, too.

    Raises:
        CheckpointError: asked to resume, and the checkpoint is missing, damaged or of another run.
        TrainingInterrupted: stopped by the user; the folder can be resumed.
        TrainingError: a loss, a gradient or a validation error is not finite; names the structures.
        ConfigError: an option that Lightning refuses.
    """
    if len(train_set) == 0 or len(valid_set) == 0:
        raise _too_few(len(train_set), len(valid_set))
    rank, world_size = _processes(run.trainer)
    loader = ResumableLoader(
        train_set,
        batch_edges=run.batch_edges,
        max_graphs=run.batch_graphs,
        batch_atoms=run.batch_atoms,
        bucket=run.bucket,
        shuffle=True,
        seed=run.seed,
        rank=rank,
        world_size=world_size,
        num_workers=run.num_workers,
        reservoir=run.reservoir,
    )
    validated = {"valid": valid_set} | dict(further or {})
    # With accumulated gradients a step takes several batches, and validations lie between two steps.
    batches_per_step = _batches_per_step(run.trainer)
    steps_per_epoch = len(loader) / batches_per_step
    validate_steps = max(1, round(run.validate_every * steps_per_epoch))
    # A whole number of intervals: what was trained last is validated, too.
    total_steps = validate_steps * max(1, math.ceil(round(run.max_epochs * steps_per_epoch) / validate_steps))
    culprits = Culprits(train_set, valid_set, run.folder / LAST)
    task = TrainingTask(
        model, run.losses, run.optimizer, run.schedule, total_steps, run.ema_decay, culprits, tuple(validated)
    )
    last = KeepLast(run.folder, run.checkpoint_every, dict(run.fingerprint), run.resume_hint)
    best = KeepBest(run.folder, "valid/score", lambda metrics: {**run.card, "metrics": metrics})
    meter = StepMeter()
    log = CsvLog(run.folder, steps_per_epoch)
    callbacks = [ProgressLines(console, steps_per_epoch), log, meter, best, last]
    if run.limit is not None:
        callbacks.insert(0, run.limit)
    if run.patience is not None:
        callbacks.insert(0, EarlyStop("valid/score", run.patience))
    checkpoint, before = None, -1
    if run.resume:
        checkpoint = run.folder / LAST
        before = read_checkpoint(checkpoint, dict(run.fingerprint))["global_step"]
    devices = list(range(torch.cuda.device_count()))
    with warnings.catch_warnings(), signal_handlers_kept(), torch.random.fork_rng(devices):
        # What a model draws in training; a checkpoint brings its own state.
        torch.manual_seed(run.seed + rank)
        _silence_lightning()
        trainer = _trainer(run, callbacks, total_steps, validate_steps * batches_per_step)
        _check_processes(trainer, rank, world_size)
        trainer.fit(
            task,
            BatchStream(loader, total_steps * batches_per_step),
            [BatchPass(_validation_loader(graphs, run, rank, world_size)) for graphs in validated.values()],
            ckpt_path=checkpoint,
            weights_only=True,
        )
    if task.global_step == before:
        console.print(_had_finished(run, before, total_steps), highlight=False, soft_wrap=True)
    if rank == 0 and not (run.folder / MODEL).exists():
        raise _too_short(task.global_step, validate_steps)
    return Outcome(task.global_step, log.elapsed()[0], best.best, str(trainer.strategy.root_device), meter.cost())


def _had_finished(run: Run, steps: int, total_steps: int) -> str:
    """Say that there was nothing left to resume, and how to train on: the schedule of a run is that of its length."""
    if steps >= total_steps:
        name, value = "max_epochs", run.max_epochs
    elif run.limit is not None and run.limit.elapsed() >= run.limit.seconds:
        name, value = "max_minutes", run.limit.seconds / 60
    else:
        name, value = "patience", run.patience
    return (
        f"This run had finished at step {steps}, at the end of its {name}={value:g}; nothing was left to train. "
        f"To train on, start a new run: with a larger {name} and another name, or from the weights of this one with "
        f"finetune.model={run.folder / MODEL}."
    )


def _validation_loader(graphs: GraphDataset, run: Run, rank: int, world_size: int) -> ResumableLoader:
    return ResumableLoader(
        graphs,
        batch_edges=run.batch_edges,
        batch_atoms=run.batch_atoms,
        # Without a budget of edges or atoms the number of structures is the only limit.
        max_graphs=run.batch_graphs if run.batch_edges is None and run.batch_atoms is None else None,
        shuffle=False,
        seed=0,
        rank=rank,
        world_size=world_size,
        num_workers=run.num_workers,
    )


def _too_few(train: int, valid: int) -> TrainingError:
    return TrainingError(
        f"Training needs structures in both parts, got {train} to train and {valid} to validate on. Set "
        "data.split.train and data.split.valid."
    )


def _too_short(steps: int, validate_steps: int) -> TrainingError:
    return TrainingError(
        f"The training ended at step {steps}, before its first validation, which comes every {validate_steps} steps, "
        "and there is no model: lower validate_every, or leave out what ends it early (trainer.limit_train_batches)."
    )


def _trainer(run: Run, callbacks: list[Any], total_steps: int, validate_batches: int) -> L.Trainer:
    options = {
        "max_epochs": 1,
        "max_steps": total_steps,
        "val_check_interval": validate_batches,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        # Forces are derivatives: validation needs autograd.
        "inference_mode": False,
        "use_distributed_sampler": False,
        "default_root_dir": str(run.folder),
        "logger": TensorBoardLogger(str(run.folder), name="tensorboard", version=""),
    }
    try:
        return L.Trainer(callbacks=callbacks, **(options | dict(run.trainer)))
    except (TypeError, ValueError, L.pytorch.utilities.exceptions.MisconfigurationException) as error:
        raise ConfigError(f"Lightning refuses the trainer options: {error}") from error


def _batches_per_step(trainer: Mapping[str, Any]) -> int:
    number = trainer.get("accumulate_grad_batches", 1)
    if not is_whole(number) or number < 1:
        raise ConfigError(f"trainer.accumulate_grad_batches must be a whole number from 1, got {number!r}.")
    return number


def _processes(trainer: Mapping[str, Any]) -> tuple[int, int]:
    """Return (rank, number of processes) of a Lightning launch, before Lightning has started."""
    import os

    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if devices in ("auto", -1, "-1"):
        devices = max(1, torch.cuda.device_count())
    try:
        count, nodes = len(devices) if isinstance(devices, list) else int(devices), int(nodes)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"trainer.devices and trainer.num_nodes must be whole numbers, got {devices!r} and {nodes!r}."
        ) from error
    return int(os.environ.get("LOCAL_RANK", 0)) + count * int(os.environ.get("NODE_RANK", 0)), count * nodes


def _check_processes(trainer: L.Trainer, rank: int, world_size: int) -> None:
    if (trainer.global_rank, trainer.world_size) != (rank, world_size):
        raise ConfigError(
            f"Lightning counts this process as {trainer.global_rank} of {trainer.world_size}, the data are shared "
            f"as for {rank} of {world_size}. Set trainer.devices and trainer.num_nodes to what the launcher "
            "starts, and NODE_RANK on every machine."
        )


def _silence_lightning() -> None:
    """Keep Lightning's hints about settings we choose on purpose off the user's screen."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*tensorboard.*",
        ".*Checkpoint directory.*",
        ".*treespec, LeafSpec.*",
        ".*GPU available but not used.*",
    ):
        warnings.filterwarnings("ignore", message=message)
