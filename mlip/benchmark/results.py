"""Results of a benchmark run: rows, their file, and resuming."""

import csv
import io
import json
import os
import platform
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import e3nn
import torch

from mlip.benchmark.plan import Plan
from mlip.core.errors import MlipError
from mlip.core.files import write_text_atomically
from mlip.ops.tensor_product.settings import SETTINGS


@dataclass(frozen=True)
class Measurement:
    """One candidate, one pass. Empty numbers could not be had; ``note`` says why.

    Attributes:
        setting, lmax, step, backend, operator: what was measured; ``step`` is the pass, and called so in the file.
        wall_ms, wall_low_ms, wall_high_ms: median, fastest and slowest round, milliseconds a call.
        cpu_ms, cpu_low_ms, cpu_high_ms: the same for the CPU time of the process.
        speedup, speedup_low, speedup_high: time of e3nn over the time of the candidate in the same round: median,
            lowest and highest.
        speedup_cpu: the same by the medians of the CPU time, which other work on the machine disturbs less.
        flops, bytes: counted for the call (see :mod:`mlip.benchmark.counting`).
        gflops_per_second: ``flops`` over the median wall time.
        peak_mb: most memory held by the call beyond its inputs, 10^6 bytes.
        error: largest deviation of the output from a float64 oracle, relative to its largest value; None where
            nothing independent of the candidate computes its operator.
        oracle: what that was: e3nn, dense Gaunt coefficients, or another backend with the same operator.
        paths: (l1, l2, l3) that carry signal.
        us_per_path: median wall time over ``paths``, microseconds.
        dimension: dimension of the set of maps that one channel reaches with linear layers around.
        us_per_dimension: median wall time over ``dimension``, microseconds.
        weights: weights a row.
        note: why something is missing, or what was chosen.
    """

    setting: str
    lmax: int
    step: str
    backend: str
    operator: str = ""
    wall_ms: float | None = None
    wall_low_ms: float | None = None
    wall_high_ms: float | None = None
    cpu_ms: float | None = None
    cpu_low_ms: float | None = None
    cpu_high_ms: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_cpu: float | None = None
    flops: int | None = None
    bytes: int | None = None
    gflops_per_second: float | None = None
    peak_mb: float | None = None
    error: float | None = None
    oracle: str = ""
    paths: int | None = None
    us_per_path: float | None = None
    dimension: int | None = None
    us_per_dimension: float | None = None
    weights: int | None = None
    note: str = ""


PLOTS = ("time.png", "time_per_path.png", "time_per_dimension.png")
"""Pictures of each setting: names after the setting and an underscore."""

COLUMNS = tuple("pass" if field.name == "step" else field.name for field in fields(Measurement))
"""Header of the file."""


class ResultFolder:
    """A folder with ``results.csv`` and ``run.json``; a run that was stopped goes on where it was.

    Args:
        path: is made if it is not there.
        plan: what is to be measured.
        backends: names of the candidates.
        overwrite: throw away the results of a benchmark that are there.

    Raises:
        MlipError: the folder cannot be written, holds results of another plan or machine, or files of the same
            names that no benchmark has written.
    """

    def __init__(self, path: Path, plan: Plan, backends: list[str], overwrite: bool = False) -> None:
        self.path = path
        self.rows: list[Measurement] = []
        self.record = {"plan": plan.record(), "backends": backends, "machine": machine()}
        before = self._before()
        if overwrite:
            self._clear()
        elif before is not None:
            self._resume(before)
        elif (path / "results.csv").exists():
            raise MlipError(f"'{path}' holds results without a run.json: choose another folder, or --overwrite.")
        write_text_atomically(path / "run.json", json.dumps(self.record, indent=2) + "\n")

    def _before(self) -> dict[str, Any] | None:
        """Return the record that is there, None if there is none; refuse files that are not ours."""
        record, results = self.path / "run.json", self.path / "results.csv"
        try:
            before = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
            ours = before is None or (isinstance(before, dict) and before.keys() >= self.record.keys())
            if ours and results.exists():
                ours = results.read_text(encoding="utf-8").startswith(",".join(COLUMNS[:4]) + ",")
        except (ValueError, OSError):
            ours = False
        if not ours:
            raise MlipError(
                f"'{self.path}' holds a run.json or results.csv that no benchmark has written: choose another folder "
                "with --out."
            )
        return before

    def _clear(self) -> None:
        """Delete results before the new plan is written: an interruption must not leave old numbers under it."""
        try:
            for name in ("results.csv", *(f"{setting}_{plot}" for setting in SETTINGS for plot in PLOTS)):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise MlipError(f"Cannot delete the results in '{self.path}': {error}. Choose another folder.") from error

    def _resume(self, before: dict[str, Any]) -> None:
        differing = [key for key in self.record if _comparable(key, before[key]) != _comparable(key, self.record[key])]
        if differing:
            raise MlipError(
                f"'{self.path}' holds results with another {' and '.join(differing)}: choose another folder with "
                "--out, or --overwrite."
            )
        try:
            if (self.path / "results.csv").exists():
                self.rows = read_csv(self.path / "results.csv")
        except (ValueError, TypeError, OSError) as error:
            raise MlipError(
                f"'{self.path}' holds results that cannot be read: choose another folder with --out, or --overwrite."
            ) from error

    def has(self, setting: str, lmax: int) -> bool:
        """Return whether a setting and degree have been measured."""
        return any((row.setting, row.lmax) == (setting, lmax) for row in self.rows)

    def add(self, rows: list[Measurement]) -> None:
        """Append rows and write the file anew, whole."""
        self.rows += rows
        write_csv(self.path / "results.csv", self.rows)


def write_csv(path: Path, rows: list[Measurement]) -> None:
    """Write rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(["" if value is None else _short(value) for value in row.__dict__.values()])
    write_text_atomically(path, text.getvalue())


def read_csv(path: Path) -> list[Measurement]:
    """Read rows back.

    Raises:
        ValueError: the file is not what :func:`write_csv` writes.
    """
    with path.open(newline="", encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    if any(tuple(line) != COLUMNS for line in lines):
        raise ValueError("other columns")
    kinds = [(field.name, field.type) for field in fields(Measurement)]
    return [
        Measurement(**{name: _parse(text, kind) for (name, kind), text in zip(kinds, line.values())}) for line in lines
    ]


def _comparable(key: str, value: Any) -> str:
    """Return an entry of the record as text, without the load of the machine."""
    if key == "machine" and isinstance(value, dict):
        value = {name: entry for name, entry in value.items() if name != "load_average"}
    return json.dumps(value, sort_keys=True)


def machine() -> dict[str, Any]:
    """Return what the numbers depend on besides the plan."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "e3nn": e3nn.__version__,
    }


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _parse(text: str, kind: Any) -> Any:
    if kind is str:
        return text
    if text == "":
        return None
    options = get_args(kind) or (kind,)
    return int(text) if int in options else float(text)
