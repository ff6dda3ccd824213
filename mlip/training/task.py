"""The one LightningModule: predictions, losses, EMA, validation errors. It names no model and no loss."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlip.core.errors import TrainingError
from mlip.data.graph import AtomGraph
from mlip.evaluation.metrics import ErrorStatistics, error_keys, error_unit, headline
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import check_predictable, predict
from mlip.training.losses.base import Loss
from mlip.training.schedules import Schedule


class TrainingTask(L.LightningModule):
    """Train a model on weighted losses.

    Args:
        model: what is trained; must predict what the losses need.
        losses: terms by name.
        optimizer: factory, takes the model.
        schedule: factory, takes the optimiser and the number of steps.
        total_steps: optimiser steps of the whole training.
        ema_decay: of the exponential moving average that is validated and exported; 0 turns it off.

    Attributes:
        averaged: the module to validate and export.
        fields: what the losses need predicted.
    """

    def __init__(
        self,
        model: AtomisticModel,
        losses: Mapping[str, Loss],
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., Schedule],
        total_steps: int,
        ema_decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = torch.nn.ModuleDict(dict(losses))
        self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)) if ema_decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        required = {field for loss in losses.values() for field in loss.required}
        check_predictable(model, required)
        # The energy costs nothing, and its error is worth knowing where only forces are trained.
        self.fields = tuple(sorted(required | ({"energy"} & set(model.fields))))
        self.total_steps = total_steps
        self._make_optimizer, self._make_schedule = optimizer, schedule
        self.schedule: Schedule | None = None
        self._resumed_schedule: dict[str, Any] | None = None
        self.validation_errors = ErrorStatistics([field for field in self.fields if field != "energies"])
        self._validation_loss: list[Tensor] = []

    @property
    def averaged(self) -> AtomisticModel:
        """The EMA model, or the model itself without EMA."""
        return self.model if self.ema is None else self.ema.module

    @property
    def progress(self) -> float:
        """Fraction of the training that is done, in [0, 1]."""
        return min(1.0, self.global_step / max(1, self.total_steps))

    def training_step(self, graph: AtomGraph, batch_idx: int) -> Tensor:
        """Return the weighted loss of a batch."""
        predictions = predict(self.model, graph, self.fields, create_graph=True)
        total, values = self._weigh(predictions, graph)
        if not torch.isfinite(total.detach()):
            raise TrainingError(
                f"The loss became {total.item()} at step {self.global_step}. Lower optimizer.lr, clip gradients "
                "(trainer.gradient_clip_val) or look for absurd labels; the last checkpoint is intact."
            )
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, on_step=True)
        self.log("train/loss", total.detach(), on_step=True, prog_bar=True)
        return total

    def _weigh(self, predictions: dict[str, Tensor], graph: AtomGraph) -> tuple[Tensor, dict[str, Tensor]]:
        values = {name: loss(predictions, graph) for name, loss in self.losses.items()}
        return sum(loss.weight(self.progress) * values[name] for name, loss in self.losses.items()), values

    def validation_step(self, graph: AtomGraph, batch_idx: int) -> None:
        """Add a batch to the validation errors."""
        predictions = predict(self.averaged, graph, self.fields)
        self.validation_errors.update(predictions, graph)

    def on_validation_epoch_start(self) -> None:
        """Forget the previous validation."""
        self.validation_errors.reset()

    def on_validation_epoch_end(self) -> None:
        """Log exact errors over the whole validation set and move the plateau schedule."""
        if self.trainer.world_size > 1:
            states: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, self.validation_errors.state())
            self.validation_errors.reset()
            for state in states:
                self.validation_errors.merge(state)
        errors = self.validation_errors.compute()
        shown = {error_keys(headline(field))[1] for field in self.validation_errors.fields}
        for name, value in errors.items():
            self.log(f"valid/{name}", value, prog_bar=name in shown, rank_zero_only=True)
        score = self.score(errors)
        self.log("valid/score", score, rank_zero_only=True)
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.after_validation(score)

    def score(self, errors: Mapping[str, float]) -> float:
        """Return the number that decides which model is best: the weighted squares of the RMSEs.

        Units of the field table, the energy an atom, with the final weights of the losses, so that it does not
        jump when a weight schedule does.
        """
        score = 0.0
        for loss in self.losses.values():
            for group in map(headline, loss.required):
                rmse = errors.get(error_keys(group)[1])
                if rmse is not None:
                    score += loss.weight(1.0) * (rmse * error_unit(group)[1]) ** 2
        return score

    def configure_optimizers(self) -> Optimizer:
        """Build the optimiser and the schedule."""
        optimizer = self._make_optimizer(self.model)
        self.schedule = self._make_schedule(optimizer, total_steps=self.total_steps)
        return optimizer

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Set the learning rate, step, and average the weights."""
        if self._resumed_schedule is not None:
            self.schedule.load_state_dict(self._resumed_schedule)
            self._resumed_schedule = None
        self.schedule.before_step(self.global_step)
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not keep, as plain data: schedule and random states."""
        checkpoint["schedule"] = self.schedule.state_dict()
        checkpoint["random"] = random_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it. The schedule follows at the first step, when the optimiser exists."""
        self._resumed_schedule = checkpoint["schedule"]
        if self.schedule is not None:
            self.schedule.load_state_dict(checkpoint["schedule"])
        restore_random_state(checkpoint["random"])


def random_state() -> dict[str, Any]:
    """Return the states of all random generators as tensors and plain lists."""
    version, values, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (third-party code draws from it)
    return {
        "python": [version, list(values), gauss],
        "numpy": [
            name,
            [int(key) for key in keys],
            *(float(x) if isinstance(x, float) else int(x) for x in rest),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Inverse of :func:`random_state`."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
