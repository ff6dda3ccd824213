"""What a training run has left in its folder: settings, errors, cost; also of a run that has not ended."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError, ModelFileError
from mlip.core.fields import TARGETS
from mlip.evaluation.learning_curve import Curve, read_curves
from mlip.evaluation.metrics import error_keys, error_unit, headline
from mlip.evaluation.run_files import CONFIG, EVALUATION, FAILURE, LOG, MODEL, OUTPUT, RECORD
from mlip.models.header import read_header


@dataclass(frozen=True)
class Evaluation:
    """What ``mlip evaluate`` has measured.

    Attributes:
        errors: by key.
        data: hash of the structures; "" if it is not known.
        outdated: the model file has been written again since.
    """

    errors: Mapping[str, float]
    data: str = ""
    outdated: bool = False


@dataclass(frozen=True)
class TrainingRun:
    """One run as its folder tells it; None or nothing where the folder does not say.

    Attributes:
        folder: of the run.
        state: ``finished``, ``unfinished`` or ``failed``.
        note: why it failed.
        settings: nested configuration.
        data: hashes of the ``train`` and ``valid`` structures.
        num_parameters: of the model.
        step_ms: median wall time of a training step.
        step_cpu_ms: the same of the training thread's own time.
        peak_memory_MB: of the tensors on a GPU, else of the process.
        steps: of training.
        seconds, cpu_seconds: of training with validations, up to the last one.
        score: lowest validation score.
        errors: of the exported model on the validation structures, by key as in ``run.json``.
        tests: evaluations in folders of the run, by folder.
        curves: columns of ``log.csv`` over the step.
    """

    folder: Path
    state: str
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    num_parameters: int | None = None
    step_ms: float | None = None
    step_cpu_ms: float | None = None
    peak_memory_MB: float | None = None
    steps: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    score: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    tests: Mapping[str, Evaluation] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def limited_by_cpu(self) -> bool:
        """Whether the training thread's own time was limited: that is what is equal then."""
        return self.settings.get("max_minutes") is not None and self.settings.get("clock") == "cpu"

    def headlines(self) -> Iterator[tuple[str, float, str]]:
        """Yield title, mean absolute error and unit of every label, forces first."""
        for title, key, unit in headline_errors():
            if key in self.errors:
                yield title, self.errors[key], unit


def headline_errors() -> list[tuple[str, str, str]]:
    """Return title, key of the mean absolute error and unit of every label, forces first."""
    found = []
    for label in sorted(TARGETS, key=lambda label: label != "forces"):
        group = headline(label)
        found.append((label.replace("_", " "), error_keys(group)[0], error_unit(group)[0]))
    return found


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run, or the remains of one."""
    return any((folder / name).is_file() for name in (CONFIG, RECORD, FAILURE, OUTPUT))


def read_run(folder: Path) -> TrainingRun:
    """Read the folder of a run.

    Raises:
        DataError: it is none, or a file in it is damaged.
    """
    if not is_run(folder):
        raise DataError(f"'{folder}' is not the folder of a training run: it has neither {CONFIG} nor {RECORD}.")
    record = _json(folder / RECORD)
    failure = _json(folder / FAILURE)
    header = _header(folder / MODEL)
    # The model file of a run that goes on has the card of the run in it.
    card = record or header.get("metadata") or {}
    curves = read_curves(folder / LOG) if _has_rows(folder / LOG) else {}
    cost = _mapping(record.get("cost"))
    state = "finished" if record else "failed" if failure else "unfinished"
    return TrainingRun(
        folder=folder,
        state=state,
        note=str(failure.get("error", "")) if state == "failed" else "",
        settings=_mapping(record.get("config")) or _yaml(folder / CONFIG),
        data={part: str(entry["sha256"]) for part, entry in _parts(card).items()},
        num_parameters=_integer(record.get("num_parameters", header.get("num_parameters"))),
        step_ms=_number(cost.get("step_ms")),
        step_cpu_ms=_number(cost.get("step_cpu_ms")),
        peak_memory_MB=_number(cost.get("peak_memory_MB")),
        steps=_integer(record.get("steps", _last(curves, "epoch", steps=True))),
        seconds=_last(curves, "seconds") or _number(record.get("wall_time_s")),
        cpu_seconds=_last(curves, "cpu_seconds"),
        score=_number(record.get("best_score", _best(curves).get("score"))),
        errors=_numbers(record.get("metrics_valid")) or _best(curves),
        tests=dict(_tests(folder)),
        curves=curves,
    )


def progress(folder: Path) -> tuple[float, str]:
    """Return how much of a run is done, as a share, and its last force error as text; (0, "") if it does not say."""
    try:
        run = read_run(folder)
    except DataError:
        # It is being written.
        return 0.0, ""
    if not run.curves:
        return 0.0, "starting"
    epochs, minutes = run.settings.get("max_epochs"), run.settings.get("max_minutes")
    clock = run.cpu_seconds if run.limited_by_cpu else run.seconds
    shares = [(_last(run.curves, "epoch") or 0.0) / epochs] if _number(epochs) else []
    shares += [(clock or 0.0) / 60 / minutes] if _number(minutes) else []
    text = next((f"{title} {value:.4g} {unit}" for title, value, unit in run.headlines()), "")
    return min(1.0, max(shares, default=0.0)), f"step {run.steps}, {text}"


def _json(path: Path) -> dict[str, Any]:
    """Read an object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' is damaged: {str(error).splitlines()[0]}.") from error
    if not isinstance(found, dict):
        raise DataError(f"'{path}' is damaged: it holds no object.")
    return found


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        return {}
    try:
        return _mapping(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"'{path}' is damaged: {str(error).splitlines()[0]}.") from error


def _header(path: Path) -> dict[str, Any]:
    # A model file that cannot be read costs its blanks only: the table is about the run.
    with suppress(ModelFileError, OSError):
        return read_header(path)
    return {}


def _has_rows(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(newline="", encoding="utf-8") as file:
        return any(True for _ in csv.DictReader(file))


def _parts(card: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    data = _mapping(card.get("data"))
    return {part: data[part] for part in ("train", "valid") if "sha256" in _mapping(data.get(part))}


def _tests(folder: Path) -> Iterator[tuple[str, Evaluation]]:
    """Yield what ``mlip evaluate`` has measured with this run's model, by the name of its folder in the run."""
    for path in sorted(folder.glob(f"*/{EVALUATION}")):
        found = _json(path)
        errors = _numbers(found.get("errors"))
        if errors:
            model = folder / MODEL
            outdated = model.is_file() and model.stat().st_mtime > path.stat().st_mtime
            yield path.parent.name, Evaluation(errors, str(found.get("sha256", "")), outdated)


def _best(curves: Mapping[str, Curve]) -> dict[str, float]:
    """Return the errors of the validation with the lowest score, which is what is exported."""
    if "valid/score" not in curves:
        return {}
    steps, scores = curves["valid/score"]
    best = steps[int(np.argmin(scores))]
    found = {}
    for name, (at, values) in curves.items():
        if name.startswith("valid/") and best in at:
            found[name.removeprefix("valid/")] = float(values[int(np.searchsorted(at, best))])
    return found


def _last(curves: Mapping[str, Curve], name: str, steps: bool = False) -> float | None:
    return float(curves[name][0 if steps else 1][-1]) if name in curves else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(values: Any) -> dict[str, float]:
    return {name: value for name, entry in _mapping(values).items() if (value := _number(entry)) is not None}


def _number(value: Any) -> float | None:
    """Return a finite number; None for everything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _integer(value: Any) -> int | None:
    return None if _number(value) is None else int(value)
