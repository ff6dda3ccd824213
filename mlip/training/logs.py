"""What a user sees while training: a progress bar with ETA, lines in physical units, and log.csv."""

from __future__ import annotations

import csv
import io
import time
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

from mlip.core.fields import LABELS
from mlip.core.files import write_text_atomically
from mlip.evaluation.metrics import error_keys, error_unit, headline
from mlip.training.task import TrainingTask

LOG = "log.csv"

_SHORT = {"energy": "E {:.2f}", "forces": "F {:.2f}", "stress": "stress {:.3f}"}


def _shown() -> dict[str, str]:
    """Return how the error of each label appears in a line, by its key."""
    lines = {}
    for field in LABELS:
        group = headline(field)
        text = _SHORT.get(field, field.replace("_", " ") + " {:.3g}")
        lines[f"valid/{error_keys(group)[1]}"] = f"{text} {error_unit(group)[0]}".rstrip()
    return lines


class ProgressLines(Callback):
    """A bar over all steps with the remaining time, and one line after each validation.

    Args:
        console: where to draw; bars appear on terminals only, lines everywhere.
        steps_per_epoch: to express a step in passes over the data.
    """

    def __init__(self, console: Console, steps_per_epoch: int) -> None:
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
        self._progress.add_task("train", total=pl_module.total_steps, completed=pl_module.global_step, loss="…")
        self._progress.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingTask, outputs: Any, *args: Any) -> None:
        if self._progress is not None and self._progress.live.is_started:
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=pl_module.global_step, loss=f"{float(outputs['loss']):.3g}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        parts = [text.format(float(metrics[name])) for name, text in _shown().items() if name in metrics]
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        epoch = pl_module.global_step / self.steps_per_epoch
        self.console.print(
            f"step {pl_module.global_step:>7} (epoch {epoch:.1f})  validation RMSE: {'  '.join(parts)}  lr {rate:.2e}",
            highlight=False,
            soft_wrap=True,
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()


class CsvLog(Callback):
    """One row of ``log.csv`` a validation: step, epoch, seconds, learning rate, training loss, all errors.

    A resumed run keeps the rows up to its checkpoint and drops later ones, so no step appears twice.

    Args:
        folder: where to write.
        steps_per_epoch: to express a step in passes over the data.
    """

    def __init__(self, folder: Path, steps_per_epoch: int) -> None:
        self.path, self.steps_per_epoch = folder / LOG, steps_per_epoch
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self._loss, self._count = 0.0, 0
        self._since = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self._elapsed(), "loss": self._loss, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), state_dict["seconds"]
        self._loss, self._count = state_dict["loss"], state_dict["count"]

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        self._since = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingTask, outputs: Any, *args: Any) -> None:
        self._loss += float(outputs["loss"])
        self._count += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:
        if trainer.sanity_checking:
            return
        row = {
            "step": float(pl_module.global_step),
            "epoch": pl_module.global_step / self.steps_per_epoch,
            "seconds": self._elapsed(),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/loss": self._loss / max(1, self._count),
        }
        row |= {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("valid/")}
        self.rows.append(row)
        self._loss, self._count = 0.0, 0
        if trainer.is_global_zero:
            self._write()

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._since

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text_atomically(self.path, buffer.getvalue())
