"""A model keeps its graph: from the configuration through the model file to the calculator and the doctor."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.build import molecule as ase_molecule
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.compose import compose
from mlip.cli.main import app
from mlip.core.errors import ConfigError, ModelFileError, StructureError
from mlip.data.build_graph import as_builder, graph_of
from mlip.data.graphs.base import GraphBuilder
from mlip.data.graphs.nearest import Nearest
from mlip.models.base import AtomisticModel
from mlip.models.build import build_graph_builder, build_model
from mlip.models.header import read_header
from mlip.models.model_file import load_model, save_model
from mlip.nn.derivatives import predict
from mlip.testing.evaluate import evaluate
from mlip.testing.graph_changes import change_rows
from mlip.testing.structures import crystal, molecule
from tests.components import SMALL, component_names, compose_model, random_model, small_facet

FEW = ("model/graph=nearest", "model.graph.num_neighbors=6")


def copper() -> Atoms:
    atoms = bulk("C", "fcc", a=2.6, cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    return atoms


def by_hand(model: AtomisticModel, atoms: Atoms, builder: GraphBuilder) -> np.ndarray:
    return predict(model, graph_of(atoms, builder), ("energy", "forces"))["forces"].numpy()


@pytest.mark.parametrize("name", component_names("graph"))
def test_the_file_keeps_the_graph(tmp_path: Path, name: str) -> None:
    model = small_facet(f"model/graph={name}")
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.graph_builder.description == model.graph_builder.description
    assert type(loaded.graph_builder) is type(model.graph_builder)
    atoms = crystal(model.elements) if model.graph_builder.periodic else molecule(model.elements)
    before, after = evaluate(model, atoms), evaluate(loaded, atoms)
    assert all((before[field] == after[field]).all() for field in before)
    assert before["forces"].any() or "molecules" in model.graph_builder.description


def test_a_file_without_a_graph_is_a_radius_graph(tmp_path: Path) -> None:
    """Files of versions that had no graph builders."""
    model = small_facet()
    old = random_model({key: value for key, value in model.config.items() if key != "graph"})
    save_model(tmp_path / "old.safetensors", old)
    assert "graph" not in read_header(tmp_path / "old.safetensors")["config"]
    loaded = load_model(tmp_path / "old.safetensors")
    assert loaded.graph_builder.description == as_builder(4.0).description
    forces = evaluate(loaded, copper())["forces"]
    assert (forces == evaluate(model, copper())["forces"]).all()
    np.testing.assert_array_equal(forces, by_hand(model, copper(), as_builder(4.0)))


def test_every_consumer_builds_the_models_own_graph(caplog: pytest.LogCaptureFixture) -> None:
    model = small_facet(*FEW)
    nearest = by_hand(model, copper(), Nearest(6, 4.0))
    radius = by_hand(model, copper(), as_builder(4.0))
    assert np.abs(nearest - radius).max() > 1e-3, "else the test proves nothing"
    np.testing.assert_array_equal(evaluate(model, copper())["forces"], nearest)
    atoms = copper()
    with caplog.at_level(logging.WARNING):
        atoms.calc = MLIPCalculator(model)
    assert len(caplog.records) == 1
    assert "not smooth (the 6 nearest neighbours within 4.0 Å" in caplog.text
    np.testing.assert_allclose(atoms.get_forces(), nearest, atol=1e-12)
    # The kept list, too.
    atoms.positions += 0.02
    atoms.rattle(0.02, seed=3)
    np.testing.assert_allclose(atoms.get_forces(), by_hand(model, atoms, Nearest(6, 4.0)), atol=1e-12)
    assert atoms.calc.neighbours.num_builds == 1


def test_a_smooth_graph_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        MLIPCalculator(small_facet())
    assert not caplog.records


def test_calculator_without_a_kept_list() -> None:
    model = small_facet("model/graph=fully_connected")
    atoms = ase_molecule("CH3OH")
    atoms.calc = MLIPCalculator(model)
    assert atoms.calc.neighbours is None
    # Edges beyond the cutoff count nothing, and are there.
    np.testing.assert_allclose(atoms.get_forces(), by_hand(model, atoms, as_builder(4.0)), atol=1e-12)
    atoms.positions[0] += 500.0
    assert np.isfinite(atoms.get_forces()).all()
    atoms.pbc, atoms.cell = True, np.eye(3) * 9
    with pytest.raises(StructureError, match="this structure is periodic"):
        atoms.get_forces()


@pytest.mark.parametrize("radial", component_names("radial"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges_far_beyond_the_cutoff_count_nothing(radial: str, dtype: torch.dtype) -> None:
    model = small_facet("model/graph=fully_connected", f"model/radial={radial}").to(dtype)
    far = Atoms("CH", positions=[[0, 0, 0], [3e4, 2e4, 1e4]])
    found = predict(model, graph_of(far, model.graph_builder), ("energy", "forces"), create_graph=True)
    assert not found["forces"].any()
    alone = sum(float(evaluate(model, Atoms(symbol))["energy"]) for symbol in "CH")
    assert float(found["energy"].detach()) == pytest.approx(alone)
    (found["forces"].square().sum() + found["energy"].sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_tags_are_part_of_the_structure() -> None:
    atoms = copper()
    atoms.calc = MLIPCalculator(small_facet("model/graph=bipartite"))
    with pytest.raises(StructureError, match="needs the tags"):
        atoms.get_potential_energy()
    atoms.set_tags([0] * 7 + [2])
    first = atoms.get_forces()
    atoms.set_tags([0] * 6 + [2] * 2)
    assert np.abs(atoms.get_forces() - first).max() > 1e-3
    fresh = atoms.copy()
    fresh.calc = MLIPCalculator(atoms.calc.model)
    np.testing.assert_array_equal(fresh.get_forces(), atoms.get_forces())


@pytest.mark.parametrize(
    ("overrides", "jumps"),
    [
        (FEW, True),
        (("model/graph=nearest",), True),
        (("model/graph=radius_max_neighbors", "model.graph.max_neighbors=20"), True),
        (("model/graph=adaptive", "model.graph.target_neighbors=15"), True),
        (("model/graph=bipartite", "model.graph.by=molecules"), True),
        # More than there are anywhere: it is a radius graph in all but name.
        (("model/graph=nearest", "model.graph.num_neighbors=100000"), None),
        (("model/graph=radius",), None),
        (("model/graph=bipartite",), None),
    ],
    ids=lambda value: value[-1].rpartition("graph")[2] if isinstance(value, tuple) else "",
)
def test_doctor_names_a_graph_that_is_not_smooth(overrides: tuple[str, ...], jumps: bool | None) -> None:
    model = small_facet(*overrides)
    rows = list(change_rows(model))
    assert bool(rows) == bool(jumps)
    for row in rows:
        assert not row.passed
        assert model.graph_builder.description in row.meaning
        assert "model/graph=radius" in row.meaning


@pytest.mark.slow
def test_the_doctor_command(tmp_path: Path) -> None:
    for overrides, status in ((("model/graph=fully_connected",), 0), (FEW, 1)):
        save_model(tmp_path / "m.safetensors", small_facet(*overrides))
        result = CliRunner().invoke(
            app, ["doctor", str(tmp_path / "m.safetensors"), "--json", str(tmp_path / "r.json")]
        )
        assert result.exit_code == status, result.output
        assert ("where the graph changes" in (tmp_path / "r.json").read_text()) == bool(status)


def test_graph_and_model_must_fit() -> None:
    config = compose_model("facet", *SMALL)
    with pytest.raises(ConfigError, match=r"The graph ends at 3\.0 Å, the model's cutoff is 4\.0 Å"):
        build_model({**config, "graph": {"_target_": "mlip.data.graphs.radius.Radius", "cutoff": 3.0}})
    with pytest.raises(ConfigError, match="must be a graph builder"):
        build_model({**config, "graph": config["radial"]})
    with pytest.raises(ConfigError, match="must be a graph builder"):
        build_model({**config, "graph": 5.0})


def test_a_stranger_cannot_call_functions_through_the_graph(tmp_path: Path) -> None:
    config = compose_model("facet", *SMALL)
    evil = {"_target_": "mlip.core.files.write_text_atomically", "path": str(tmp_path / "x"), "text": "boo"}
    with pytest.raises(ConfigError, match="is no part of a model"):
        build_model({**config, "graph": evil})
    with pytest.raises(ConfigError, match="is no part of a model"):
        build_graph_builder({"graph": evil})
    model = small_facet()
    model.config = {**model.config, "graph": evil}
    save_model(tmp_path / "m.safetensors", model)
    with pytest.raises(ModelFileError, match="is no part of a model"):
        load_model(tmp_path / "m.safetensors")
    assert not (tmp_path / "x").exists()


def test_the_command_line_chooses_the_graph() -> None:
    config = compose("train", ["experiment=ethanol", "model/graph=nearest", "model.graph.num_neighbors=48", "cutoff=5"])
    assert config.model.graph.num_neighbors == 48
    builder = build_graph_builder({"graph": dict(config.model.graph), "cutoff": 5.0})
    assert builder.description == Nearest(48, 5).description
    assert build_graph_builder({"cutoff": 5}).description == as_builder(5.0).description
    # The graph follows the model's own cutoff.
    assert compose("train", ["experiment=ethanol", "model.cutoff=3.5"]).model.graph.cutoff == 3.5
