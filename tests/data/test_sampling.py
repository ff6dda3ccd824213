"""Batches within budgets of edges and atoms, whatever the sizes, ranks and epochs."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlip.core.errors import ConfigError
from mlip.data.sampling import EdgeBudgetSampler

sizes = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=60)
limit = st.one_of(st.none(), st.integers(1, 100))


@given(sizes, limit, limit, st.integers(1, 5), st.sampled_from([0, 1, 7, 100]), st.integers(0, 3), st.integers(1, 4))
def test_batches_keep_the_budgets_and_cover_every_graph_once(
    counts, max_edges, max_atoms, max_graphs, bucket, epoch, world_size
):
    num_edges, num_atoms = (list(column) for column in zip(*counts))
    ranks = [
        EdgeBudgetSampler(
            num_edges, max_edges, max_graphs, seed=7, rank=rank, world_size=world_size,
            num_atoms=num_atoms, max_atoms=max_atoms, bucket=bucket,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    for sampler in ranks:
        sampler.set_epoch(epoch)
    shares = [list(sampler) for sampler in ranks]
    assert len({len(share) for share in shares}) == 1
    assert all(len(sampler) == len(share) for sampler, share in zip(ranks, shares, strict=True))
    batches = [batch for share in shares for batch in share]
    for batch in batches:
        assert 0 < len(batch) <= max_graphs
        for budget, sizes in ((max_edges, num_edges), (max_atoms, num_atoms)):
            assert budget is None or sum(sizes[index] for index in batch) <= budget or len(batch) == 1
    seen = sorted(index for batch in batches for index in batch)
    assert set(seen) == set(range(len(num_edges)))
    # Graphs are seen twice only where no batch is left that could be halved.
    most_repeats = world_size - 1 if all(len(batch) == 1 for batch in batches) else 0
    assert len(seen) - len(num_edges) <= most_repeats


def test_whichever_limit_is_reached_first_closes_a_batch():
    def lengths(max_edges, max_graphs, **further):
        return [
            len(b) for b in EdgeBudgetSampler([10] * 12, max_edges, max_graphs, shuffle=False, **further).batches(0)
        ]

    assert lengths(1000, 5) == [5, 5, 2]
    assert lengths(None, 5) == [5, 5, 2]
    assert lengths(40, 5) == [4, 4, 4]
    assert lengths(39, 5) == [3, 3, 3, 3]
    assert lengths(40, None) == [4, 4, 4]
    assert lengths(5, None) == [1] * 12
    assert lengths(40, None, num_atoms=[2] * 12, max_atoms=6) == [3, 3, 3, 3]
    assert lengths(None, None, num_atoms=[2] * 12, max_atoms=9) == [4, 4, 4]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.integers(0, 5), st.sampled_from([0, 10]))
def test_batches_are_a_pure_function_of_seed_and_epoch(num_edges, seed, bucket):
    one, other = (EdgeBudgetSampler(num_edges, 50, seed=seed, bucket=bucket) for _ in range(2))
    later = one.batches(3)
    assert other.batches(0) == one.batches(0)
    assert other.batches(3) == later == one.batches(3)


def test_epochs_and_seeds_differ_and_no_shuffling_keeps_the_order():
    counts = [10] * 40
    sampler = EdgeBudgetSampler(counts, 40, seed=0)
    assert sampler.batches(0) != sampler.batches(1)
    assert sampler.batches(0) != EdgeBudgetSampler(counts, 40, seed=1).batches(0)
    still = EdgeBudgetSampler(counts, 40, shuffle=False, bucket=10)
    assert still.batches(5) == [list(range(start, start + 4)) for start in range(0, 40, 4)]


def test_buckets_bring_like_sizes_together():
    num_edges = np.random.default_rng(0).lognormal(6, 1, 5000).astype(int)

    def spread(bucket):
        batches = EdgeBudgetSampler(num_edges, 10_000, seed=0, bucket=bucket).batches(0)
        return np.mean([np.std(num_edges[batch]) for batch in batches if len(batch) > 1])

    assert spread(1000) < spread(0) / 3
    # The order of the batches is drawn: large ones do not all come last.
    means = [np.mean(num_edges[b]) for b in EdgeBudgetSampler(num_edges, 10_000, seed=0, bucket=5000).batches(0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_global_random_state_does_not_matter():
    sampler = EdgeBudgetSampler([10] * 20, 40, seed=0)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = EdgeBudgetSampler([10] * 20, 40, seed=0).batches(2)
    assert torch.equal(state, torch.get_rng_state())
    assert sampler.batches(2) == first


@pytest.mark.parametrize(
    "limits",
    [
        {"max_edges": None},
        {"max_edges": 0},
        {"max_edges": 5, "max_graphs": 0},
        {"max_edges": 5, "rank": 2},
        {"max_edges": 5, "bucket": -1},
        {"max_edges": None, "max_atoms": 3},
        {"max_edges": None, "max_atoms": 3, "num_atoms": [1]},
    ],
)
def test_limits_that_make_no_batches_are_refused(limits):
    with pytest.raises(ConfigError):
        EdgeBudgetSampler([1, 2], **limits)


def test_a_million_structures_take_seconds():
    num_edges = np.random.default_rng(0).integers(100, 3000, 1_000_000)
    started = time.perf_counter()
    sampler = EdgeBudgetSampler(num_edges, 50_000, seed=0, rank=1, world_size=4, bucket=10_000)
    assert len(sampler) > 1000
    assert len(sampler.fingerprint) == 64
    assert time.perf_counter() - started < 20
