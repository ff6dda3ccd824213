"""The record of a run: where a model comes from, what it reached, and pictures of it."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from mlip.core.fields import TARGETS
from mlip.core.files import write_text_atomically
from mlip.data.loading import GraphDataset
from mlip.data.parts import Parts
from mlip.evaluation.accuracy import AccuracyCount
from mlip.evaluation.learning_curve import learning_curve_plot
from mlip.evaluation.metrics import ErrorStatistics
from mlip.evaluation.one_pass import OnePass
from mlip.evaluation.parity_points import ParityPoints
from mlip.evaluation.plots import draw_parity
from mlip.evaluation.predict import predict_each
from mlip.evaluation.run_files import LOG, MODEL, RECORD
from mlip.models.model_file import load_model
from mlip.nn.derivatives import predictable
from mlip.training.run import Outcome

_PACKAGES = ("torch", "e3nn", "ase", "torch-geometric", "lightning", "numpy", "mlip-kit")


def fingerprint(settings: Mapping[str, Any], parts: Parts, replay_hash: str | None = None) -> dict[str, str]:
    """Return hashes of everything that must be the same for a checkpoint to be continued.

    Args:
        settings: of the run.
        parts: its data.
        replay_hash: of the replayed structures, where there are some.
    """
    names = ("model", "loss", "optimizer", "schedule", "seed", "dtype", "max_epochs", "batch_edges", "batch_graphs",
             "batch_atoms", "bucket", "validate_every", "ema_decay")  # fmt: skip
    # Only where there is a limit: checkpoints from before there were any can still be continued.
    names += ("max_minutes", "clock") if settings.get("max_minutes") is not None else ()
    hashes = {f"the setting '{name}'": _hash(settings.get(name)) for name in names}
    start = settings.get("finetune") or {}
    if start.get("model") is not None:
        # Not where the file was: its weights are in the checkpoint.
        hashes["the setting 'finetune'"] = _hash({name: start[name] for name in start if name != "model"})
    if replay_hash is not None:
        hashes["the replay set"] = replay_hash
    return hashes | {"the training data": parts.train_hash, "the validation data": parts.valid_hash}


def provenance(
    settings: Mapping[str, Any],
    parts: Parts,
    parent: Mapping[str, Any] | None = None,
    replay: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the card of a run: configuration, data, versions, machine; plain JSON data.

    Args:
        settings: of the run.
        parts: its data.
        parent: hash and card of the model file that it started from.
        replay: of which data the replayed structures are.
    """
    card = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "config": dict(settings),
        "data": {
            "citation": parts.citation,
            "licence": parts.licence,
            "train": {"structures": len(parts.train), "sha256": parts.train_hash},
            "valid": {"structures": len(parts.valid), "sha256": parts.valid_hash},
            "split": parts.record(),
        },
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "git_revision": _git_revision(),
    }
    if replay is not None:
        card["data"]["replay"] = dict(replay)
    return card if parent is None else card | {"parent": dict(parent)}


def finish(folder: Path, card: Mapping[str, Any], outcome: Outcome, parts: Parts, console: Console) -> dict[str, float]:
    """Evaluate the exported model, write plots and ``run.json``, and say where things are.

    Returns:
        Errors of the exported model on the validation structures.
    """
    model = load_model(folder / MODEL, device=outcome.device)
    fields = [field for field in TARGETS if field in parts.provides and field in predictable(model)]
    labels = [*fields, *model.needs]
    samples = OnePass(parts.valid)
    graphs = GraphDataset(samples, model.graph_builder, labels=labels, once=True, inputs=model.inputs)
    statistics, points, count = ErrorStatistics(fields), ParityPoints(), AccuracyCount()
    results = track(
        predict_each(model, graphs, fields, statistics=statistics),
        "evaluating",
        total=len(graphs),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for sample, (graph, prediction) in zip(samples.taken(), results, strict=True):
        points.add(graph, prediction)
        count.add(sample, prediction)
    metrics, right = statistics.compute(), count.result()
    draw_parity(folder / "parity_valid.png", points.panels(), f"{folder.name}: validation")
    learning_curve_plot(folder / "learning_curve.png", folder / LOG, folder.name)
    record = dict(card) | {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": outcome.steps,
        "wall_time_s": round(outcome.seconds, 1),
        "best_score": outcome.best_score,
        "num_parameters": model.num_parameters,
        "cost": _cost(outcome),
        "metrics_valid": metrics,
    }
    if right is not None:
        record["accuracy_valid"] = right.as_dict()
        console.print(f"validation: {right} structures classified correctly", highlight=False)
    write_text_atomically(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False))
    for remark in model.remarks:
        console.print(f"[yellow]Note:[/yellow] {remark}", highlight=False, soft_wrap=True)
    console.print(f"model:  {folder / MODEL}\nrecord: {folder / RECORD}\nplots:  {folder}/*.png", highlight=False)
    return metrics


def _cost(outcome: Outcome) -> dict[str, Any]:
    """Return time and memory of a training step, as far as they are known."""
    cost = {
        "step_ms": outcome.cost.seconds and 1e3 * outcome.cost.seconds,
        "step_cpu_ms": outcome.cost.cpu_seconds and 1e3 * outcome.cost.cpu_seconds,
        "peak_memory_MB": outcome.cost.peak_memory and outcome.cost.peak_memory / 1e6,
    }
    rounded = {name: round(value, 3) for name, value in cost.items() if value is not None}
    return rounded | {"device": outcome.device, "threads": torch.get_num_threads()}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git_revision() -> str | None:
    """Return the revision of the working folder, with a mark where it was changed; None outside git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
