"""A worker's side of the timings: prepare a task once, then repeat its steps when told to, a line of JSON each time.

Runs in the environments of other packages: standard library only, and torch for the number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROC = "/proc/self"
"""Where Linux tells and resets the peak of the memory; elsewhere it is not measured."""


def _nothing() -> None:
    """Do nothing before a step."""


def _no_answer(order: dict[str, Any]) -> dict[str, Any]:
    raise ValueError(f"This task answers no {', '.join(order)}.")


@dataclass
class Step:
    """What is timed.

    Attributes:
        run: one repetition.
        before: what each repetition needs and is not timed, such as new positions.
    """

    run: Callable[[], object]
    before: Callable[[], object] = _nothing


@dataclass
class Prepared:
    """A task that is ready to be timed.

    Attributes:
        steps: by name, in the order in which they are measured.
        facts: what the driver is told of it: versions, sizes, and results to be compared with those of others.
        answer: to orders of the task's own.
    """

    steps: dict[str, Step]
    facts: dict[str, Any]
    answer: Callable[[dict[str, Any]], dict[str, Any]] = _no_answer


def serve(prepare: Callable[[dict[str, Any]], Prepared]) -> None:
    """Answer the driver until it closes the pipe of standard input; answers go to the pipe of the only argument.

    The first line is ``{"task": …, "threads": n}``, answered by the facts; then ``{"turn": step, "repeat": n}`` is
    answered by seconds a repetition, CPU (all threads) and wall, and ``{"memory": step}`` by megabytes; other orders
    are the task's. Errors are not caught: the driver reads the last line of the traceback.
    """
    answers = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")
    # A compiler that is started holds no pipe open.
    os.set_inheritable(answers.fileno(), False)
    prepared: Prepared | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if prepared is None:
            import torch

            torch.set_num_threads(order["threads"])
            prepared = prepare(order["task"])
            answer = {"steps": list(prepared.steps), "torch": torch.__version__, **prepared.facts}
        elif "turn" in order:
            answer = turn(prepared.steps[order["turn"]], order["repeat"])
        elif "memory" in order:
            answer = memory(prepared.steps[order["memory"]])
        else:
            answer = prepared.answer(order)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def turn(step: Step, repeat: int) -> dict[str, float]:
    """Return the mean seconds of some repetitions."""
    cpu = wall = 0.0
    for _ in range(repeat):
        step.before()
        started = time.process_time(), time.perf_counter()
        step.run()
        cpu += time.process_time() - started[0]
        wall += time.perf_counter() - started[1]
    return {"cpu": cpu / repeat, "wall": wall / repeat}


def memory(step: Step) -> dict[str, float]:
    """Return megabytes: the rise in two repetitions, the peak during them, and the peak since the process began.

    The last one holds where this is asked once. Empty where the system does not tell.
    """
    if not os.path.exists(f"{PROC}/clear_refs"):
        return {}
    whole = peak()
    gc.collect()
    # Other libraries of C have no such function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open(f"{PROC}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    before = peak()
    for _ in range(2):
        step.before()
        step.run()
    return {"rise": peak() - before, "peak": peak(), "whole": max(whole, peak())}


def peak() -> float:
    """Return the highest resident memory since the last reset, MB."""
    with open(f"{PROC}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
