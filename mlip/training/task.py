"""The one LightningModule: predictions, losses, EMA, validation errors. It names no model and no loss."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from mlip.core.errors import TrainingError
from mlip.data.graph import AtomGraph
from mlip.evaluation.metrics import ErrorStatistics, error_keys, error_unit, headline, quoted_error
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import check_predictable, predict
from mlip.training.damage import Culprits, all_finite
from mlip.training.losses.base import Loss
from mlip.training.moving_average import moving_average
from mlip.training.schedules import Schedule


class TrainingTask(L.LightningModule):
    """Train a model on weighted losses.

    Args:
        model: what is trained; must predict what the losses need.
        losses: terms by name.
        optimizer: factory, takes the model.
        schedule: factory, takes the optimiser and the number of steps.
        total_steps: optimiser steps of the whole training.
        ema_decay: of the moving average that is validated and exported, see
            :func:`~mlip.training.moving_average.moving_average`; 0 turns it off.
        culprits: names the structures of a training batch after numbers that are not finite.
        validated: names of the sets to validate on; the first decides what is best.

    Attributes:
        averaged: the module to validate and export.
        fields: what the losses need predicted.
        time_share: share of a time limit that is used, set by :class:`mlip.training.time_limit.TimeLimit`; else 0.
    """

    def __init__(
        self,
        model: AtomisticModel,
        losses: Mapping[str, Loss],
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., Schedule],
        total_steps: int,
        ema_decay: float = 0.99,
        culprits: Culprits | None = None,
        validated: Sequence[str] = ("valid",),
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = torch.nn.ModuleDict(dict(losses))
        self.ema = AveragedModel(model, multi_avg_fn=moving_average(ema_decay)) if ema_decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        required = {field for loss in losses.values() for field in loss.required}
        check_predictable(model, required)
        # The energy costs nothing, and its error is worth knowing where only forces are trained.
        self.fields = tuple(sorted(required | ({"energy"} & set(model.fields))))
        self.total_steps = total_steps
        self.time_share = 0.0
        self._make_optimizer, self._make_schedule = optimizer, schedule
        self.schedule: Schedule | None = None
        self._resumed_schedule: dict[str, Any] | None = None
        compared = [field for field in self.fields if field != "energies"]
        self.validation_errors = {name: ErrorStatistics(compared) for name in validated}
        self._culprits = culprits
        self._members: tuple[int, ...] = ()

    @property
    def averaged(self) -> AtomisticModel:
        """The EMA model, or the model itself without EMA."""
        return self.model if self.ema is None else self.ema.module

    @property
    def position(self) -> float:
        """The step, or where between the first and the last a time limit is if that is further."""
        return max(self.global_step, self.time_share * self.total_steps)

    @property
    def progress(self) -> float:
        """Fraction of the training that is done, in [0, 1]."""
        return min(1.0, self.position / max(1, self.total_steps))

    def training_step(self, graph: AtomGraph, batch_idx: int) -> Tensor:
        """Return the weighted loss of a batch.

        Raises:
            TrainingError: it is not finite; names the structures.
        """
        self._members = tuple(graph.get("members", ()))
        self.model.begin_step(self.global_step)
        total, values = self._losses(self.model, graph)
        if not torch.isfinite(total.detach()):
            raise self._damaged(f"The loss became {total.item()}")
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, on_step=True)
        self.log("train/loss", total.detach(), on_step=True, prog_bar=True)
        return total

    def on_after_backward(self) -> None:
        """Stop before a step whose gradients are not finite: it would damage all weights at once.

        Raises:
            TrainingError: names the structures.
        """
        # A scaler of 16-bit training provokes infinities on purpose, and leaves such steps out.
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return
        if not all_finite([p.grad for p in self.model.parameters() if p.grad is not None]):
            raise self._damaged("The gradients became infinite or NaN")

    def _damaged(self, what: str) -> TrainingError:
        """Return the error that names the structures of the batch."""
        what = f"{what} at step {self.global_step}"
        if self._culprits is None or not self._members:
            return TrainingError(f"{what}.")

        def loss_of(graph: AtomGraph) -> float:
            total, _ = self._losses(self.model, copy(graph).to(self.device))
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
            return float(total.detach()) if all_finite([g for g in gradients if g is not None]) else math.nan

        return self._culprits.in_batch(what, self._members, loss_of)

    def _losses(
        self, model: AtomisticModel, graph: AtomGraph, create_graph: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self._weigh(predict(model, graph, self.fields, create_graph=create_graph), graph)

    def _weigh(self, predictions: dict[str, Tensor], graph: AtomGraph) -> tuple[Tensor, dict[str, Tensor]]:
        values = {name: loss(predictions, graph) for name, loss in self.losses.items()}
        return sum(loss.weight(self.progress) * values[name] for name, loss in self.losses.items()), values

    def validation_step(self, graph: AtomGraph, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the validation errors of its set."""
        predictions = predict(self.averaged, graph, self.fields)
        self.statistics(dataloader_idx).update(predictions, graph)

    def statistics(self, number: int = 0) -> ErrorStatistics:
        """Return the errors of a validation set, by its number."""
        return list(self.validation_errors.values())[number]

    def on_validation_epoch_start(self) -> None:
        """Forget the previous validation."""
        for statistics in self.validation_errors.values():
            statistics.reset()

    def on_validation_epoch_end(self) -> None:
        """Log exact errors over the whole of each validation set and move the plateau schedule.

        Raises:
            TrainingError: they are not finite; nothing is saved then.
        """
        for number, (name, statistics) in enumerate(self.validation_errors.items()):
            if self.trainer.world_size > 1:
                states: list[Any] = [None] * self.trainer.world_size
                torch.distributed.all_gather_object(states, statistics.state())
                statistics.reset()
                for state in states:
                    statistics.merge(state)
            errors = statistics.compute()
            shown = {quoted_error(field)[1] for field in statistics.fields}
            for key, value in errors.items():
                self.log(f"{name}/{key}", value, prog_bar=key in shown and not number, rank_zero_only=True)
            if not number:
                self._take_notice(self.score(errors))

    def _take_notice(self, score: float) -> None:
        if not math.isfinite(score):
            raise self._damaged_validation(score)
        self.log("valid/score", score, rank_zero_only=True)
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.after_validation(score)

    def _damaged_validation(self, score: float) -> TrainingError:
        what = f"The validation score became {score} at step {self.global_step}"
        if self._culprits is None:
            return TrainingError(f"{what}.")
        return self._culprits.in_validation(
            what, lambda graph: float(self._losses(self.averaged, copy(graph).to(self.device), False)[0])
        )

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
        self.schedule.before_step(self.position)
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
