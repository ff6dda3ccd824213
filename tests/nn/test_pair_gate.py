"""The sparse pair gate: its share, its ties, and that a molecule never sees those beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.orbitals.pair_gate import PairGate


def gate(sparsity: float, num_scalars: int = 1) -> PairGate:
    """Return a gate whose score is the first scalar."""
    made = PairGate(num_scalars, sparsity).double()
    with torch.no_grad():
        made.weight.zero_()[0] = num_scalars**0.5
    return made


def scores(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def random(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ONE = torch.zeros(10, dtype=torch.long)


@pytest.mark.parametrize(("sparsity", "count"), [(0.0, 10), (0.3, 7), (0.7, 3), (0.75, 3), (0.99, 1)])
def test_keeps_the_best_and_their_share(sparsity: float, count: int) -> None:
    s = random(10)
    kept, strength = gate(sparsity)(s, ONE, 1)
    best = s[:, 0].sort(descending=True).values
    assert torch.equal(s[kept, 0].sort(descending=True).values, best[:count])
    assert torch.equal(kept, kept.sort().values)
    assert torch.allclose(strength, torch.sigmoid(s[kept, 0] - best[count - 1]))
    assert float(strength.detach().min()) == 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 1001])
def test_share_of_any_number_of_pairs(count: int) -> None:
    """0.29 of 100 pairs are 29, although 0.29 · 100 is 28.999… in floating point."""
    for percent in (0, 29, 57, 58, 70, 90):
        kept, _ = gate(percent / 100)(random(count), torch.zeros(count, dtype=torch.long), 1)
        assert len(kept) == count - count * percent // 100


def test_a_molecule_does_not_see_its_batch() -> None:
    """The published gate takes the quantile of the batch. A molecule without pairs stands in between."""
    sizes = [12, 0, 2, 1, 30, 0]
    parts = [random(size, seed=k) + k for k, size in enumerate(sizes)]
    made = gate(0.7)
    molecule = torch.repeat_interleave(torch.arange(6), torch.tensor(sizes))
    together = made(torch.cat(parts), molecule, 6)
    starts = [sum(sizes[:k]) for k in range(6)]
    alone = [made(part, torch.zeros(len(part), dtype=torch.long), 1) for part in parts]
    assert torch.equal(together.kept, torch.cat([one.kept + start for one, start in zip(alone, starts, strict=True)]))
    assert torch.equal(together.strength, torch.cat([one.strength for one in alone]))


def test_ties_are_kept() -> None:
    """Pairs that a symmetry exchanges have equal scores up to rounding; which comes first must not matter."""
    near = 1.0 + 1e-12
    kept, strength = gate(0.5)(scores(1.0, 3.0, near, 0.0, 1.0, near), ONE[:6], 1)
    assert kept.tolist() == [0, 1, 2, 4, 5]
    assert torch.allclose(strength[[0, 2, 3, 4]], torch.full((4,), 0.5, dtype=torch.float64))
    assert len(gate(0.9)(torch.zeros(8, 1, dtype=torch.float64), ONE[:8], 1).kept) == 8
    # Scores that differ for a reason are no ties.
    assert gate(0.5)(scores(1.0, 3.0, 1.001, 0.0), ONE[:4], 1).kept.tolist() == [1, 2]


def test_order_of_the_pairs_does_not_matter() -> None:
    s, order = random(10), torch.randperm(10, generator=torch.Generator().manual_seed(3))
    kept, strength = gate(0.6)(s, ONE, 1)
    other = gate(0.6)(s[order], ONE, 1)
    assert set(order[other.kept].tolist()) == set(kept.tolist())
    assert torch.equal(other.strength.sort().values, strength.sort().values)


def test_the_score_is_trained() -> None:
    made = PairGate(3, 0.5).double()
    s = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    made(s, ONE, 1).strength.square().sum().backward()
    assert made.weight.grad.abs().min() > 0
    assert torch.isfinite(s.grad).all()


def test_float32_chooses_the_same() -> None:
    s = random(10)
    assert torch.equal(gate(0.7).float()(s.float(), ONE, 1).kept, gate(0.7)(s, ONE, 1).kept)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, True, "0.7", None, float("nan")])
def test_no_share(sparsity: object) -> None:
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        PairGate(3, sparsity)
