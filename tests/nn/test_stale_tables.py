"""Tables stand for a network as it was: what changes it, or needs more than first derivatives, does without them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mlip.calculators.ase import MLIPCalculator
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict
from mlip.nn.edges import Edges
from mlip.nn.tabulated import tabulate
from mlip.testing.evaluate import graph_for
from tests.components import compose_model, random_model
from tests.nn.test_tabulated import convolutions, diamond, model


def energy(of: AtomisticModel) -> float:
    graph = graph_for(of, diamond())
    return float(predict(of, graph, ("energy",))["energy"].detach())


def plain(of: AtomisticModel) -> float:
    """The energy without tables and kernels."""
    other = copy.deepcopy(of)
    other.use_kernels("off")
    return energy(other)


def scale_in_place(of: AtomisticModel) -> None:
    with torch.no_grad():
        for part in convolutions(of):
            for parameter in part.radial_weights.parameters():
                parameter.mul_(1.1)


def load_other_weights(of: AtomisticModel) -> None:
    of.load_state_dict({name: 1.1 * value for name, value in of.state_dict().items()})


CHANGES: dict[str, tuple[Callable[[AtomisticModel], object], float]] = {
    "weights in place": (scale_in_place, 0.05),
    "load_state_dict": (load_other_weights, 0.05),
    # Rounding is all that it changes: a kernel refuses a table of another dtype.
    "float": (lambda of: of.float(), 0.0),
}
"""What changes a network, and by how many eV at least: else the energy of a table that is out of date would pass."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_has_no_table(change: str) -> None:
    own = model()
    assert tabulate(own) is not None
    before = energy(own)
    function, least = CHANGES[change]
    function(own)
    assert abs(plain(own) - before) >= least
    assert energy(own) == pytest.approx(plain(own), rel=1e-12 if own.dtype == torch.float64 else 1e-6)


def test_copies_and_pickles_leave_tables_behind() -> None:
    own = model()
    tabulate(own)
    for other in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert [part._messages for part in convolutions(other)] == [None]
    assert convolutions(own)[0]._messages is not None


def test_kernels_off_is_off() -> None:
    own = model()
    tabulate(own)
    own.use_kernels("off")
    assert convolutions(own)[0]._messages is None


def test_wanted_gradients_of_weights() -> None:
    own = model()
    tabulate(own)
    own.requires_grad_(True)
    predict(own, graph_for(own, diamond()), ("energy",), create_graph=True)["energy"].sum().backward()
    assert all(p.grad is not None for part in convolutions(own) for p in part.radial_weights.parameters())


def test_second_derivatives_are_refused() -> None:
    own = model()
    tabulate(own)
    graph = graph_for(own, diamond())
    graph.positions.requires_grad_(True)
    with torch.enable_grad():
        slope = torch.autograd.grad(own(graph)["energy"].sum(), graph.positions, create_graph=True)[0]
        with pytest.raises(NotImplementedError, match="differentiable once"):
            torch.autograd.grad(slope[0, 0], graph.positions)


def test_edges_beyond_the_cutoff() -> None:
    """A graph of nearest neighbours has edges of any length; weights are zero there."""
    own = model()
    tabulate(own)
    part, messages = convolutions(own)[0], convolutions(own)[0]._messages
    assert messages is not None

    def sums(distance: float) -> tuple[Tensor, Tensor]:
        distances = torch.full((600,), distance, dtype=torch.float64)
        receivers = torch.arange(600) // 300
        harmonics = torch.ones(600, part.tensor_product.irreps_in2.dim, dtype=torch.float64)
        features = torch.ones(2, part.irreps_in.dim, dtype=torch.float64)
        edges = Edges(
            *(harmonics[:, :3], distances, harmonics, own.edges.basis(distances), receivers, receivers),
            torch.tensor([0, 300, 600]),
        )
        return messages(features, edges), part.tensor_product.convolve(
            features, harmonics, part.radial_weights(edges.basis), receivers, receivers, 2
        )

    for distance in (0.7 * own.cutoff, 1.001 * own.cutoff, 2.0 * own.cutoff):
        found, expected = sums(distance)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_products_without_kernels_in_a_calculator() -> None:
    own = random_model(
        compose_model(
            "nequip", "model.irreps_hidden=2x0e+2x1o", "model.num_layers=1", "model/tensor_product=gaunt_grid"
        )
    ).float()
    atoms = diamond() * (2, 2, 2)
    atoms.numbers[:] = 6
    found = []
    for kernels in ("off", "auto"):
        atoms.calc = MLIPCalculator(own, kernels=kernels)
        found.append(atoms.get_potential_energy())
    assert found[0] == pytest.approx(found[1], rel=1e-6)
