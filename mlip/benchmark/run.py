"""Run a benchmark: for each degree all candidates take turns, e3nn among them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlip.benchmark.counting import Cost, count
from mlip.benchmark.plan import BASELINE, Plan
from mlip.benchmark.results import Measurement
from mlip.benchmark.workload import Workload
from mlip.core.errors import ConfigError, MlipError
from mlip.ops.timing import Timing, ratio, time_interleaved

CHECKED_ROWS = 8
"""Rows on which the result is compared with the float64 oracle."""

FAILURES = (RuntimeError, MemoryError, MlipError)
"""What a backend may raise when it is built or called; the benchmark goes on with the others."""

CONSTANTS_AND_TEMPORARIES = 40
"""A call that could hold this many times its inputs and outputs is probed at smaller sizes first."""


class Case(Protocol):
    """Hands out candidates of one degree: see :class:`mlip.benchmark.products.ProductCase`."""

    def candidate(self, factory: Callable[..., Any], rows: int, dtype: torch.dtype) -> Workload:
        """Return a backend with its inputs."""

    def baseline(self, rows: int, dtype: torch.dtype) -> Workload:
        """Return the same in e3nn."""

    def definition(self, operator: str, rows: int) -> tuple[str, Tensor] | None:
        """Return name and float64 result of an independent way to compute an operator."""


class Group:
    """All candidates of one setting and degree.

    Args:
        case: hands out candidates.
        plan: size and protocol.
        factories: backends by name.
        dimensions: dimension of the reachable set by backend, as far as it is known.
        progress: is told what comes next.
    """

    def __init__(
        self,
        case: Case,
        plan: Plan,
        factories: Mapping[str, Callable[..., Any]],
        dimensions: Mapping[str, int],
        progress: Callable[[str], None],
    ) -> None:
        self.case, self.plan, self.progress = case, plan, progress
        self.dimensions = dimensions
        self.makers: dict[str, Callable[[int, torch.dtype], Workload]] = {BASELINE: case.baseline}
        for name, factory in factories.items():
            self.makers[name] = lambda rows, dtype, factory=factory: case.candidate(factory, rows, dtype)
        self.workloads: dict[str, Workload] = {}
        self.refusals: dict[str, str] = {}
        self.errors: dict[str, tuple[float | None, str]] = {}
        self.exact: dict[str, Tensor] = {}

    def measure(self, setting: str, lmax: int) -> list[Measurement]:
        """Build, check and time everything; one row for each candidate and pass."""
        for name, make in self.makers.items():
            self.progress(f"building {name}")
            try:
                workload = make(self.plan.rows, self.plan.torch_dtype)
                self._require_room_for_all(workload)
                self.workloads[name] = workload
            except FAILURES as error:
                self.refusals[name] = str(error) if isinstance(error, MlipError) else _first_line(error)
        self._check()
        rows = []
        for step in self.plan.passes:
            rows += [replace(row, setting=setting, lmax=lmax) for row in self._measure_pass(step)]
        return rows

    def _check(self) -> None:
        """Run what fits into the memory, and compare each result with an oracle."""
        found: dict[str, Tensor] = {}
        for name in list(self.workloads):
            self.progress(f"checking {name}")
            try:
                self._require_memory(name, "forward")
                # As many rows as there are for the timing, so that compiled code is compiled once.
                found[name] = _on_cpu(self.workloads[name].result()[:CHECKED_ROWS])
            except FAILURES as error:
                self.refusals[name] = _first_line(error)
                del self.workloads[name]
        for name, result in found.items():
            self.errors[name] = self._error(name, result)

    def _error(self, name: str, found: Tensor) -> tuple[float | None, str]:
        """Return the largest deviation from an oracle relative to its largest value, and what that was."""
        oracle, expected = self._oracle(name, len(found))
        if expected is None:
            return None, ""
        if found.shape != expected.shape:
            return float("nan"), f"{oracle} has another shape"
        largest = expected.abs().max().clamp(min=1e-300)
        return float((found - expected).abs().max() / largest), oracle

    def _oracle(self, name: str, rows: int) -> tuple[str, Tensor | None]:
        """Return a float64 result that does not come from the code of the candidate: None if there is none.

        That is the definition of the operator where the case knows one, else the first other candidate with the same
        operator; e3nn is the first of all.
        """
        mine = self.workloads[name]
        known = self.case.definition(mine.operator, rows)
        if known is not None:
            return known
        for other, workload in self.workloads.items():
            if other == name or workload.operator != mine.operator or _same_code(mine.function, workload.function):
                continue
            try:
                if other not in self.exact:
                    self.exact[other] = _on_cpu(self.makers[other](rows, torch.float64).result())
            except FAILURES:
                continue
            return other, self.exact[other]
        return "", None

    def _measure_pass(self, step: str) -> list[Measurement]:
        calls: dict[str, Callable[[], object]] = {}
        costs: dict[str, Cost] = {}
        reasons = dict(self.refusals)
        for name, workload in self.workloads.items():
            self.progress(f"{step}: preparing {name}")
            try:
                self._require_memory(name, step)
                call = workload.call(step)
                for _ in range(self.plan.warmup):
                    call()
                costs[name] = self._cost(call)
                calls[name] = call
            except FAILURES as error:
                reasons[name] = _first_line(error)
        self.progress(f"{step}: timing {len(calls)} candidates in turns")
        timings = time_interleaved(
            calls, rounds=self.plan.rounds, round_seconds=self.plan.round_seconds, device=self.plan.device
        )
        return [
            self._row(name, step, timings, costs, reasons.get(name, ""))
            for name in self.makers
            if name in timings or name in reasons
        ]

    def _require_room_for_all(self, workload: Workload) -> None:
        held = sum(other.input_bytes for other in (*self.workloads.values(), workload))
        if held > self.plan.max_memory:
            raise ConfigError(
                f"its inputs and those of the candidates before it need {held / 1e9:.3g} GB: more than --max-memory "
                "allows; name fewer --backends"
            )

    def _require_memory(self, name: str, step: str) -> None:
        needed = self._memory_needed(name, step)
        if needed > self.plan.max_memory:
            raise ConfigError(f"needs about {needed / 1e9:.3g} GB: more than --max-memory allows")

    def _memory_needed(self, name: str, step: str) -> float:
        """Estimate the bytes that a pass holds from runs with few rows, if there is any danger."""
        workload, rows, dtype = self.workloads[name], self.plan.rows, self.plan.torch_dtype
        inputs = workload.input_bytes
        known = inputs + rows * workload.width * dtype.itemsize
        few = max(1, rows // 50)
        if known * CONSTANTS_AND_TEMPORARIES < self.plan.max_memory or 2 * few >= rows:
            return known
        # A straight line: what grows with the rows, and what (weights shared by all rows) does not.
        less, more = (count(self.makers[name](n, dtype).call(step)).peak_bytes for n in (few, 2 * few))
        return inputs + less + (more - less) / few * (rows - few)

    def _cost(self, call: Callable[[], object]) -> Cost:
        cost = count(call)
        if torch.device(self.plan.device).type != "cuda":
            return cost
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        del result
        return replace(cost, peak_bytes=torch.cuda.max_memory_allocated() - before)

    def _row(
        self, name: str, step: str, timings: Mapping[str, Timing], costs: Mapping[str, Cost], reason: str
    ) -> Measurement:
        workload = self.workloads.get(name)
        row = Measurement("", 0, step, name, note=reason)
        if workload is None:
            return row
        error, oracle = self.errors[name]
        dimension = self.dimensions.get(name)
        row = replace(row, operator=workload.operator, paths=workload.paths, weights=workload.weights)
        row = replace(row, error=error, oracle=oracle, dimension=dimension, note=reason or workload.note)
        if name not in timings:
            return row
        time, cost = timings[name], costs[name]
        on_gpu = torch.device(self.plan.device).type == "cuda"
        row = replace(
            row,
            wall_ms=1e3 * time.wall,
            wall_low_ms=1e3 * time.wall_low,
            wall_high_ms=1e3 * time.wall_high,
            cpu_ms=1e3 * time.cpu,
            cpu_low_ms=1e3 * time.cpu_low,
            cpu_high_ms=1e3 * time.cpu_high,
            us_per_path=1e6 * time.wall / workload.paths,
            us_per_dimension=1e6 * time.wall / dimension if dimension else None,
            peak_mb=cost.peak_bytes / 1e6 if on_gpu or cost.memory_known else None,
        )
        if not cost.opaque:
            row = replace(row, flops=cost.flops, gflops_per_second=cost.flops / time.wall / 1e9)
        if cost.memory_known:
            row = replace(row, bytes=cost.bytes)
        if BASELINE in timings:
            median, low, high = ratio(timings[BASELINE], time)
            row = replace(row, speedup=median, speedup_low=low, speedup_high=high)
            row = replace(row, speedup_cpu=timings[BASELINE].cpu / time.cpu if time.cpu else None)
        return row


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _same_code(candidate: nn.Module, oracle: nn.Module) -> bool:
    """Return whether an oracle would share the mistakes of a candidate: made of the same class, or it contains it."""
    # A product that delegates to another is that other.
    candidate, oracle = (getattr(module, "backend", module) for module in (candidate, oracle))
    return isinstance(candidate, type(oracle)) or any(isinstance(part, type(candidate)) for part in oracle.modules())


def _on_cpu(result: Tensor) -> Tensor:
    return result.to(device="cpu", dtype=torch.float64)
