"""Train one model on what another one predicts: no labels are needed, only structures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from mlip.core.errors import TrainingError
from mlip.core.fields import INPUTS
from mlip.data.loading import GraphDataset
from mlip.data.sample import Sample
from mlip.evaluation.predict import predict_each
from mlip.models.base import AtomisticModel
from mlip.models.model_file import load_model
from mlip.training.checkpoints import MODEL
from mlip.training.losses.energy import EnergyLoss
from mlip.training.losses.forces import ForcesLoss
from mlip.training.losses.penalties import L2
from mlip.training.optimizers import adamw
from mlip.training.run import Run, train
from mlip.training.schedules import WarmupCosine

BATCH_EDGES = 8000
FORCE_WEIGHT = 10.0


def distill(
    student: AtomisticModel,
    teacher: AtomisticModel,
    samples: Sequence[Sample],
    folder: Path,
    passes: float,
    lr: float,
    console: Console,
) -> AtomisticModel:
    """Train a student on the teacher's energies and forces, and return the best one on a tenth of the structures.

    Args:
        student: changed in place.
        teacher: same elements.
        samples: structures; their labels are not looked at.
        folder: run folder; gets what every training leaves, a log and checkpoints.
        passes: over the structures.
        lr: highest learning rate.
        console: where to report.

    Raises:
        TrainingError: fewer than two structures, or a loss that is not finite.
    """
    if len(samples) < 2:
        raise TrainingError(f"Fine-tuning needs at least two structures, got {len(samples)}.")
    labelled = _label(teacher, samples)
    valid = labelled[:: max(2, min(10, len(labelled)))]
    kept = {id(sample) for sample in valid}
    parts = [sample for sample in labelled if id(sample) not in kept], valid
    fields = {"energy", "forces", *student.inputs}
    graphs = [GraphDataset(part, student.graph_builder, labels=fields, elements=student.elements) for part in parts]
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(
        folder=folder,
        losses={
            "energy": EnergyLoss(weight=1.0, penalty=L2()),
            "forces": ForcesLoss(weight=FORCE_WEIGHT, penalty=L2()),
        },
        optimizer=partial(adamw, lr=lr, weight_decay=0.0),
        schedule=partial(WarmupCosine, warmup=0.1, final=0.01),
        max_epochs=passes,
        batch_edges=BATCH_EDGES,
        batch_graphs=5,
        card=student.metadata,
    )
    student.train().requires_grad_(True)
    train(student, graphs[0], graphs[1], run, console)
    return load_model(folder / MODEL, dtype=student.dtype)


def _label(teacher: AtomisticModel, samples: Sequence[Sample]) -> list[Sample]:
    graphs = GraphDataset(samples, teacher.graph_builder, labels=teacher.inputs, elements=teacher.elements, once=True)
    each = predict_each(teacher, graphs, ("energy", "forces"))
    return [
        Sample(
            sample.atoms,
            {name: value for name, value in sample.labels.items() if name in INPUTS}
            | {"energy": prediction["energy"], "forces": prediction["forces"]},
            sample.info,
        )
        for sample, (_, prediction) in zip(samples, each, strict=True)
    ]
