"""The counter against counts by hand."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from mlip.benchmark.counting import CostCounter, count

A, B = torch.randn(10, 20), torch.randn(20, 30)


def test_matrix_products() -> None:
    cost = count(lambda: A @ B)
    assert cost.flops == 2 * 10 * 20 * 30
    assert cost.bytes == 4 * (200 + 600 + 300)
    assert cost.peak_bytes == 4 * 300
    assert not cost.opaque
    assert count(lambda: torch.einsum("ij,jk->ik", A, B)).flops == cost.flops
    assert count(lambda: torch.addmm(torch.zeros(30), A, B)).flops == cost.flops
    assert count(lambda: torch.mm(A, B, out=torch.empty(10, 30))).flops == cost.flops
    batch = torch.randn(7, 10, 20)
    assert count(lambda: torch.bmm(batch, batch.transpose(1, 2))).flops == 7 * 2 * 10 * 20 * 10


def test_complex_numbers_are_pairs() -> None:
    a, b = A.to(torch.complex64), B.to(torch.complex64)
    assert count(lambda: a @ b).flops == 4 * 2 * 10 * 20 * 30
    assert count(lambda: a * a).flops == 6 * 200
    assert count(lambda: a + a).flops == 2 * 200


def test_elementwise_and_sums() -> None:
    cost = count(lambda: (A * 2).sum(dim=1))
    assert cost.flops == 200 + 200
    assert cost.bytes == 4 * (200 + 200 + 200 + 10)
    assert count(lambda: torch.addcmul(A, A, A)).flops == 2 * 200
    target, index = torch.zeros(3, 20), torch.randint(3, (10,))
    assert count(lambda: target.index_add(0, index, A)).flops == 200


def test_views_and_copies_compute_nothing() -> None:
    assert count(lambda: A.t().unsqueeze(0).expand(5, -1, -1)[:, 1:]).bytes == 0
    moved = count(lambda: torch.cat([A, A]).t().contiguous())
    assert moved.flops == 0
    # cat reads 200 twice (once counted: the same tensor) and writes 400, contiguous reads and writes 400.
    assert moved.bytes == 4 * (200 + 200 + 400 + 400 + 400)
    expanded = A[:, :1].expand(-1, 1000)
    assert count(lambda: expanded * expanded).bytes == 4 * (10 + 10 + 10_000)


def test_backward_is_seen() -> None:
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    ones = torch.ones(10, 30)
    assert count(lambda: torch.autograd.grad(a @ b, (a, b), ones)).flops == 3 * 2 * 10 * 20 * 30


def test_peak_memory() -> None:
    """A chain holds two at a time; with a gradient everything that is saved."""
    x = torch.randn(1000)

    def chain(y: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            y = y.sin()
        return y

    assert count(lambda: chain(x)).peak_bytes == 2 * 4000
    leaf = x.clone().requires_grad_()
    # Four results are saved for the backward pass (that of the leaf is the input), the last is returned.
    assert count(lambda: chain(leaf)).peak_bytes == 5 * 4000


def test_memory_is_given_back() -> None:
    leaf = torch.randn(1000, requires_grad=True)
    with CostCounter() as counter:
        result = torch.autograd.grad(leaf.exp().sum(), leaf)
    assert counter.live == 4000
    del result
    gc.collect()
    assert counter.live == 0


def test_work_that_cannot_be_seen_is_reported() -> None:
    def unseen() -> torch.Tensor:
        result = torch.empty(5)
        result.numpy()[:] = 1.0
        return result

    assert count(unseen).opaque
    assert not count(lambda: torch.empty(5).fill_(1.0)).opaque

    @torch.library.custom_op("mlip_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    assert count(lambda: twice(A)).opaque


def test_compiled_code_runs_before_and_after() -> None:
    """Its operations are those of the code before compilation; memory is not known."""

    def backend(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., tuple[torch.Tensor]]:
        return lambda x: (torch.from_numpy(3.0 * x.numpy() + 1.0),)

    torch._dynamo.reset()
    function = torch.compile(lambda x: 3.0 * x + 1.0, backend=backend, fullgraph=True)
    for _ in range(2):
        cost = count(lambda: function(A))
        assert (cost.flops, cost.compiled, cost.memory_known) == (400, True, False)
        assert torch.equal(function(A), 3.0 * A + 1.0)
    assert count(lambda: A + 1.0).memory_known
