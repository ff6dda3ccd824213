"""The classifier on every tensor product: it predicts what it declares, and its parity is the backend's."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import chain

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
from mlip.models.base import AtomisticModel, graph_index
from mlip.models.build import build_model
from mlip.nn.derivatives import predict, predictable
from mlip.nn.edge_vectors import edge_vectors
from mlip.ops.envelope.polynomial import Polynomial
from mlip.testing.evaluate import evaluate
from mlip.testing.field_checks import field_case_rows, field_cutoff_rows, field_rows, signal_rows, turned
from mlip.testing.measurement import Measurement
from mlip.testing.report import aliasing, examine
from mlip.testing.structures import distorted, molecule, standard_structures, within_reach
from mlip.testing.symmetry import random_orthogonal, transformed
from tests.components import component_names, compose_model, random_model

SMALL = ("model.irreps_hidden=4x0e+3x0o+3x1o+3x1e+2x2e+2x2o", "model.elements=[H,C]")
BACKENDS = component_names("tensor_product")
QUICK = ("clebsch_gordan_dense", "gaunt_grid", "matrix", "so2")
"""One of each kind."""


@cache
def classifier(backend: str) -> AtomisticModel:
    return random_model(compose_model("shape_classifier", *SMALL, f"model/tensor_product={backend}"), size=0.1)


@pytest.fixture(params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BACKENDS])
def model(request: pytest.FixtureRequest) -> AtomisticModel:
    return classifier(request.param)


def test_predictions_transform_as_the_field_table_says(model: AtomisticModel) -> None:
    structures = standard_structures(model.elements, seed=1)
    rows = [row for name in ("molecule", "crystal") for row in field_rows(model, name, structures[name])]
    rows += [*field_case_rows(model, structures), *field_cutoff_rows(model), *signal_rows(model, structures)]
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

    exactly_equivariant = True

    def __init__(self, fault: str) -> None:
        super().__init__(["H", "C"], 4.0)
        self.inner, self.fault = classifier("clebsch_gordan_dense"), fault
        self.fields = ("class_scores", "chirality")
        self.silent_fields = ("chirality",) if fault == "declared zero" else ()

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        found = dict(self.inner(graph))
        batch, num_graphs = graph_index(graph), len(graph.cell)
        edges = torch.bincount(batch[graph.edge_index[1]], minlength=num_graphs).double()
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
        if self.fault == "wrapping":
            found["class_scores"] = found["class_scores"] + (graph.positions[0] - graph.positions[-1]).norm()
        if self.fault == "class_scores at the cutoff":
            found["class_scores"] = found["class_scores"] + 1e-4 * edges[:, None]
        if self.fault == "chirality at the cutoff":
            found["chirality"] = found["chirality"] * (1 + 1e-3 * edges)
        if self.fault == "slope of chirality at the cutoff":
            owner = batch[graph.edge_index[1]]
            vectors = edge_vectors(graph.positions, graph.cell, graph.cell_shifts, *graph.edge_index, owner)
            near = torch.zeros_like(edges).index_add(0, owner, 4.0 - vectors.norm(dim=1))
            found["chirality"] = found["chirality"] * (1 + 1e-2 * near)
        if self.fault == "signal: class_scores":
            found["class_scores"] = torch.ones_like(found["class_scores"])
        if self.fault == "signal: chirality":
            found["chirality"] = torch.zeros_like(found["chirality"])
        if self.fault == "signal (slab)":
            flat = (graph.pbc.sum(dim=1) == 2).double()
            found = {"class_scores": found["class_scores"] * (1 - flat)[:, None], "chirality": flat * 0.0}
        return found


class Energies(AtomisticModel):
    """Energies of the atoms without their sum, or fields of zeros."""

    exactly_equivariant = True

    def __init__(self, fields: tuple[str, ...], size: float) -> None:
        super().__init__(["H", "C"], 4.0)
        self.fields = fields
        self.size = torch.nn.Parameter(torch.tensor(size, dtype=torch.float64))

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        steps = graph.positions[graph.edge_index[0]] - graph.positions[graph.edge_index[1]]
        # Without the cell shifts: wrong for what is periodic.
        far = torch.zeros_like(graph.positions[:, 0]).index_add(0, graph.edge_index[1], steps.norm(dim=1))
        values = {"energies": far, "positions": torch.zeros_like(graph.positions)}
        return {name: self.size.double() * values[name] for name in self.fields}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["rotation and inversion", "translation", "permutation", "supercell", "batch = single", "float32",
     "input unchanged", "one atom, no edges", "wrapping", "class_scores at the cutoff", "chirality at the cutoff",
     "slope of chirality at the cutoff", "signal: class_scores", "signal: chirality", "signal (slab)", "declared zero"],
)  # fmt: skip
def test_checks_find_the_fault(fault: str) -> None:
    structures = standard_structures(["H", "C"])
    broken = Broken(fault)
    rows = chain(
        field_cutoff_rows(broken),
        field_rows(broken, "molecule", structures["molecule"]),
        field_rows(broken, "crystal", structures["crystal"]),
        signal_rows(broken, structures),
        field_case_rows(broken, structures),
    )
    # One after the other, until the fault is found.
    assert any(row.name.startswith(fault) and not row.passed for row in rows)


def failures(rows: Iterable[Measurement]) -> list[str]:
    return [row.name for row in rows if not row.passed]


@pytest.mark.parametrize("backend", ["clebsch_gordan_dense", "gaunt_grid"])
def test_a_model_without_an_envelope_jumps(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = (*SMALL, f"model/tensor_product={backend}", "model/radial=gaussian")
    model = random_model(compose_model("shape_classifier", *choice), size=0.1)
    assert not failures(field_cutoff_rows(model))
    monkeypatch.setattr(Polynomial, "forward", lambda self, r: (r < self.cutoff).to(r.dtype))
    assert f"{model.fields[0]} at the cutoff" in failures(examine(model))
    assert {name.split()[-4] for name in failures(field_cutoff_rows(model))} == {*model.fields} - {*model.silent_fields}


def test_bessel_functions_without_an_envelope_have_a_kink(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are zero at the cutoff, their slopes are not."""
    model = classifier("clebsch_gordan_dense")
    monkeypatch.setattr(Polynomial, "forward", lambda self, r: (r < self.cutoff).to(r.dtype))
    found = failures(field_cutoff_rows(model))
    assert {"slope of class_scores at the cutoff", "slope of chirality at the cutoff"} <= {*found}


def test_nothing_that_proves_nothing_passes() -> None:
    """A prediction of zeros, a field that is half of a potential, no fields, a NaN in the second field."""
    assert "signal: positions" in failures(examine(Energies(("positions",), 0.0)))
    found = failures(examine(Energies(("energies",), 1.0)))
    assert "wrapping (crystal)" in found
    assert "energies at the cutoff" in found
    assert "signal: energies" not in found
    with pytest.raises(ConfigError, match="declares no fields"):
        list(examine(Energies((), 1.0)))
    with pytest.raises(ConfigError, match="'charges', which the field table lacks"):
        list(examine(Energies(("charges",), 1.0)))
    rows = [row for row in examine(Energies(("energies",), float("nan"))) if not row.name.startswith("input")]
    assert not any(row.passed for row in rows)


@pytest.mark.parametrize("elements", [["H"], ["H", "C"], ["Cs"]])
def test_generated_structures_have_edges_at_any_cutoff(elements: list[str]) -> None:
    for cutoff in (0.5, 2.0):
        for atoms in standard_structures(elements).values():
            near = within_reach(atoms, cutoff)
            edges = build_graph(near, cutoff).edge_index
            assert len(edges[1].unique()) == len(atoms)
            assert near.get_scaled_positions() == pytest.approx(atoms.get_scaled_positions()) or not atoms.pbc.any()
    atoms = standard_structures(["H", "C", "O"])["crystal"]
    assert np.array_equal(within_reach(atoms, 4.0).positions, atoms.positions)


def test_doctor_of_the_shipped_size_sees_every_structure() -> None:
    """At a cutoff near that of experiment=tetris a structure of usual distances has no edges."""
    model = random_model(compose_model("shape_classifier", *SMALL, "model.cutoff=1.5"), size=0.1)
    crystal = standard_structures(model.elements)["crystal"]
    assert not build_graph(distorted(crystal), model.cutoff).edge_index.shape[1]
    assert "signal (crystal)" in failures(signal_rows(model, {"crystal": crystal}))
    rows = list(examine(model))
    assert not failures(rows)
    assert {"signal (crystal)", "signal (skewed cell)", "signal (slab)"} <= {row.name for row in rows}


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
        ("model.num_layers=0", "num_layers must be a whole number from 1"),
        ("model.num_classes=1", "num_classes must be a whole number from 2"),
        ("model.num_classes=7.5", "num_classes must be"),
        ("model.lmax_edge=-1", "lmax_edge must be .*, got -1"),
        ("model.lmax_edge=1.5", "lmax_edge must be"),
        ("model.activation=null", "activation must be"),
        ("model.num_neighbors=0", "num_neighbors > 0"),
    ],
)
def test_mistakes(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(compose_model("shape_classifier", override))
