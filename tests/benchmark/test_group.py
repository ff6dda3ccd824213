"""A benchmark notices wrong backends, and leaves out what does not fit into the memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from mlip.benchmark.many_body import ManyBodyCase
from mlip.benchmark.plan import BASELINE, Plan
from mlip.benchmark.products import ProductCase
from mlip.benchmark.results import Measurement
from mlip.benchmark.run import Group
from mlip.core.errors import ConfigError
from mlip.ops.tensor_product.auto import Auto
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from mlip.ops.tensor_product.gaunt_grid import GauntGrid
from mlip.ops.tensor_product.vector_grid import VectorGrid
from tests.components import factory

TINY = Plan(channels=3, rows=7, rounds=1, round_seconds=0.0, warmup=0)


def measure(plan: Plan, **kinds: Callable[..., TensorProduct]) -> list[Measurement]:
    return Group(ProductCase(plan, "mimo", 1), plan, kinds, {}, lambda text: None).measure("mimo", 1)


class Reversed(GauntGrid):
    """Wrong order, wrong size."""

    def multiply(self, x1: torch.Tensor, x2: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return 3 * super().multiply(x1, x2, weight).flip(1)


class Doubled(VectorGrid):
    """Wrong, and nothing of this operator is independent of it."""

    def multiply(self, x1: torch.Tensor, x2: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return 2 * super().multiply(x1, x2, weight)


def test_a_backend_is_no_oracle_of_itself() -> None:
    plan = replace(TINY, passes=("forward",))
    alone = [("wrong", Reversed), ("alone", VectorGrid), ("double", Doubled)]
    for name, kind in alone:
        rows = measure(plan, **{name: kind})
        row = next(row for row in rows if row.backend == name)
        if kind is Reversed:
            assert row.error > 0.1
        else:
            assert (row.error, row.oracle) == (None, "")
        # e3nn computes another operator than all of these.
        assert next(row for row in rows if row.backend == BASELINE).error is None
    # Nor is a class derived from another, also where a product delegates to it.
    grids = {"a": factory("tensor_product", "irrep_grid"), "b": factory("tensor_product", "vector_grid")}
    rows = measure(plan, **grids, c=partial(Auto, candidates={"only": VectorGrid}))
    assert len({row.operator for row in rows[1:]}) == 1
    assert [row.error for row in rows] == [None] * 4


@pytest.mark.parametrize(
    ("operator", "mode"), [*(("interaction", mode) for mode in ("uuu", "uvu", "uvuv", "uvw")), ("convolution", "uvu")]
)
def test_gaunt_definition(operator: str, mode: str) -> None:
    for weights in ("free",) if mode == "uvw" else ("none", "free"):
        plan = replace(TINY, mode=mode, weights=weights, operator=operator, antisymmetric=True, truncated=False)
        for setting in ("mimo", "simo"):
            case = ProductCase(plan, setting, 2)
            name, expected = case.definition("gaunt", 5)
            found = case.candidate(GauntGrid, 5, torch.float64).result()
            assert name == "Gaunt coefficients"
            assert float((found - expected).abs().max()) < 1e-12
            assert case.definition("clebsch_gordan", 5) is None


def test_inputs_that_are_too_large_are_refused_before_they_are_allocated() -> None:
    for huge in ({"rows": 2 * 10**9}, {"mode": "uvuv", "channels": 10**5}, {"mode": "uvw", "channels": 10**8}):
        with pytest.raises(ConfigError, match=r"Inputs and outputs need .* --max-memory"):
            ProductCase(replace(TINY, **huge), "mimo", 1)
    with pytest.raises(ConfigError, match="Inputs and outputs need"):
        ManyBodyCase(replace(TINY, operator="many-body", rows=2 * 10**9), "mimo", 1)


def test_what_needs_too_much_memory_is_left_out() -> None:
    """Weights of one backend, the inputs of all together, one of the passes."""
    two = {"dense": ClebschGordanDense, "grid": GauntGrid}
    plan = replace(TINY, passes=("forward", "double-backward"))
    # 5 · 60³ weights of the paths against 3 · 2 · 60² of the degrees.
    weights = replace(plan, mode="uvw", weights="free", channels=60, max_memory=1e6, passes=("forward",))
    notes = {row.backend: row.note for row in measure(weights, **two)}
    assert "Outputs and weights need" in notes[BASELINE]
    assert notes["grid"] == ""
    # Inputs of 19.2 kB for each of three candidates.
    notes = {row.backend: row.note for row in measure(replace(plan, rows=200, max_memory=5e4), **two)}
    assert "name fewer --backends" in notes["grid"]
    notes = {(r.backend, r.step): r.note for r in measure(replace(plan, rows=400, max_memory=1.7e5), **two)}
    assert notes["dense", "forward"] == ""
    assert "needs about" in notes["dense", "double-backward"]


class Counted(ClebschGordanDense):
    """Remembers how many rows it was called with."""

    most = 0

    def multiply(self, x1: torch.Tensor, x2: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        Counted.most = max(Counted.most, len(x1))
        return super().multiply(x1, x2, weight)


def test_memory_is_probed_before_the_check() -> None:
    plan = replace(TINY, rows=400, max_memory=8e4, passes=("forward",))
    rows = measure(plan, x=Counted)
    assert [row.wall_ms for row in rows if row.backend == "x"] == [None]
    assert Counted.most < 400


class Unbuildable(ClebschGordanDense):
    """Its constants do not fit."""

    def set_up(self) -> None:
        raise RuntimeError("can't allocate memory\nand more")


def test_failure_to_build_is_a_note() -> None:
    plan = replace(TINY, passes=("forward",))
    rows = measure(plan, x=Unbuildable)
    assert {row.backend: row.note for row in rows} == {BASELINE: "", "x": "can't allocate memory"}
