"""Heads in a model: forces without differentiating, magnetic moments, and what does not go together."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from torch_geometric.data import Batch

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.training.checks import check_trained
from mlip.core.errors import ConfigError
from mlip.data.build_graph import build_graph
from mlip.evaluation.metrics import ErrorStatistics
from mlip.evaluation.parity_points import ParityPoints
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.nn.derivatives import predict, predictable
from mlip.testing import field_checks, suite
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import crystal, molecule
from mlip.training.losses.energy import EnergyLoss
from mlip.training.losses.field import FieldLoss
from mlip.training.losses.forces import ForcesLoss
from mlip.training.losses.penalties import L1, L2
from tests.components import SMALL, component, compose_model, random_model

GROUPS = ("head", "pair_term", "conditioning")


def config_with(head: str = "energy", **changes: Any) -> dict[str, Any]:
    """A small Facet with the components named in ``head``, ``pair_term`` and ``conditioning``."""
    named = {"head": head, **{group: changes.pop(group, "") for group in GROUPS[1:]}}
    parts = {group: {name: component(group, name) for name in names.split()} for group, names in named.items()}
    return {**compose_model("facet", *SMALL), **parts, **changes}


def model_with(head: str = "energy", **changes: Any) -> AtomisticModel:
    return random_model(config_with(head, **changes))


@pytest.fixture(scope="module")
def plain() -> AtomisticModel:
    return model_with()


@pytest.fixture(scope="module")
def direct() -> AtomisticModel:
    return model_with("energy direct_forces")


@pytest.fixture(scope="module")
def magnetic() -> AtomisticModel:
    return model_with("energy magmoms")


def test_direct_forces_need_no_gradient(direct: AtomisticModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert predictable(direct) == ("energy", "energies", "forces", "stress")
    graph = build_graph(molecule(direct.elements), direct.cutoff)
    expected = direct(graph)["forces"].detach()
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("the energy was differentiated"))
    found = predict(direct, graph, ("energy", "forces"))
    assert torch.equal(found["forces"], expected)
    assert found["forces"].dtype == torch.float64


def test_stress_stays_the_derivative_of_the_energy(direct: AtomisticModel) -> None:
    atoms = crystal(direct.elements)
    found = evaluate(direct, atoms, ("energy", "forces", "stress"))
    assert np.array_equal(found["forces"], evaluate(direct, atoms)["forces"])
    rows = {row.name: row for row in suite.derivative_rows(direct, "crystal", atoms)}
    assert rows["stress = dE/dε / V (crystal)"].passed


def test_the_doctor_says_why_direct_forces_fail(direct: AtomisticModel) -> None:
    (row,) = suite.derivative_rows(direct, "molecule", molecule(direct.elements))
    assert not row.passed
    assert "a head of this model gives forces by itself" in row.meaning
    assert "energy drifts" in row.meaning


def test_loss_on_direct_forces_reaches_their_weights(direct: AtomisticModel) -> None:
    graph = build_graph(molecule(direct.elements), direct.cutoff)
    direct.zero_grad(set_to_none=True)
    predict(direct, graph, ("forces",), create_graph=True)["forces"].square().sum().backward()
    head = direct.heads["direct_forces"]
    assert head.weight.grad.all()
    assert head.gates.grad.any()
    assert all(parameter.grad is None for parameter in direct.heads["energy"].parameters())


def test_all_the_symmetries_of_direct_forces_and_moments(direct: AtomisticModel, magnetic: AtomisticModel) -> None:
    even = model_with("energy direct_forces", edge_parity="even", irreps_hidden="6x0e+4x1e+2x2e")
    for model in (direct, magnetic, even, model_with("direct_forces")):
        for name in ("molecule", "crystal"):
            atoms = {"molecule": molecule, "crystal": crystal}[name](model.elements)
            wrong = [row.name for row in field_checks.field_rows(model, name, atoms) if not row.passed]
            assert not wrong, wrong


def test_calculator_warns_of_direct_forces(
    direct: AtomisticModel, plain: AtomisticModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        calculator = MLIPCalculator(direct)
    assert "not as the slope of its energy" in caplog.text
    atoms = molecule(direct.elements)
    atoms.calc = calculator
    assert np.array_equal(atoms.get_forces(), evaluate(direct, atoms)["forces"])
    caplog.clear()
    MLIPCalculator(plain)
    assert not caplog.text


def test_calculator_gives_sizes_of_moments_and_no_sum(magnetic: AtomisticModel, plain: AtomisticModel) -> None:
    atoms = molecule(magnetic.elements)
    atoms.calc = MLIPCalculator(magnetic)
    moments = atoms.get_magnetic_moments()
    assert np.array_equal(moments, evaluate(magnetic, atoms, ("magmoms",))["magmoms"])
    assert moments.min() >= 0
    assert moments.max() > 0.01
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("magmom", atoms)
    atoms.calc = MLIPCalculator(plain)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_magnetic_moments()


def labelled(magmoms: list[float]) -> Any:
    atoms = Atoms("CO", positions=[[0, 0, 0], [1.1, 0, 0]])
    return build_graph(atoms, 3.0, {"magmoms": np.array(magmoms)})


def test_moments_are_compared_by_size_in_losses_errors_and_plots() -> None:
    """CHGNet trains on |m|; labels with signs, of an antiferromagnet, give the same numbers."""
    predictions = {"magmoms": torch.tensor([1.5, 2.5, 0.2, 0.1], dtype=torch.float64)}
    values = []
    for sign in (1, -1):
        graph = Batch.from_data_list([labelled([1.0, 2.0 * sign]), labelled([np.nan, np.nan])])
        loss = FieldLoss("magmoms", weight=1.0, penalty=L1(), everywhere=False)(predictions, graph)
        statistics = ErrorStatistics(["magmoms"])
        statistics.update(predictions, graph)
        errors = statistics.compute()
        points = ParityPoints()
        points.add(labelled([1.0, 2.0 * sign]), {"magmoms": np.array([1.5, 2.5])})
        (panel,) = points.panels()
        assert (panel.unit, panel.title) == ("μB", "Sizes of magnetic moments")
        values.append((float(loss), errors["magmoms_mae_muB"], errors["magmoms_rmse_muB"], panel.mae))
        assert statistics.counts()["magmoms"] == {"labelled": 2, "missing": 2}
    assert values == [(0.5, 0.5, 0.5, 0.5)] * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "energy direct_forces", "pair_term": "zbl"}, "no part in the forces of the head"),
        ({"head": "energy direct_forces", "num_layers": 1}, "needs vectors 1o after some layer"),
        ({"head": "energy direct_forces", "irreps_hidden": "6x0e"}, "needs vectors 1o after some layer"),
        ({"head": "magmoms", "pair_term": "zbl"}, "Pair terms add to energies"),
        ({"head": "energy committee"}, "provide 'energies': choose one"),
        ({"head": ""}, "A model needs a head"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_model(config_with(**changes))


def test_axial_vectors_are_no_forces() -> None:
    """1e in a model that knows inversion: forces would not change their sign with the structure."""
    gate, irreps = component("nonlinearity", "gate"), "6x0e+4x1e+2x2e"
    with pytest.raises(ConfigError, match="polar vectors 1o"):
        model_with("energy direct_forces", nonlinearity=gate, irreps_hidden=irreps, num_layers=4, norm=None)


def test_what_no_loss_trains_is_refused(
    plain: AtomisticModel, direct: AtomisticModel, magnetic: AtomisticModel
) -> None:
    energy, forces = EnergyLoss(weight=1.0, penalty=L2()), ForcesLoss(weight=1.0, penalty=L2())
    moments = FieldLoss("magmoms", weight=1.0, penalty=L2())
    check_trained(plain, {"forces": forces})
    check_trained(direct, {"energy": energy, "forces": forces})
    check_trained(magnetic, {"forces": forces, "magmoms": moments})
    check_trained(model_with("committee"), {"forces": forces})
    for model, losses, field in (
        (magnetic, {"energy": energy}, "magmoms"),
        (direct, {"energy": energy}, "forces"),
        (direct, {"forces": forces}, "energy"),
    ):
        with pytest.raises(ConfigError, match=f"predicts '{field}', which no loss trains"):
            check_trained(model, losses)
