"""The gate of norms and its perceptron: against their formulas, and under rotations and reflections."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.nn.dense import Dense
from mlip.nn.norm_gate import SMALLEST, NormGate
from mlip.ops.layout import split_blocks
from mlip.testing.wigner import random_rotation, transform

IRREPS = Irreps("4x0e+3x0o+3x1o+2x1e+2x2e")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained_like(module: torch.nn.Module) -> torch.nn.Module:
    """Return it in float64 with all parameters random, biases and scales included."""
    module.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


def test_dense_against_its_formula() -> None:
    dense, x = trained_like(Dense([5, 7, 3])), random(6, 5)
    (w1, w2), (b1, b2) = dense.weights, dense.biases
    hidden = x @ w1 / 5**0.5 + b1
    hidden = 1.6765324703310907 * hidden * torch.sigmoid(hidden)
    assert torch.allclose(dense(x), hidden @ w2 / 7**0.5 + b2, atol=1e-13)
    columns = torch.tensor([2, 0])
    assert torch.allclose(dense(x, columns), dense(x)[:, columns], atol=1e-13)
    single = trained_like(Dense([5, 3]))
    assert torch.allclose(single(x), x @ single.weights[0] / 5**0.5 + single.biases[0], atol=1e-13)
    assert Dense([5, 3])(torch.zeros(0, 5)).shape == (0, 3)


def test_dense_computes_the_columns_alone() -> None:
    dense = trained_like(Dense([5, 7, 4]))
    dense(random(6, 5), torch.tensor([1, 3])).sum().backward()
    gradient = dense.weights[-1].grad.abs().sum(dim=0) > 0
    assert gradient.tolist() == [False, True, False, True]


def test_gate_against_its_formula() -> None:
    gate, x = trained_like(NormGate(IRREPS, 8)), random(5, IRREPS.dim)
    blocks = split_blocks(x, IRREPS)
    sizes = [blocks[0][:, 0], *((block.square().mean(dim=1) + SMALLEST).sqrt() for block in blocks[1:])]
    factors = gate.dense(torch.cat(sizes, dim=1)).split([4, 3, 3, 2, 2], dim=1)
    found = split_blocks(gate(x), IRREPS)
    assert torch.allclose(found[0][:, 0], factors[0], atol=1e-13)
    for block, factor, result in zip(blocks[1:], factors[1:], found[1:], strict=True):
        assert torch.allclose(result, block * factor[:, None], atol=1e-13)


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
@pytest.mark.parametrize("invert", [False, True])
def test_gate_is_equivariant(dtype: torch.dtype, bar: float, invert: bool) -> None:
    """0o is no scalar: it changes its sign under inversion."""
    gate, x, rotation = trained_like(NormGate(IRREPS, 8)).to(dtype), random(5, IRREPS.dim), random_rotation(2)
    found = gate(transform(x, IRREPS, rotation, invert).to(dtype))
    assert found.dtype == dtype
    assert (found - transform(gate(x.to(dtype)).double(), IRREPS, rotation, invert)).abs().max() < bar


def test_gate_of_nothing_is_finite_and_so_are_its_slopes() -> None:
    gate, x = trained_like(NormGate(IRREPS, 8)), torch.zeros(2, IRREPS.dim, dtype=torch.float64, requires_grad=True)
    found = gate(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(gradient).all()
    assert all(torch.isfinite(p.grad).all() for p in gate.parameters())
    assert not found[:, 4:].any()
    assert gate(random(0, IRREPS.dim)).shape == (0, IRREPS.dim)
