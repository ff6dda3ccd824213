"""Sparse products, compiled: the same numbers, few builds, and a clear fallback where nothing can be compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import torch

from mlip.ops.layout import natural_irreps
from mlip.ops.tensor_product import unrolled
from mlip.ops.tensor_product.nonzeros import contract
from tests.components import factory
from tests.ops.test_sparse import EVERY, gaunt_table, random_operands


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget what was compiled, and what failed to."""
    caches = (unrolled._compiled, unrolled._warn_once)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def compiler(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the product would quietly be eager."""
    monkeypatch.setattr(unrolled, "_warn_once", lambda reason: pytest.fail(reason))


def slow_compilation(test: Callable[..., None]) -> Callable[..., None]:
    # Torch warns of its own imports.
    quiet = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
    return pytest.mark.slow(pytest.mark.usefixtures("compiler")(quiet(test)))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", ["clebsch_gordan_sparse", "gaunt_sparse"])
def test_without_a_compiler_it_is_eager_with_one_warning(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nwas found")

    monkeypatch.setattr(unrolled, "compiled_function", no_compiler)
    irreps = natural_irreps(1, 2)
    eager, compiled = (
        factory("tensor_product", name)(irreps, irreps, irreps, mode="uuu", compile=choice).double()
        for choice in (False, True)
    )
    torch.manual_seed(0)
    inputs = [torch.randn(3, n, dtype=torch.float64) for n in (irreps.dim, irreps.dim, eager.weight_numel)]
    inputs = [x.requires_grad_() for x in inputs]
    with caplog.at_level(logging.WARNING):
        results = [product(*inputs) for product in (eager, compiled)]
        gradients = [torch.autograd.grad(result.sum(), inputs) for result in results]
    assert torch.equal(*results)
    assert all(torch.equal(a, b) for a, b in zip(*gradients))
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile does not work here, sparse products run eagerly: no C++ compiler was found"
    ]


def test_large_tables_are_not_compiled(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(unrolled, "compiled_function", lambda *_: pytest.fail("this takes minutes"))
    irreps = natural_irreps(5, 1)
    with caplog.at_level(logging.WARNING):
        product = factory("tensor_product", "gaunt_sparse")(irreps, irreps, irreps, mode="uuu", compile=True)
    assert "it runs eagerly" in caplog.text
    x = torch.randn(3, irreps.dim, dtype=torch.float64)
    weight = torch.randn(3, product.weight_numel, dtype=torch.float64)
    plain = factory("tensor_product", "gaunt_sparse")(irreps, irreps, irreps, mode="uuu")
    assert torch.equal(product(x, x, weight), plain(x, x, weight))


@slow_compilation
@pytest.mark.parametrize(("mode", "weights"), [("uuu", "path"), ("uvu", "path_channel")])
def test_compiled_numbers_and_derivatives(mode: str, weights: str) -> None:
    irreps = natural_irreps(1, 16)
    second = natural_irreps(1, 1) if mode == "uvu" else irreps
    eager, compiled = (
        factory("tensor_product", "clebsch_gordan_sparse")(irreps, second, irreps, mode, weights, compile=choice)
        for choice in (False, True)
    )
    torch.manual_seed(0)
    sizes = [n for n in (irreps.dim, second.dim, eager.weight_numel) if n]
    inputs = [torch.randn(6, n, dtype=torch.float64).requires_grad_() for n in sizes]
    torch.testing.assert_close(compiled(*inputs), eager(*inputs), rtol=0, atol=1e-12)
    # Of the second derivatives one case is enough: every slot has its turn, and each build takes seconds.
    orders = []
    for product in (eager, compiled):
        first = torch.autograd.grad(product(*inputs).pow(2).sum(), inputs, create_graph=mode == "uvu")
        second_order = torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs) if mode == "uvu" else ()
        orders.append((*first, *second_order))
    torch.testing.assert_close(*orders, rtol=1e-11, atol=1e-11)
    single = [x.detach().float() for x in inputs]
    error = (compiled(*single).double() - eager(*inputs)).abs().max() / eager(*inputs).abs().max()
    assert error < 1e-6


@slow_compilation
def test_compiled_gradchecks() -> None:
    table = gaunt_table(1)
    x, y, _ = (t.requires_grad_() for t in random_operands(table, EVERY, rows=2, channels=2))
    assert torch.autograd.gradcheck(lambda *t: contract(table, *t, evaluator=unrolled.evaluate_compiled), (x, y))
    assert torch.autograd.gradgradcheck(lambda *t: contract(table, *t, evaluator=unrolled.evaluate_compiled), (x, y))


@slow_compilation
def test_other_numbers_of_rows_and_other_layers_compile_nothing_new() -> None:
    irreps = natural_irreps(1, 8)
    make = factory("tensor_product", "clebsch_gordan_sparse")
    layers = [make(irreps, irreps, irreps, "uuu", "none", compile=True) for _ in range(2)]
    counters = torch._dynamo.utils.counters["stats"]
    before = counters["unique_graphs"]
    for rows in (7, 300, 0, 1, 2, 1000, 41):
        for product in layers:
            x1, x2 = torch.randn(rows, irreps.dim), torch.randn(rows, irreps.dim)
            torch.testing.assert_close(product(x1, x2), make(irreps, irreps, irreps, "uuu", "none")(x1, x2))
    assert counters["unique_graphs"] - before == 1
