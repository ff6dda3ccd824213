"""Choices that were measured once on this machine, kept in the user's cache folder.

One small file a question, written whole: many processes may ask at once, and the last to answer is right as well.
"""

import hashlib
import json
import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlip.core.errors import MlipError
from mlip.core.files import cache_folder, write_text_atomically

log = logging.getLogger(__name__)

Question = Mapping[str, Any]
"""What was measured and on what, in values that JSON can hold."""


@dataclass(frozen=True)
class Choice:
    """The answer to a question.

    Attributes:
        name: the fastest candidate.
        timings: seconds a call of every candidate that was measured.
    """

    name: str
    timings: dict[str, float]


def choice_file(question: Question) -> Path:
    """Return where the answer to a question is kept."""
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "tensor_products" / f"{digest}.json"


def read_choice(question: Question) -> Choice | None:
    """Return the stored answer, or None where there is none, or none that can be read and is to this question."""
    try:
        stored = json.loads(choice_file(question).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MlipError):
        return None
    if not isinstance(stored, dict) or stored.get("question") != json.loads(json.dumps(question)):
        return None
    name, timings = stored.get("choice"), stored.get("timings")
    if not isinstance(name, str) or not isinstance(timings, dict) or name not in timings:
        return None
    if not all(isinstance(t, float) and math.isfinite(t) and t > 0 for t in timings.values()):
        return None
    return Choice(name, timings)


def write_choice(question: Question, choice: Choice) -> None:
    """Store an answer; where the folder cannot be written to, say so and go on without."""
    stored = {"question": question, "choice": choice.name, "timings": choice.timings}
    try:
        write_text_atomically(choice_file(question), json.dumps(stored, indent=1, sort_keys=True) + "\n")
    except MlipError as error:
        log.warning("the measured choice is not kept and will be measured again: %s", error)


def machine(device: torch.device) -> dict[str, Any]:
    """Return what timings depend on: processor, threads and torch, and the GPU where one is used."""
    described: dict[str, Any] = {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if device.type == "cuda" and torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name(device)
    return described


def _processor() -> str:
    """Return the model of the processor: Linux names it in a file of its own."""
    keys, found = ("vendor_id", "cpu family", "model", "model name"), {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            found[key.strip()] = value.strip()
    return ", ".join(found[key] for key in keys if key in found) or platform.processor() or platform.machine()
