"""Graphs and batches of graphs."""

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms
from torch_geometric.data import Batch

from mlip.core.errors import StructureError
from mlip.core.fields import FIELDS
from mlip.data.build_graph import build_graph


def labelled(atoms, seed=0):
    rng = np.random.default_rng(seed)
    labels = {
        "energy": rng.normal(),
        "forces": rng.normal(size=(len(atoms), 3)),
        "stress": rng.normal(size=(3, 3)),
    }
    return build_graph(atoms, 4.0, labels)


def structures():
    return [
        molecule("CH3OH"),
        Atoms("H"),
        bulk("Si"),
        fcc111("Al", (1, 1, 2)),
        Atoms("He2", [[0, 0, 0], [90, 0, 0]]),
    ]


@pytest.mark.parametrize("atoms", structures(), ids=str)
def test_fields_have_the_stated_shapes_and_types(atoms):
    graph = labelled(atoms)
    sizes = {"graph": 1, "atom": len(atoms), "edge": graph.num_edges}
    for name in graph.keys():  # noqa: SIM118
        if name in FIELDS:
            assert tuple(graph[name].shape) == (sizes[FIELDS[name].level], *FIELDS[name].shape), name
    for name in ("positions", "cell", "energy", "forces", "stress"):
        assert graph[name].dtype == torch.float64
    assert graph.edge_index.dtype == graph.cell_shifts.dtype == graph.atomic_numbers.dtype == torch.int64
    assert graph.pbc.dtype == torch.bool
    assert graph.num_nodes == len(atoms)


def test_batch_takes_apart_into_its_graphs():
    graphs = [labelled(atoms, seed) for seed, atoms in enumerate(structures())]
    batch = Batch.from_data_list(graphs)
    assert batch.num_graphs == len(graphs)
    assert batch.num_nodes == sum(graph.num_nodes for graph in graphs)
    assert batch.cell.shape == batch.stress.shape == (len(graphs), 3, 3)
    assert batch.pbc.shape == (len(graphs), 3)
    assert batch.energy.shape == (len(graphs),)
    assert (batch.receivers.diff() >= 0).all()
    assert torch.equal(batch.batch[batch.senders], batch.batch[batch.receivers])
    for graph, again in zip(graphs, batch.to_data_list(), strict=True):
        assert set(graph.keys()) == set(again.keys())
        assert all(torch.equal(graph[name], again[name]) for name in graph.keys() if name != "num_nodes")  # noqa: SIM118


def test_edge_vectors_of_a_batch_are_those_of_its_graphs():
    def lengths(graph, batch):
        cell = graph.cell[batch[graph.receivers]]
        shift = torch.einsum("ei,eij->ej", graph.cell_shifts.double(), cell)
        return (graph.positions[graph.senders] + shift - graph.positions[graph.receivers]).norm(dim=1)

    graphs = [labelled(atoms) for atoms in structures()]
    single = [lengths(graph, torch.zeros(graph.num_nodes, dtype=torch.int64)) for graph in graphs]
    batch = Batch.from_data_list(graphs)
    together = lengths(batch, batch.batch)
    assert torch.equal(together, torch.cat(single))
    assert together.max() < 4.0


def test_graph_copies_pickles_and_is_independent_of_the_atoms():
    atoms = molecule("H2O")
    graph = build_graph(atoms, 3.0)
    for again in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph), graph.clone()):
        assert type(again) is type(graph)
        assert torch.equal(again.edge_index, graph.edge_index)
        assert again.num_nodes == 3
    atoms.positions += 1.0
    assert not np.allclose(graph.positions.numpy(), atoms.positions)


def test_constraints_do_not_matter():
    atoms = molecule("H2O")
    forces = np.ones((3, 3))
    atoms.set_constraint(FixAtoms([0]))
    assert torch.equal(build_graph(atoms, 3.0, {"forces": forces}).forces, torch.ones(3, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("atoms", "labels", "words"),
    [
        (Atoms(), None, "at least one atom"),
        (Atoms("XH", positions=[[0, 0, 0], [1, 0, 0]]), None, "1 to 118"),
        (Atoms("H"), {"forces": np.zeros((2, 3))}, r"shape \(1, 3\), got \(2, 3\)"),
        (Atoms("H"), {"stress": np.zeros(6)}, "stress"),
        (Atoms("H", pbc=True), None, "lattice vectors"),
    ],
)
def test_bad_input_is_refused(atoms, labels, words):
    with pytest.raises(StructureError, match=words):
        build_graph(atoms, 3.0, labels)
