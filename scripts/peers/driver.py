"""The driver's side of the timings: worker processes that take turns, and what comes back from them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
CONTROLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class BenchmarkError(Exception):
    """A worker cannot do what it is asked for; one sentence."""


@dataclass(frozen=True)
class Case:
    """One competitor.

    Attributes:
        name: in tables.
        package: of the worker, ``peers/<package>_worker.py``.
        python: interpreter of an environment with the package.
        task: what the worker prepares.
        threads: of torch and of OpenMP.
    """

    name: str
    package: str
    python: str
    task: dict[str, Any]
    threads: int = 1


@dataclass(frozen=True)
class Turns:
    """How cases take turns.

    Attributes:
        rounds: turns of each.
        seconds: a turn repeats a step for about so long, once at least.
        warm_up: repetitions before the first round.
        cores: the first so many of them are what a case with so many threads runs on; empty: wherever the system wants.
        timeout: seconds to wait for an answer.
    """

    rounds: int = 7
    seconds: float = 1.0
    warm_up: int = 3
    cores: tuple[int, ...] = ()
    timeout: float = 1200.0


@dataclass
class Measured:
    """What is known of a case.

    Attributes:
        facts: what its worker told when it was ready.
        turns: for each step the seconds a repetition, ``cpu`` and ``wall``, of each round.
        memory: MB: ``rise``, ``peak`` and ``whole`` of the first step, see :func:`peers.protocol.memory`; may be empty.
    """

    case: Case
    facts: dict[str, Any]
    turns: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


class Worker:
    """A process of its own that prepares a task and repeats its steps when asked.

    Args:
        case: what it does.
        cores: it is bound to them.
        timeout: seconds to wait for an answer.

    Raises:
        BenchmarkError: the interpreter cannot be started.
    """

    def __init__(self, case: Case, cores: Sequence[int], timeout: float) -> None:
        self.case, self.timeout = case, timeout
        # What libraries print, at import, too, must not get between the answers, which have a pipe of their own.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._answers, theirs = os.pipe()
        self._received = b""
        try:
            self._process = subprocess.Popen(
                [case.python, "-m", f"peers.{case.package}_worker", str(theirs)],
                stdin=subprocess.PIPE,
                stdout=self._said,
                stderr=self._said,
                pass_fds=[theirs],
                env=environment(case),
            )
        except OSError as error:
            self._said.close()
            os.close(self._answers)
            raise BenchmarkError(
                f"'{case.python}' cannot be started ({error.strerror}): give --python {case.package}=PATH, the Python "
                f"of an environment with {case.package}."
            ) from error
        finally:
            os.close(theirs)
        if cores and hasattr(os, "sched_setaffinity"):
            # If it has died already, the first answer will tell.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self._process.pid, cores)

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and return the answer.

        Raises:
            BenchmarkError: the process died, or took too long; says why, in its own last words.
        """
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchmarkError(self._last_words()) from None
        ends = time.monotonic() + self.timeout
        while b"\n" not in self._received:
            # A child of the worker may hold the pipe open after its end, so that its state is looked at, too.
            dead = self._process.poll() is not None
            if select.select([self._answers], [], [], 0.0 if dead else min(0.5, self.timeout))[0]:
                if not (more := os.read(self._answers, 1 << 16)):
                    raise BenchmarkError(self._last_words())
                self._received += more
            elif dead:
                raise BenchmarkError(self._last_words())
            elif time.monotonic() > ends:
                self._process.kill()
                raise BenchmarkError(
                    f"The worker of {self.case.name} did not answer in {self.timeout:g} s: take something smaller, or "
                    "a longer --timeout."
                )
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        # What a dead process was not told any more cannot be sent now.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
        self._said.close()

    def _last_words(self) -> str:
        """Return a sentence on why the process ended, made of the last error that it wrote."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        said = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b", line)]
        who = f"The worker of {self.case.name} ({self.case.python})"
        if code < 0:
            return f"{who} was killed by signal {-code}: was there enough memory?"
        reason = (said or lines or [f"exit code {code}"])[-1].rstrip(".")
        # Errors of mlip are sentences; the path of their class is of no use.
        reason = re.sub(r"^mlip\.[\w.]+: ", "", reason)
        hint = f" Give --python {self.case.package}=PATH, the Python of an environment with {self.case.package}."
        return f"{who} ended: {reason}.{hint if 'ModuleNotFoundError' in reason else ''}"


def environment(case: Case) -> dict[str, str]:
    """Return the environment of a worker: its threads, and for mlip this checkout."""
    found = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = [str(SCRIPTS)]
    if case.package == "mlip":
        # Paths of this environment are of no use in others.
        paths += [str(SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    found |= dict.fromkeys(CONTROLS, str(case.threads))
    # Where there is a GPU, it is not what is measured here.
    return found | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}


def measure(cases: Sequence[Case], turns: Turns, check: Any = None) -> list[Measured]:
    """Let cases take turns, A B C A B C, and return what was measured, in their order.

    Args:
        cases: all are there at once, each in a process of its own.
        turns: how often and how long.
        check: called with the list before anything is timed; raises where results are not comparable.

    Raises:
        BenchmarkError: a worker cannot do its task.
    """
    workers: list[Worker] = []
    try:
        found = []
        for case in cases:
            workers.append(Worker(case, turns.cores[: case.threads], turns.timeout))
            found.append(Measured(case, workers[-1].ask(task=case.task, threads=case.threads)))
        if check is not None:
            check(found)
        steps = found[0].facts["steps"]
        for step in steps:
            repeats = [_warm_up(worker, step, turns) for worker in workers]
            for result in found:
                result.turns[step] = []
            for _ in range(turns.rounds):
                for worker, result, repeat in zip(workers, found, repeats):
                    result.turns[step].append(worker.ask(turn=step, repeat=repeat))
        # At the end: a peak that is reset, and memory that is given back, would cost time.
        for worker, result in zip(workers, found):
            result.memory = worker.ask(memory=steps[0])
    finally:
        for worker in workers:
            worker.close()
    return found


def _warm_up(worker: Worker, step: str, turns: Turns) -> int:
    """Run a step until it is warm, and return how many repetitions make a turn."""
    if turns.warm_up > 1:
        worker.ask(turn=step, repeat=turns.warm_up - 1)
    once = worker.ask(turn=step, repeat=1)["wall"]
    return max(1, min(1000, round(turns.seconds / max(once, 1e-6))))
