"""Candidates compute what e3nn computes; runs are measured, written, read back, resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlip.benchmark.expressivity import describe, expected_dimension
from mlip.benchmark.many_body import E3nnPowers, ManyBodyCase
from mlip.benchmark.plan import BASELINE, PASSES, Plan
from mlip.benchmark.plots import fitted_exponent, plot_times
from mlip.benchmark.products import ProductCase, reachable_dimensions
from mlip.benchmark.results import Measurement
from mlip.benchmark.run import Group
from mlip.core.errors import ConfigError
from mlip.ops.layout import natural_irreps, split_blocks
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from mlip.ops.tensor_product.gaunt_grid import GauntGrid
from mlip.ops.tensor_product.settings import setting_irreps
from tests.components import component_names, factory

TINY = Plan(channels=3, rows=7, rounds=1, round_seconds=0.0, warmup=0)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Choices by measurement stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("mode", ["uuu", "uvu", "uvuv", "uvw"])
@pytest.mark.parametrize("weights", ["none", "free"])
def test_baseline_is_the_same_product(mode: str, weights: str) -> None:
    case = ProductCase(replace(TINY, mode=mode, weights=weights, antisymmetric=True), "mimo", 2)
    ours, theirs = case.candidate(ClebschGordanDense, 7, torch.float64), case.baseline(7, torch.float64)
    assert ours.weights == theirs.weights
    assert ours.paths == theirs.paths == 15
    assert float((ours.result() - theirs.result()).abs().max()) < 1e-12


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_kernels_are_those_of_the_plan(kernels: str) -> None:
    plan = replace(TINY, kernels=kernels)
    products = ProductCase(plan, "mimo", 1), ClebschGordanDense
    powers = ManyBodyCase(plan, "mimo", 1), factory("many_body", "symmetric_contraction")
    for case, make in (products, powers):
        assert case.candidate(make, 7, torch.float64).function.kernels == kernels


def test_baseline_of_the_convolution() -> None:
    case = ProductCase(replace(TINY, operator="convolution"), "mimo", 2)
    ours, theirs = case.candidate(ClebschGordanDense, 5, torch.float64), case.baseline(5, torch.float64)
    assert ours.inputs[2].shape == theirs.inputs[2].shape == (5, ours.weights)
    assert float((ours.result() - theirs.result()).abs().max()) < 1e-12
    norms = [block.square().sum(dim=1) for block in split_blocks(case.x2, natural_irreps(2))]
    assert all(float((norm - 2 * l - 1).abs().max()) < 1e-5 for l, norm in enumerate(norms))


def test_first_rows_are_the_same_numbers() -> None:
    case = ProductCase(replace(TINY, operator="convolution"), "mimo", 1)
    few, all_rows = (case.candidate(ClebschGordanDense, rows, torch.float64).result() for rows in (2, 7))
    assert float((few - all_rows[:2]).abs().max()) < 1e-13


def test_powers_of_e3nn() -> None:
    """The chain of e3nn's products against products of values: scalars multiply as numbers."""
    case = ManyBodyCase(replace(TINY, operator="many-body"), "mimo", 0)
    chain = case.baseline(7, torch.float64)
    x, weight = (leaf.detach() for leaf in chain.inputs)
    expected = sum(w * x**nu for nu, w in enumerate(weight.split(3), start=1))
    assert float((chain.result() - expected).abs().max()) < 1e-12
    # Degrees from which the output cannot be reached again are dropped on the way.
    irreps, x = natural_irreps(1, 2), torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).double()
    few, every = (E3nnPowers(irreps, natural_irreps(highest, 2), 4).double() for highest in (1, 4))
    results = [chain(x, x.new_ones(chain.weight_numel)) for chain in (few, every)]
    assert few.products[1].irreps_out.lmax == 2
    assert every.products[1].irreps_out.lmax == 3
    assert float((results[0] - results[1][:, : results[0].shape[1]]).abs().max()) < 1e-12
    with pytest.raises(ConfigError, match="setting mimo"):
        ManyBodyCase(TINY, "siso", 1)


@pytest.mark.parametrize("name", component_names("many_body"))
def test_many_body_backends_run(name: str) -> None:
    plan = replace(TINY, operator="many-body", passes=("forward", "backward"))
    case = ManyBodyCase(plan, "mimo", 1)
    rows = Group(case, plan, {name: factory("many_body", name)}, {}, lambda text: None).measure("mimo", 1)
    assert [(row.backend, row.step) for row in rows] == [
        (backend, step) for step in plan.passes for backend in (BASELINE, name)
    ]
    assert all(row.wall_ms > 0 for row in rows)


def test_many_body_backends_check_one_another() -> None:
    plan = replace(TINY, operator="many-body", passes=("forward",))
    names = component_names("many_body")
    factories = {name: factory("many_body", name) for name in names}
    rows = Group(ManyBodyCase(plan, "mimo", 2), plan, factories, {}, lambda text: None).measure("mimo", 2)
    found = {row.backend: (row.oracle, row.error) for row in rows}
    assert (found["gaunt_grid"][0], found["gaunt_fourier"][0]) == ("gaunt_fourier", "gaunt_grid")
    assert max(found["gaunt_grid"][1], found["gaunt_fourier"][1]) < 1e-5
    # Nothing else computes these.
    assert found["symmetric_contraction"] == found[BASELINE] == ("", None)


def measure(plan: Plan, lmax: int = 1) -> list[Measurement]:
    factories = {"dense": ClebschGordanDense, "grid": GauntGrid}
    dimensions = reachable_dimensions(plan, "mimo", lmax, factories)
    return Group(ProductCase(plan, "mimo", lmax), plan, factories, dimensions, lambda text: None).measure("mimo", lmax)


def test_a_group_is_measured() -> None:
    rows = measure(replace(TINY, rounds=3))
    assert [(row.step, row.backend) for row in rows] == [
        (step, backend) for step in PASSES for backend in (BASELINE, "dense", "grid")
    ]
    for row in rows:
        assert 0 < row.wall_low_ms <= row.wall_ms <= row.wall_high_ms
        assert 0 < row.speedup_low <= row.speedup <= row.speedup_high
        assert row.flops > 0
        assert row.peak_mb > 0
        assert row.error < 1e-6
        assert row.us_per_path == pytest.approx(1e3 * row.wall_ms / row.paths)
        assert row.note == ""
    forward = {row.backend: row for row in rows if row.step == "forward"}
    assert (forward["dense"].dimension, forward["grid"].dimension) == (4, 4)
    assert forward["dense"].oracle == BASELINE
    assert forward[BASELINE].oracle == "dense"
    assert forward["grid"].oracle == "Gaunt coefficients"
    flops = {row.step: row.flops for row in rows if row.backend == "grid"}
    assert flops["forward"] < flops["backward"] < flops["double-backward"]


class Wrong(ClebschGordanDense):
    """Off by a thousandth."""

    def multiply(self, x1: torch.Tensor, x2: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return 1.001 * super().multiply(x1, x2, weight)


class Broken(ClebschGordanDense):
    """Cannot be differentiated twice."""

    def multiply(self, x1: torch.Tensor, x2: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        raise RuntimeError("no kernel\nand more")


def test_errors_and_failures_are_reported() -> None:
    plan = replace(TINY, passes=("forward",))
    factories = {"wrong": Wrong, "broken": Broken, "refuses": factory("tensor_product", "so2")}
    rows = Group(ProductCase(plan, "mimo", 1), plan, factories, {}, lambda text: None).measure("mimo", 1)
    found = {row.backend: row for row in rows}
    assert found["wrong"].error == pytest.approx(1e-3, rel=1e-3)
    assert (found["broken"].wall_ms, found["broken"].note) == (None, "no kernel")
    assert found["refuses"].wall_ms is None
    assert "mode" in found["refuses"].note


def test_nothing_is_chosen_for_one_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dimension of an automatic choice is that of its operator; its cost is not known beforehand."""
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path))
    factories = {name: factory("tensor_product", name) for name in ("auto", "auto_gaunt")}
    found = reachable_dimensions(TINY, "mimo", 2, factories)
    assert (found["auto"], found["auto_gaunt"]) == (found[BASELINE], 7)
    row = describe("auto_gaunt", factories["auto_gaunt"], "mimo", 2)
    assert (row.reach.dimension, row.expected, row.operator, row.chosen) == (9, 9, "gaunt", True)
    assert row.flops is row.bytes is None
    assert not list(tmp_path.iterdir())
    refused = describe("auto_gaunt", factories["auto_gaunt"], "mimo", 13)
    assert refused.reason.startswith("None of the candidates (gaunt_grid, gaunt_fourier, gaunt_sparse)")


def test_exponents() -> None:
    assert fitted_exponent([1, 2, 3, 4], [9.0, 8.0, 27.0, 64.0]) == pytest.approx(3.0)
    assert fitted_exponent([1, 2], [1.0, 4.0]) == pytest.approx(2.0)
    assert fitted_exponent([3], [1.0]) is None


def test_plot(tmp_path: Path) -> None:
    rows = [Measurement("mimo", l, "forward", b, wall_ms=l * 0.5) for l in (1, 2, 3) for b in (BASELINE, "x")]
    plot_times(tmp_path / "a.png", [*rows, Measurement("mimo", 1, "forward", "refused")], "title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    plot_times(tmp_path / "none.png", [Measurement("mimo", 1, "forward", "refused")], "title")
    assert not (tmp_path / "none.png").exists()


def test_expressiveness_of_one_backend() -> None:
    row = describe("dense", ClebschGordanDense, "mimo", 2)
    assert (row.reach.dimension, row.expected, row.mode, row.as_convolution) == (19, 19, "uuu", False)
    # One product with the symbols a row and channel, over all pairs of inputs and all paths.
    assert row.flops > 2 * 19
    assert row.bytes > 4 * (9 + 9 + 25)
    refused = describe("grid", GauntGrid, "mimo", 13)
    assert refused.reach is None
    assert "degrees up to" in refused.reason


def test_expected_dimensions() -> None:
    assert expected_dimension("gaunt", setting_irreps("mimo", 3)) == 13
    assert expected_dimension("gaunt", setting_irreps("mimo", 3, truncated=True)) == 10
    assert expected_dimension("clebsch_gordan", setting_irreps("mimo", 3)) == 44
    assert expected_dimension("something else", setting_irreps("mimo", 3)) is None
