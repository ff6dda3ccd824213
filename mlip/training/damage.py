"""Numbers that are not finite: found before they reach a checkpoint, and traced to the structures they come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from mlip.core.errors import MlipError, TrainingError
from mlip.data.graph import AtomGraph
from mlip.data.loading import GraphDataset

LISTED = 8
"""Structures of a batch that a message names."""

OUTLIER = 100.0
"""Times the median loss of its batch from which on a structure is called the cause."""

SingleLoss = Callable[[AtomGraph], float]
"""Evaluates one structure alone; not finite where its loss or a gradient of it is not."""


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether no tensor has an infinity or a NaN; one synchronisation with the device where none has."""
    entries = [tensor.detach() for tensor in tensors if tensor.numel()]
    if not entries or bool(torch.isfinite(torch.nn.utils.get_total_norm(entries))):
        return True
    # The sum of squares overflows long before an entry does.
    return all(bool(torch.isfinite(tensor).all()) for tensor in entries)


def check_parameters(model: nn.Module, kept: Path) -> None:
    """Refuse to go on, and to write a checkpoint, with weights that are not finite.

    Args:
        model: what is trained.
        kept: the checkpoint that stays as it is.

    Raises:
        TrainingError: names the first such weight.
    """
    if all_finite(list(model.parameters())):
        return
    name = next(name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all())
    raise TrainingError(f"The weights are no longer finite, first '{name}'. {what_to_do(kept)}")


def what_to_do(kept: Path) -> str:
    """Return how to go on after a training that diverged.

    Args:
        kept: the checkpoint that stays as it is, if it was written already.
    """
    if not kept.is_file():
        return "No checkpoint was written yet. Lower optimizer.lr or clip gradients (trainer.gradient_clip_val)."
    return (
        f"'{kept}' and the best model are those of before and intact. Resuming would repeat it: start a new run with "
        "a lower optimizer.lr or clipped gradients (trainer.gradient_clip_val), from the best model with "
        f"finetune.model={kept.parent / 'model.safetensors'} if there is one."
    )


class Culprits:
    """Names the structures of a batch, and those among them that numbers which are not finite come from.

    Args:
        training: what the batches are made of.
        validation: what is validated on.
        kept: the checkpoint that stays as it is.
    """

    def __init__(self, training: GraphDataset, validation: GraphDataset, kept: Path) -> None:
        self.training, self.validation, self.kept = training, validation, kept

    def in_batch(self, what: str, members: Sequence[int], loss_of: SingleLoss) -> TrainingError:
        """Return the error that stops the training in a batch.

        Args:
            what: is not finite, and when, e.g. ``The loss became inf at step 7``.
            members: numbers of the structures of the batch.
            loss_of: evaluates one of them with the weights as they are.
        """
        losses = {number: _evaluate(self.training[number], loss_of) for number in members}
        sources = {number: self.training.samples[number].source for number in members}
        listed = _listing(sources.values())
        return TrainingError(f"{what} in the batch of {listed}. {_blame(losses, sources)} {what_to_do(self.kept)}")

    def in_validation(self, what: str, loss_of: SingleLoss) -> TrainingError:
        """Return the error that stops the training after a validation; arguments as `in_batch`."""
        broken: list[int] = []
        for number, graph in enumerate(self.validation):
            if not math.isfinite(_evaluate(graph, loss_of)):
                broken.append(number)
            if len(broken) > LISTED:
                break
        where = "" if not broken else f" with {_listing(self.validation.samples[number].source for number in broken)}"
        cause = "the weights have diverged" if len(broken) != 1 else "look for absurd labels there"
        return TrainingError(f"{what}{where}: {cause}. {what_to_do(self.kept)}")


def _evaluate(graph: AtomGraph, loss_of: SingleLoss) -> float:
    try:
        return loss_of(graph)
    except (MlipError, RuntimeError):
        # What cannot even be evaluated is as bad as what is not finite.
        return math.nan


def _listing(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more


def _blame(losses: Mapping[int, float], sources: Mapping[int, str]) -> str:
    broken = [number for number, loss in losses.items() if not math.isfinite(loss)]
    if len(broken) == len(losses) > 1:
        return "None of them is finite alone: the weights have diverged."
    if broken:
        return (
            f"Alone {_listing(sources[number] for number in broken)} does it: look for absurd labels or geometry there."
        )
    worst = max(losses, key=losses.__getitem__)
    text = f"The largest loss alone is {losses[worst]:.3g}, of {sources[worst]}"
    middle = median(losses.values())
    if losses[worst] > OUTLIER * middle:
        return f"{text}; the median is {middle:.3g}: look for absurd labels there."
    return f"{text}."
