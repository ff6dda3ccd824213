"""Batches within a budget of edges, and loading that resumes exactly."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st

from mlip.core.errors import CheckpointError, ConfigError, DataError
from mlip.data.loading import GraphDataset, ResumableLoader
from mlip.data.sample import Sample
from mlip.data.sampling import EdgeBudgetSampler


def samples(count=17):
    made = []
    for number in range(count):
        atoms = [molecule("CH3OH"), molecule("H2O"), bulk("Cu"), Atoms("H")][number % 4].copy()
        atoms.rattle(0.01, seed=number)
        labels = {"energy": np.array(float(number)), "forces": np.full((len(atoms), 3), float(number))}
        made.append(Sample(atoms, labels, {"source": f"a.xyz:{number}"}))
    return made


@pytest.fixture(scope="module")
def graphs():
    return GraphDataset(samples(), 3.0)


def order(batches):
    """The samples of each batch: their energies are their numbers."""
    return [batch.energy.int().tolist() for batch in batches]


edge_counts = st.lists(st.integers(0, 60), min_size=1, max_size=60)


@given(
    edge_counts,
    st.integers(1, 100),
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_batches_keep_the_budget_and_cover_every_graph_once(num_edges, budget, max_graphs, epoch, world_size):
    ranks = [
        EdgeBudgetSampler(num_edges, budget, max_graphs, seed=7, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for sampler in ranks:
        sampler.set_epoch(epoch)
    shares = [list(sampler) for sampler in ranks]
    assert len({len(share) for share in shares}) == 1
    assert all(len(sampler) == len(share) for sampler, share in zip(ranks, shares, strict=True))
    batches = [batch for share in shares for batch in share]
    for batch in batches:
        assert batch
        assert sum(num_edges[index] for index in batch) <= budget or len(batch) == 1
        assert max_graphs is None or len(batch) <= max_graphs
    seen = sorted(index for batch in batches for index in batch)
    assert set(seen) == set(range(len(num_edges)))
    # Graphs are seen twice only where no batch is left that could be halved.
    most_repeats = world_size - 1 if all(len(batch) == 1 for batch in batches) else 0
    assert len(seen) - len(num_edges) <= most_repeats


def test_whichever_limit_is_reached_first_closes_a_batch():
    def sizes(max_edges, max_graphs):
        batches = EdgeBudgetSampler([10] * 12, max_edges, max_graphs, shuffle=False).batches(0)
        return [len(batch) for batch in batches]

    assert sizes(1000, 5) == [5, 5, 2]
    assert sizes(None, 5) == [5, 5, 2]
    assert sizes(40, 5) == [4, 4, 4]
    assert sizes(39, 5) == [3, 3, 3, 3]
    assert sizes(40, None) == [4, 4, 4]
    assert sizes(5, None) == [1] * 12


@given(edge_counts, st.integers(0, 5))
def test_batches_are_a_pure_function_of_seed_and_epoch(num_edges, seed):
    one, other = (EdgeBudgetSampler(num_edges, 50, seed=seed) for _ in range(2))
    later = one.batches(3)
    assert other.batches(0) == one.batches(0)
    assert other.batches(3) == later == one.batches(3)


def test_epochs_and_seeds_differ_and_no_shuffling_keeps_the_order():
    counts = [10] * 40
    sampler = EdgeBudgetSampler(counts, 40, seed=0)
    assert sampler.batches(0) != sampler.batches(1)
    assert sampler.batches(0) != EdgeBudgetSampler(counts, 40, seed=1).batches(0)
    still = EdgeBudgetSampler(counts, 40, shuffle=False)
    assert still.batches(5) == [list(range(start, start + 4)) for start in range(0, 40, 4)]


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
    [{"max_edges": None}, {"max_edges": 0}, {"max_edges": 5, "max_graphs": 0}, {"max_edges": 5, "rank": 2}],
)
def test_limits_that_make_no_batches_are_refused(limits):
    with pytest.raises(ConfigError):
        EdgeBudgetSampler([1, 2], **limits)


def test_graphs_without_a_label_get_nan():
    data = samples(3)
    del data[1].labels["forces"]
    data[2].labels["stress"] = np.eye(3)
    graphs = GraphDataset(data, 3.0)
    assert graphs.labels == ("energy", "forces", "stress")
    batch = next(iter(ResumableLoader(graphs, 10_000, shuffle=False)))
    assert batch.forces[batch.batch == 1].isnan().all()
    assert not batch.forces[batch.batch != 1].isnan().any()
    assert batch.stress.isnan().any(dim=(1, 2)).tolist() == [True, True, False]


def test_structure_without_a_graph_is_named():
    with pytest.raises(DataError, match=r"b\.xyz:3: The periodic|b\.xyz:3: Periodic"):
        GraphDataset([Sample(Atoms("H", pbc=True), {}, {"source": "b.xyz:3"})], 3.0)


def test_only_graphs_without_edges():
    data = [Sample(Atoms("H"), {"energy": np.array(float(number))}) for number in range(5)]
    loader = ResumableLoader(GraphDataset(data, 3.0), batch_edges=2, shuffle=False)
    batches = list(loader)
    assert order(batches) == [[0, 1], [2, 3], [4]]
    assert batches[0].edge_index.shape == (2, 0)
    assert batches[0].cell_shifts.shape == (0, 3)


def test_every_epoch_loads_every_graph_once(graphs):
    loader = ResumableLoader(graphs, 60, max_graphs=4)
    orders = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        batches = order(loader)
        assert len(batches) == len(loader)
        assert sorted(number for batch in batches for number in batch) == list(range(len(graphs)))
        orders.append(batches)
    assert orders[0] != orders[1] != orders[2]
    loader.set_epoch(0)
    assert order(loader) == orders[0]
    assert order(loader) == orders[0], "iterating again starts from the first batch"


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop_after", [0, 1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with a single core
def test_resume_continues_exactly(graphs, num_workers, stop_after):
    def make():
        return ResumableLoader(graphs, 60, max_graphs=4, seed=3, num_workers=num_workers)

    whole = make()
    expected = []
    for epoch in (0, 1, 2):
        whole.set_epoch(epoch)
        expected += order(whole)

    first = make()
    seen = order(first)
    first.set_epoch(1)
    batches = iter(first)
    seen += order(next(batches) for _ in range(stop_after))
    state = json.loads(json.dumps(first.state_dict()))
    assert state["epoch"] == 1
    assert state["batches_done"] == stop_after

    second = make()
    second.load_state_dict(state)
    assert second.state_dict() == state
    seen += order(second)
    second.set_epoch(2)
    seen += order(second)
    assert seen == expected


def test_resume_at_the_end_of_an_epoch_and_setting_the_same_epoch(graphs):
    loader = ResumableLoader(graphs, 60)
    loader.set_epoch(4)
    everything = order(loader)
    state = loader.state_dict()
    again = ResumableLoader(graphs, 60)
    again.load_state_dict(state)
    again.set_epoch(4)
    assert order(again) == []
    assert order(again) == everything, "only the first iteration continues"
    again.load_state_dict(state)
    again.set_epoch(5)
    assert len(order(again)) == len(again), "another epoch starts from its first batch"


def test_epoch_set_between_iter_and_next_is_heeded(graphs):
    loader = ResumableLoader(graphs, 60)
    iterator = iter(loader)
    loader.set_epoch(2)
    expected = ResumableLoader(graphs, 60)
    expected.set_epoch(2)
    assert order(iterator) == order(expected)


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"batch_edges": 61}, {"max_graphs": 2}, {"shuffle": False}, {"world_size": 2}],
    ids=str,
)
def test_other_settings_are_refused(graphs, other):
    state = ResumableLoader(graphs, 60).state_dict()
    with pytest.raises(CheckpointError, match="cannot be continued exactly"):
        ResumableLoader(graphs, **({"batch_edges": 60} | other)).load_state_dict(state)


def test_other_data_are_refused(graphs):
    state = ResumableLoader(graphs, 60).state_dict()
    data = samples()
    data[3].labels["energy"] = np.array(3.5)
    for changed in (GraphDataset(data, 3.0), GraphDataset(samples(), 3.0000001)):
        with pytest.raises(CheckpointError, match="other training data"):
            ResumableLoader(changed, 60).load_state_dict(state)


@pytest.mark.parametrize("damage", [{"batches_done": 10_000}, {"batches_done": -1}, {"epoch": "x"}, {"epoch": None}])
def test_damaged_state_is_refused(graphs, damage):
    loader = ResumableLoader(graphs, 60)
    with pytest.raises(CheckpointError, match="damaged"):
        loader.load_state_dict(loader.state_dict() | damage)
    with pytest.raises(CheckpointError, match="damaged"):
        loader.load_state_dict({})
