"""Run a benchmark: for each degree all candidates take turns, e3nn among them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mlip.benchmark.counting import Cost, count
from mlip.benchmark.plan import BASELINE, Plan
from mlip.benchmark.results import Measurement
from mlip.benchmark.workload import Workload
from mlip.core.errors import MlipError
from mlip.ops.timing import Timing, ratio, time_interleaved

CHECKED_ROWS = 64
"""Rows on which the result is compared with the float64 oracle."""

CONSTANTS_AND_TEMPORARIES = 40
"""A call that could hold this many times its inputs is probed at a smaller size first."""


class Case(Protocol):
    """Hands out candidates of one degree: see :class:`mlip.benchmark.products.ProductCase`."""

    def candidate(self, factory: Callable[..., Any], rows: int, dtype: torch.dtype) -> Workload:
        """Return a backend with its inputs."""

    def baseline(self, rows: int, dtype: torch.dtype) -> Workload:
        """Return the same in e3nn."""


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
        self.errors: dict[str, tuple[float, str]] = {}

    def measure(self, setting: str, lmax: int) -> list[Measurement]:
        """Build, check and time everything; one row for each candidate and pass."""
        for name, make in self.makers.items():
            self.progress(f"building {name}")
            try:
                self.workloads[name] = make(self.plan.rows, self.plan.torch_dtype)
            except MlipError as error:
                self.refusals[name] = str(error)
        self._check()
        rows = []
        for step in self.plan.passes:
            rows += [replace(row, setting=setting, lmax=lmax) for row in self._measure_pass(step)]
        return rows

    def _check(self) -> None:
        """Compare every result with the float64 one of the first candidate with the same operator."""
        oracles: dict[str, tuple[str, Tensor]] = {}
        rows = min(CHECKED_ROWS, self.plan.rows)
        for name in list(self.workloads):
            self.progress(f"checking {name}")
            operator = self.workloads[name].operator
            try:
                if operator not in oracles:
                    oracles[operator] = name, self.makers[name](rows, torch.float64).result()
                # As many rows as there are for the timing, so that compiled code is compiled once.
                found = self.workloads[name].result()[:rows].double()
            except (RuntimeError, MlipError) as error:
                self.refusals[name] = _first_line(error)
                del self.workloads[name]
                continue
            oracle, expected = oracles[operator]
            if found.shape != expected.shape:
                self.errors[name] = float("nan"), f"{oracle} has another shape"
                continue
            largest = expected.abs().max().clamp(min=1e-300)
            self.errors[name] = float((found - expected).abs().max() / largest), oracle

    def _measure_pass(self, step: str) -> list[Measurement]:
        calls: dict[str, Callable[[], object]] = {}
        costs: dict[str, Cost] = {}
        reasons = dict(self.refusals)
        for name, workload in self.workloads.items():
            self.progress(f"{step}: preparing {name}")
            try:
                needed = self._memory_needed(name, step)
                if needed > self.plan.max_memory:
                    reasons[name] = f"needs about {needed / 1e9:.1f} GB: more than --max-memory allows"
                    continue
                call = workload.call(step)
                for _ in range(self.plan.warmup):
                    call()
                costs[name] = self._cost(call)
                calls[name] = call
            except (RuntimeError, MlipError) as error:
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

    def _memory_needed(self, name: str, step: str) -> float:
        """Estimate the bytes that a pass holds from a run with few rows, if there is any danger."""
        workload = self.workloads[name]
        inputs = sum(t.numel() * t.element_size() for t in workload.inputs)
        few = max(1, self.plan.rows // 50)
        if inputs * CONSTANTS_AND_TEMPORARIES < self.plan.max_memory or few == self.plan.rows:
            return 0.0
        small = self.makers[name](few, self.plan.torch_dtype)
        return count(small.call(step)).peak_bytes * self.plan.rows / few

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
