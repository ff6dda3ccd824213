"""Forces and stress: a model whose answer is known in closed form, and the shape of the interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from torch import Tensor
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError
from mlip.data.build_graph import build_graph
from mlip.data.graph import AtomGraph
from mlip.models.base import graph_index
from mlip.nn.derivatives import periodic_projector, predict
from mlip.nn.edge_vectors import edge_vectors
from mlip.ops.segment import segment_sum
from mlip.testing.structures import molecule, skewed_cell, slab

CUTOFF, EPSILON, SIGMA = 5.0, 0.07, 2.3


def lennard_jones(graph: AtomGraph) -> dict[str, Tensor]:
    """A Lennard-Jones potential, shifted to zero at the cutoff as ASE's."""
    batch = graph_index(graph)
    vectors = edge_vectors(
        graph.positions, graph.cell, graph.cell_shifts, graph.senders, graph.receivers, batch[graph.receivers]
    )
    c6 = (SIGMA**2 / vectors.square().sum(dim=1)) ** 3
    shift = 4 * EPSILON * ((SIGMA / CUTOFF) ** 12 - (SIGMA / CUTOFF) ** 6)
    energies = segment_sum(0.5 * (4 * EPSILON * (c6**2 - c6) - shift), graph.receivers, len(batch))
    return {"energies": energies, "energy": segment_sum(energies, batch, graph.cell.shape[0])}


def structures() -> dict[str, Atoms]:
    wire = Atoms(
        "Si2",
        positions=[[0, 0, 0], [1.3, 2.0, 0.3]],
        cell=[[3.1, 0.4, 0.2], [0, 9, 0], [0, 0, 9]],
        pbc=[1, 0, 0],
    )
    return {
        "bulk": skewed_cell(["Si"]),
        "slab": slab(["Si"]),
        "wire": wire,
        "molecule": molecule(["Si"], num_atoms=5),
    }


@pytest.mark.parametrize("name", ["bulk", "slab", "wire", "molecule"])
def test_against_ases_lennard_jones(name: str) -> None:
    atoms = structures()[name]
    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF, smooth=False)
    found = predict(lennard_jones, build_graph(atoms, CUTOFF), ("energy", "forces", "stress"))
    assert float(found["energy"]) == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    assert found["forces"].numpy() == pytest.approx(atoms.get_forces(), abs=1e-11)
    if name == "bulk":
        assert found["stress"][0].numpy() == pytest.approx(atoms.get_stress(voigt=False), abs=1e-13)


@pytest.mark.parametrize("name", ["slab", "wire"])
def test_stress_lies_along_the_periodic_directions(name: str) -> None:
    atoms = structures()[name]
    stress = predict(lennard_jones, build_graph(atoms, CUTOFF), ("stress",))["stress"][0].numpy()
    periodic = atoms.cell.array[atoms.pbc]
    normals = np.linalg.svd(periodic)[2][len(periodic) :]
    assert np.abs(stress @ normals.T).max() < 1e-14
    assert np.abs(stress).max() > 1e-4
    # The other two vectors say only how much vacuum is counted: force per area times height is what is left.
    taller = atoms.copy()
    taller.cell[2] *= 2
    doubled = predict(lennard_jones, build_graph(taller, CUTOFF), ("stress",))["stress"][0].numpy()
    assert doubled == pytest.approx(stress / 2, abs=1e-15)


def test_stress_is_intensive() -> None:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=1)
    fields = ("energy", "forces", "stress")
    one = predict(lennard_jones, build_graph(atoms, CUTOFF), fields)
    eight = predict(lennard_jones, build_graph(atoms.repeat(2), CUTOFF), fields)
    assert eight["stress"].numpy() == pytest.approx(one["stress"].numpy(), abs=1e-14)
    assert float(eight["energy"]) == pytest.approx(8 * float(one["energy"]), rel=1e-13)
    assert eight["forces"][: len(atoms)].numpy() == pytest.approx(one["forces"].numpy(), abs=1e-12)


def test_molecules_and_flat_cells_have_zero_stress() -> None:
    flat = slab(["Si"])
    flat.cell[2] = 0
    for atoms in (structures()["molecule"], flat):
        assert not predict(lennard_jones, build_graph(atoms, CUTOFF), ("stress",))["stress"].any()


def test_sign_tension_is_positive() -> None:
    stretched = bulk("Ar", "fcc", a=SIGMA * 2.0)
    stress = predict(lennard_jones, build_graph(stretched, CUTOFF), ("stress",))["stress"][0]
    assert float(stress.trace()) > 0


def test_batch_of_every_periodicity() -> None:
    graphs = [build_graph(atoms, CUTOFF) for atoms in structures().values()]
    fields = ("energy", "forces", "stress")
    together = predict(lennard_jones, Batch.from_data_list(graphs), fields)
    singles = [predict(lennard_jones, graph, fields) for graph in graphs]
    for field in fields:
        assert torch.allclose(together[field], torch.cat([one[field] for one in singles]), atol=1e-12, rtol=0)


def test_only_what_is_asked_for() -> None:
    graph = build_graph(structures()["bulk"], CUTOFF)
    assert set(predict(lennard_jones, graph, ("energy",))) == {"energies", "energy"}
    assert set(predict(lennard_jones, graph, ("stress",))) == {"energies", "energy", "stress"}
    assert not any(value.requires_grad for value in predict(lennard_jones, graph, ("forces", "stress")).values())


def test_works_under_no_grad() -> None:
    graph = build_graph(structures()["bulk"], CUTOFF)
    expected = predict(lennard_jones, graph)["forces"]
    with torch.no_grad():
        assert torch.equal(predict(lennard_jones, graph)["forces"], expected)
        assert not torch.is_grad_enabled()


def test_create_graph_is_differentiable() -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    def scaled(graph: AtomGraph) -> dict[str, Tensor]:
        return {name: value * scale for name, value in lennard_jones(graph).items()}

    found = predict(scaled, build_graph(structures()["bulk"], CUTOFF), ("forces", "stress"), create_graph=True)
    (gradient,) = torch.autograd.grad(found["forces"].square().sum(), scale)
    assert float(gradient) == pytest.approx(2 * float(found["forces"].detach().square().sum()), rel=1e-12)


def test_unknown_field_gets_a_near_match() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'forces'"):
        predict(lennard_jones, build_graph(structures()["bulk"], CUTOFF), ("force",))


def test_projector_of_a_skewed_slab() -> None:
    cell = torch.tensor([[[2.0, 0.3, 0.1], [0.2, 3.0, 0.4], [1.0, 1.0, 9.0]]], dtype=torch.float64)
    projector = periodic_projector(cell, torch.tensor([[True, True, False]]))[0]
    assert torch.allclose(projector @ projector, projector, atol=1e-13)
    assert torch.allclose(cell[0, :2] @ projector, cell[0, :2], atol=1e-13)
    assert float(projector.trace()) == pytest.approx(2.0)
