"""Graphs in memory and from disk, and loading that resumes exactly."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mlip.core.errors import CheckpointError, DataError
from mlip.data.datasets.base import Dataset
from mlip.data.loading import GraphDataset, ResumableLoader
from mlip.data.sample import Sample
from mlip.data.subset import SampleList, Subset, as_subset


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


@pytest.mark.parametrize(("num_workers", "stop_after"), [(0, 0), (0, 1), (0, 3), (2, 1)])
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
    [
        {"seed": 1},
        {"batch_edges": 61},
        {"batch_atoms": 30},
        {"bucket": 5},
        {"max_graphs": 2},
        {"shuffle": False},
        {"world_size": 2},
    ],
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


class OnDisk(SampleList):
    """Samples that count as not in memory; it remembers which were read."""

    def __init__(self, samples):
        super().__init__(samples)
        self.read = []

    in_memory = False

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def same_graphs(one, other):
    return all(torch.equal(one[key], other[key]) for key in ("positions", "edge_index", "cell_shifts", "energy"))


def test_graphs_of_samples_on_disk_are_built_when_asked_for_and_the_same(graphs):
    data = OnDisk(samples())
    lazy = GraphDataset(data, 3.0)
    assert lazy.content_hash == graphs.content_hash
    assert np.array_equal(lazy.num_edges, graphs.num_edges)
    assert np.array_equal(lazy.num_atoms, graphs.num_atoms)
    data.read.clear()
    assert same_graphs(lazy[5], graphs[5])
    assert data.read == [5]
    loader = ResumableLoader(lazy, 60, max_graphs=4, seed=3, batch_atoms=30)
    assert order(loader) == order(ResumableLoader(graphs, 60, max_graphs=4, seed=3, batch_atoms=30))


def test_edges_are_counted_once_and_kept_in_the_cache(monkeypatch, tmp_path, graphs):
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path))
    assert np.array_equal(GraphDataset(OnDisk(samples()), 3.0).num_edges, graphs.num_edges)
    (kept,) = tmp_path.glob("edges-*.npy")
    monkeypatch.setattr(GraphDataset, "_build", lambda *_: pytest.fail("counted again"))
    assert np.array_equal(GraphDataset(OnDisk(samples()), 3.0).num_edges, graphs.num_edges)
    monkeypatch.undo()
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path))
    for damage in (b"", kept.read_bytes()[:-3], b"x" * 200):
        kept.write_bytes(damage)
        assert np.array_equal(GraphDataset(OnDisk(samples()), 3.0).num_edges, graphs.num_edges)


def test_too_many_edges_for_memory_are_built_when_asked_for(monkeypatch, graphs):
    monkeypatch.setattr("mlip.data.graph_dataset.KEPT_EDGES", 50)
    data = GraphDataset(samples(), 3.0)
    assert data[5] is not data[5]
    assert same_graphs(data[5], graphs[5])
    assert np.array_equal(data.num_edges, graphs.num_edges)


def test_an_input_that_only_some_structures_have_is_refused():
    data = samples(3)
    data[0].labels["charge"] = np.array(1)
    with pytest.raises(DataError, match=r"a\.xyz:1 has no charge"):
        GraphDataset(data, 3.0)
    for sample in data:
        sample.labels["charge"] = np.array(1)
    assert GraphDataset(data, 3.0)[0].charge.tolist() == [1]


def test_a_subset_is_a_view(graphs):
    data = OnDisk(samples())
    part = Subset(data, [4, 2])
    assert [sample.source for sample in part] == ["a.xyz:4", "a.xyz:2"]
    assert part[1].source == "a.xyz:2"
    assert part.content_hash == Subset(SampleList([samples()[4], samples()[2]]), [0, 1]).content_hash
    assert part.content_hash != Subset(data, [2, 4]).content_hash
    assert as_subset(part) is part
    assert part.fields() == ("energy", "forces")
    assert isinstance(data, Dataset)


class Counted(OnDisk):
    """It knows the edges, so that nobody needs to build graphs before the training."""

    def num_edges(self, cutoff):
        return np.ones(len(self), dtype=np.int64)


@pytest.mark.parametrize("kind", [SampleList, OnDisk, Counted])
def test_unknown_elements_and_missing_inputs_are_found_before_the_training(kind):
    with pytest.raises(
        DataError, match=r"a\.xyz:2: The structure contains Cu, which the model does not know; it knows H, C, O"
    ):
        GraphDataset(kind(samples(4)), 3.0, elements=("H", "C", "O"))
    assert len(GraphDataset(kind(samples(4)), 3.0, elements=("H", "C", "O", "Cu"))) == 4
    data = samples(4)
    data[1].labels["spin"] = np.array(1)
    with pytest.raises(DataError, match=r"a\.xyz:0 has no spin"):
        GraphDataset(kind(data), 3.0)
    assert "spin" not in GraphDataset(kind(data), 3.0, labels=["energy"])[1]


def test_graphs_that_are_needed_once_are_neither_kept_nor_counted(graphs):
    data = OnDisk(samples())
    once = GraphDataset(data, 3.0, labels=["energy"], once=True)
    data.read.clear()
    assert all(same_graphs(one, other) for one, other in zip(once, graphs, strict=True))
    assert data.read == list(range(len(data)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_is_the_same_sentence(num_workers):
    data = Counted(samples(6))
    loader = ResumableLoader(GraphDataset(data, 3.0), None, 2, shuffle=False, num_workers=num_workers)
    data[4].atoms.positions[0, 0] = np.nan
    batches = iter(loader)
    assert order([next(batches), next(batches)]) == [[0, 1], [2, 3]]
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value).startswith("a.xyz:4: Positions must be finite")
    assert "Traceback" not in str(caught.value)


def test_loading_draws_no_random_numbers(graphs):
    """A resumed run starts its loader once more than one that was never stopped."""
    before = torch.get_rng_state()
    list(ResumableLoader(graphs, 60))
    assert torch.equal(torch.get_rng_state(), before)
