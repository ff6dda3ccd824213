"""The classifier on every tensor product: it predicts what it declares, and its parity is the backend's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from e3nn.o3 import Irrep
from torch import Tensor

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError
from mlip.core.fields import FIELDS, Field
from mlip.data.build_graph import build_graph
from mlip.data.graph import AtomGraph
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.nn.derivatives import predict, predictable
from mlip.testing.evaluate import evaluate
from mlip.testing.field_checks import field_case_rows, field_rows, turned
from mlip.testing.report import aliasing, examine
from mlip.testing.structures import molecule, standard_structures
from mlip.testing.symmetry import random_orthogonal, transformed
from tests.components import component_names, compose_model, random_model

SMALL = ("model.irreps_hidden=4x0e+3x0o+3x1o+3x1e+2x2e+2x2o", "model.elements=[H,C]")
BACKENDS = component_names("tensor_product")


@cache
def classifier(backend: str) -> AtomisticModel:
    return random_model(compose_model("shape_classifier", *SMALL, f"model/tensor_product={backend}"), size=0.1)


@pytest.fixture(params=BACKENDS)
def model(request: pytest.FixtureRequest) -> AtomisticModel:
    return classifier(request.param)


def test_predictions_transform_as_the_field_table_says(model: AtomisticModel) -> None:
    structures = standard_structures(model.elements, seed=1)
    rows = [row for name in ("molecule", "crystal") for row in field_rows(model, name, structures[name])]
    rows += field_case_rows(model, structures)
    wrong = [f"{row.name}: {row.value:.1e} > {row.tolerance:.0e}" for row in rows if not row.passed]
    assert not wrong, wrong


def test_handedness_is_a_matter_of_pseudoscalars(model: AtomisticModel) -> None:
    """Other than zero, and odd, where 0o is reached; exactly zero where it is not."""
    atoms = molecule(model.elements)
    chirality = evaluate(model, atoms)["chirality"]
    if Irrep("0o") in [ir for _, ir in model.irreps_out]:
        mirrored = evaluate(model, transformed(atoms, np.diag([1.0, 1.0, -1.0])))["chirality"]
        assert abs(chirality) > 1e-6
        assert mirrored == pytest.approx(-chirality, rel=1e-9)
    else:
        assert chirality == 0.0


@pytest.mark.parametrize(
    ("backend", "reached"),
    [("clebsch_gordan", True), ("clebsch_gordan_dense", True), ("gaunt_grid", False), ("vector_grid", True)],
)
def test_which_backends_reach_pseudoscalars(backend: str, reached: bool) -> None:
    model = classifier(backend)
    assert (Irrep("0o") in [ir for _, ir in model.irreps_out]) == reached
    if not reached:
        assert all(ir.p == (-1) ** ir.l for layer in model.layers for _, ir in layer.irreps_out)


def test_every_parameter_is_trained(model: AtomisticModel) -> None:
    """A parameter without a gradient breaks distributed training and is wasted."""
    model.zero_grad(set_to_none=True)
    found = predict(model, build_graph(molecule(model.elements), model.cutoff), model.fields, create_graph=True)
    (found["class_scores"].square().sum() + found["chirality"].square().sum()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_what_it_declares_is_what_it_returns(model: AtomisticModel) -> None:
    graph = build_graph(molecule(model.elements), model.cutoff)
    found = predict(model, graph, predictable(model))
    assert set(found) == set(model.fields) == {"class_scores", "chirality"}
    assert found["class_scores"].shape == (1, 7)
    assert found["chirality"].shape == (1,)
    assert {value.dtype for value in found.values()} == {torch.float64}
    with pytest.raises(ConfigError, match="Known: class_scores, chirality"):
        predict(model, graph, ("energy",))


def test_calculator_refuses_a_model_without_an_energy() -> None:
    with pytest.raises(ConfigError, match="needs a model of the energy; ShapeClassifier predicts class_scores"):
        MLIPCalculator(classifier("clebsch_gordan_dense"))


def test_doctor_examines_what_there_is() -> None:
    model = classifier("clebsch_gordan_dense")
    rows = list(examine(model))
    assert all(row.passed for row in rows)
    assert any("chirality" in row.name for row in rows)
    assert not any("forces" in row.name for row in rows)
    assert aliasing(model) == {}


class Broken(AtomisticModel):
    """A classifier with one fault of choice."""

    fields = ("class_scores", "chirality")
    exactly_equivariant = True

    def __init__(self, fault: str) -> None:
        super().__init__(["H", "C"], 4.0)
        self.inner, self.fault = classifier("clebsch_gordan_dense"), fault

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        found = dict(self.inner(graph))
        if self.fault == "rotation and inversion":
            found["chirality"] = found["chirality"].abs()
        if self.fault == "translation":
            found["class_scores"] = found["class_scores"] + graph.positions[0, 0]
        if self.fault == "permutation":
            found["class_scores"] = found["class_scores"] + graph.atomic_numbers[0]
        if self.fault == "supercell":
            found["class_scores"] = found["class_scores"] * len(graph.positions)
        if self.fault == "batch = single":
            found["chirality"] = found["chirality"] + len(found["chirality"])
        if self.fault == "float32" and self.dtype == torch.float32:
            found["class_scores"] = found["class_scores"].bfloat16().double()
        if self.fault == "input unchanged":
            graph.positions.mul_(1.0001)
        if self.fault == "one atom, no edges" and not graph.edge_index.shape[1]:
            found["class_scores"] = found["class_scores"] * float("nan")
        if self.fault == "all predictions are the same":
            found = {name: torch.ones_like(value) for name, value in found.items()}
        return found


@pytest.mark.parametrize(
    "fault",
    ["rotation and inversion", "translation", "permutation", "supercell", "batch = single", "float32",
     "input unchanged", "one atom, no edges", "all predictions are the same"],
)  # fmt: skip
def test_checks_find_the_fault(fault: str) -> None:
    structures = standard_structures(["H", "C"])
    broken = Broken(fault)
    rows = [*field_rows(broken, "crystal", structures["crystal"]), *field_rows(broken, "slab", structures["slab"])]
    rows += [*field_rows(broken, "molecule", structures["molecule"]), *field_case_rows(broken, structures)]
    assert any(row.name.startswith(fault) and not row.passed for row in rows)


def test_fields_of_any_rank_turn() -> None:
    rng = np.random.default_rng(0)
    matrix = random_orthogonal(1, proper=False)
    vectors, tensors = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))
    assert np.allclose(turned(vectors, FIELDS["forces"], matrix), vectors @ matrix.T)
    assert np.allclose(turned(tensors, FIELDS["stress"], matrix), matrix @ tensors @ matrix.T)
    assert turned(np.array(2.0), FIELDS["chirality"], matrix) == pytest.approx(-2.0)
    axial = Field("spin", "atom", (3,), "1", rank=1, pseudo=True)
    assert np.allclose(turned(vectors, axial, -np.eye(3)), vectors)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.irreps_hidden=8x1o", "hold scalars 0e"),
        ("model.irreps_hidden=8x0e+4x0e", "each irrep once"),
        ("model.irreps_hidden=8x", "cannot be read"),
        ("model.num_layers=0", "num_layers >= 1"),
        ("model.num_classes=1", "num_classes >= 2"),
        ("model.num_neighbors=0", "num_neighbors > 0"),
    ],
)
def test_mistakes(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(compose_model("shape_classifier", override))
