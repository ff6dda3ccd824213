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
from mlip.data.build_graph import as_builder, build_graph, graph_of
from mlip.data.graphs.bipartite import Bipartite
from mlip.data.sample import Sample


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


def test_labels_keep_their_kind_of_number():
    atoms = molecule("H2O")
    labels = {
        "charge": np.array(-1),
        "spin": 3.0,
        "tags": np.array([0, 1, 2], dtype=np.int8),
        "fixed": np.array([1, 0, 1]),
        "magmoms": np.array([0, 1, 2]),
        "energy": np.array(np.nan),
        "relaxed_positions": atoms.positions.astype(np.float32),
    }
    graph = build_graph(atoms, 3.0, labels)
    expected = {"int": torch.int64, "bool": torch.bool, "float": torch.float64}
    for name in labels:
        assert graph[name].dtype == expected[FIELDS[name].kind], name
    assert graph.charge.tolist() == [-1]
    assert graph.spin.tolist() == [3]
    assert graph.fixed.tolist() == [True, False, True]
    assert graph.energy.isnan().all()
    labels["tags"][0] = 7
    assert graph.tags.tolist() == [0, 1, 2], "the graph is independent of its labels"


def test_matrices_of_several_sizes_in_a_batch():
    rng = np.random.default_rng(0)
    matrices = [{name: rng.normal(size=(n, n)) for name in ("hamiltonian", "overlap")} for n in (24, 5, 38)]
    structures = [molecule("H2O"), Atoms("H"), molecule("CH3OH")]
    graphs = [build_graph(atoms, 3.0, labels) for atoms, labels in zip(structures, matrices, strict=True)]
    assert graphs[0].matrices("overlap")[0].equal(torch.tensor(matrices[0]["overlap"]))
    batch = Batch.from_data_list(graphs)
    assert batch.num_orbitals.tolist() == [24, 5, 38]
    assert batch.hamiltonian.shape == (24**2 + 5**2 + 38**2,)
    for name in ("hamiltonian", "overlap"):
        for found, labels in zip(batch.matrices(name), matrices, strict=True):
            np.testing.assert_array_equal(found.numpy(), labels[name])
    for graph, again in zip(graphs, batch.to_data_list(), strict=True):
        assert torch.equal(graph.hamiltonian, again.hamiltonian)
        assert torch.equal(graph.num_orbitals, again.num_orbitals)


def test_graph_of_a_sample_or_of_atoms():
    atoms = molecule("H2O")
    tags = np.array([2, 0, 0])
    builder = Bipartite(3.0)
    sample = Sample(atoms.copy(), {"tags": tags, "energy": np.array(-1.0)})
    graph = graph_of(sample, builder)
    assert graph.num_edges == 4
    assert graph.energy.tolist() == [-1.0]
    other = graph_of(sample, builder, {"tags": np.array([2, 2, 2]), "charge": np.array(1)})
    assert other.num_edges == 0
    assert other.charge.tolist() == [1]
    atoms.set_tags(tags)
    assert graph_of(atoms, builder).edge_index.equal(graph.edge_index)
    assert "tags" not in graph_of(atoms, as_builder(3.0)).keys()  # noqa: SIM118
    fragments = graph_of(sample, Bipartite(3.0, "fragments"), {"fragments": np.array([0, 0, 1])})
    assert fragments.num_edges == 4
    plain = build_graph(atoms, 3.0)
    assert graph_of(atoms, as_builder(3.0)).edge_index.equal(plain.edge_index)


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
        (Atoms("H"), {"force": np.zeros((1, 3))}, "'force' is no field"),
        (Atoms("H"), {"charge": np.nan}, "whole numbers"),
        (Atoms("H"), {"charge": np.inf}, "whole numbers"),
        (Atoms("H"), {"tags": np.array([0.5])}, "whole numbers"),
        (Atoms("H"), {"fixed": np.array([2])}, "true or false"),
        (Atoms("H"), {"energy": "low"}, "must be numbers"),
        (Atoms("H"), {"hamiltonian": np.zeros((2, 3))}, "square matrix"),
        (Atoms("H"), {"hamiltonian": np.zeros(4)}, "square matrix"),
        (Atoms("H"), {"hamiltonian": np.eye(2), "overlap": np.eye(3)}, "same number of orbitals"),
    ],
)
def test_bad_input_is_refused(atoms, labels, words):
    with pytest.raises(StructureError, match=words):
        build_graph(atoms, 3.0, labels)
