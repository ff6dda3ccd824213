"""What a user sees while training: a progress bar with ETA, lines in physical units, and log.csv."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.optim import Optimizer

from mlip.core.fields import TARGETS
from mlip.core.files import write_text_atomically
from mlip.evaluation.metrics import error_unit, headline, quoted_error
from mlip.evaluation.run_files import LOG
from mlip.training.task import TrainingTask

_SHORT = {"energy": "E {:.2f}", "forces": "F {:.2f}", "stress": "stress {:.3f}", "hamiltonian": "H {:.1f}"}


_WORDS = {"valid": "validation"}


def _line(part: str, metrics: Mapping[str, Any]) -> str:
    """Return the errors of a validation set in words."""
    texts: dict[str, list[str]] = {}
    for field in TARGETS:
        word, key = quoted_error(field)
        if f"{part}/{key}" in metrics:
            text = _SHORT.get(field, field.replace("_", " ") + " {:.3g}").format(float(metrics[f"{part}/{key}"]))
            texts.setdefault(word, []).append(f"{text} {error_unit(headline(field))[0]}".rstrip())
    errors = "  ".join(f"{word}: {'  '.join(found)}" for word, found in texts.items())
    return f"{_WORDS.get(part, part)} {errors}"


def learning_rate(optimizer: Optimizer) -> float:
    """Return the learning rate as it is now, without the factors of single parts of the model."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group.get("lr_factor", 1.0))


class ProgressLines(Callback):
    """A bar over all steps with the remaining time, and one line after each validation.

    Args:
        console: where to draw; bars appear on terminals only, lines everywhere.
        steps_per_epoch: to express a step in passes over the data.
    """

    def __init__(self, console: Console, steps_per_epoch: float) -> None:
        self.console, self.steps_per_epoch = console, steps_per_epoch
        self._progress: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        if not trainer.is_global_zero:
            return
        self._progress = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._progress.add_task("train", total=pl_module.total_steps, completed=pl_module.position, loss="…")
        self._progress.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingTask, outputs: Any, *args: Any) -> None:
        if self._progress is not None and self._progress.live.is_started:
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=pl_module.position, loss=f"{float(outputs['loss']):.3g}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        epoch = pl_module.global_step / self.steps_per_epoch
        errors = [_line(name, metrics) for name in pl_module.validation_errors]
        self.console.print(
            f"step {pl_module.global_step:>7} (epoch {epoch:.1f})  {'  '.join(errors)}  "
            f"lr {learning_rate(trainer.optimizers[0]):.2e}",
            highlight=False,
            soft_wrap=True,
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()


class CsvLog(Callback):
    """One row of ``log.csv`` a validation: step, epoch, seconds, learning rate, training loss, all errors.

    ``seconds`` are those of the wall, ``cpu_seconds`` those of the training thread, both with validations.

    A resumed run keeps the rows up to its checkpoint and drops later ones, so no step appears twice.

    Args:
        folder: where to write.
        steps_per_epoch: to express a step in passes over the data.
    """

    def __init__(self, folder: Path, steps_per_epoch: float) -> None:
        self.path, self.steps_per_epoch = folder / LOG, steps_per_epoch
        self.rows: list[dict[str, float]] = []
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self._loss, self._count = 0.0, 0
        self._since = time.monotonic(), time.thread_time()

    def state_dict(self) -> dict[str, Any]:
        seconds, cpu_seconds = self.elapsed()
        return {
            "rows": self.rows,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "loss": self._loss,
            "count": self._count,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), state_dict["seconds"]
        # Checkpoints of earlier versions do not have it.
        self.cpu_seconds = state_dict.get("cpu_seconds", 0.0)
        self._loss, self._count = state_dict["loss"], state_dict["count"]

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        self._since = time.monotonic(), time.thread_time()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingTask, outputs: Any, *args: Any) -> None:
        self._loss += float(outputs["loss"])
        self._count += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        if trainer.sanity_checking:
            return
        seconds, cpu_seconds = self.elapsed()
        row = {
            "step": float(pl_module.global_step),
            "epoch": pl_module.global_step / self.steps_per_epoch,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "lr": learning_rate(trainer.optimizers[0]),
            "train/loss": self._loss / max(1, self._count),
        }
        sets = tuple(f"{name}/" for name in pl_module.validation_errors)
        row |= {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(sets)}
        self.rows.append(row)
        self._loss, self._count = 0.0, 0
        if trainer.is_global_zero:
            self._write()

    def elapsed(self) -> tuple[float, float]:
        """Return the seconds of the wall and of the training thread, all parts of an interrupted run together."""
        wall, cpu = self._since
        return self.seconds + time.monotonic() - wall, self.cpu_seconds + time.thread_time() - cpu

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text_atomically(self.path, buffer.getvalue())
