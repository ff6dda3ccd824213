"""Random numbers of structures against the published generator, statistics, and other orders and batches."""

import numpy as np
import torch

from mlip.ops.structure_draws import _GOLDEN, _mix, _signed, structure_draws


def test_the_finaliser_is_that_of_splitmix64() -> None:
    """First numbers of the generator with the seed 1234567, as its reference implementation prints them."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = [(1234567 + (k + 1) * _GOLDEN) % 2**64 for k in range(4)]
    found = _mix(torch.tensor([_signed(state) for state in states]))
    assert [value % 2**64 for value in found.tolist()] == published


def test_uniform_and_independent() -> None:
    # Positions that differ in one digit of one atom: as close as structures come.
    positions = torch.randn(3, 3, dtype=torch.float64).repeat(20_000, 1, 1)
    positions[:, 0, 0] += torch.arange(20_000) * 1e-9
    draws = structure_draws(positions.view(-1, 3), torch.arange(60_000) // 3, 20_000, 4).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        counts = np.bincount((column * 20).astype(int), minlength=20)
        assert ((counts - 1000) ** 2 / 1000).sum() < 50
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(draws[1:, 0], draws[:-1, 0])[0, 1]) < 0.03


def test_only_the_positions_count() -> None:
    first, second = torch.randn(2, 4, 3, dtype=torch.float64)
    alone = structure_draws(first, torch.zeros(4, dtype=torch.long), 1, 3)
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    together = structure_draws(torch.cat([second, first.flip(0)]), batch, 2, 3)
    assert torch.equal(together[1], alone[0])
    assert not torch.isclose(together[0], alone[0]).any()
    # Zero is zero, and an axis is not another.
    zero = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.long)
    assert torch.equal(structure_draws(zero, one, 1, 1), structure_draws(zero * torch.tensor([-1, 1, 1]), one, 1, 1))
    assert not torch.equal(structure_draws(zero, one, 1, 1), structure_draws(zero.flip(1), one, 1, 1))
