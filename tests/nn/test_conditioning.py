"""The contract of conditioning, run on every yaml in configs/model/conditioning, alone and in a model."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError, DataError, StructureError
from mlip.core.fields import FIELDS, INPUTS
from mlip.data.build_graph import as_builder, graph_of
from mlip.data.datasets.omol25 import OMol25Dataset
from mlip.data.graph import AtomGraph
from mlip.data.graph_dataset import GraphDataset
from mlip.data.inputs import stated_inputs
from mlip.data.sample import Sample
from mlip.evaluation.predict import predict_dataset
from mlip.models.base import AtomisticModel, graph_index
from mlip.nn.conditioning.base import Conditioning
from mlip.nn.conditioning.table import Table
from mlip.nn.derivatives import predict
from mlip.testing import symmetry
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import isolated_atom, molecule
from tests.components import SMALL, component_names, compose_model, factory, random_model, small_facet
from tests.data.fixtures.omol25 import write

NAMES = component_names("conditioning")


def build(name: str) -> Conditioning:
    torch.manual_seed(0)
    part = factory("conditioning", name)(num_channels=4).double()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(torch.randn_like(parameter))
    return part


def graph(part: Conditioning, value: int, atoms: Atoms | None = None) -> AtomGraph:
    atoms = molecule(["H", "C"], num_atoms=3) if atoms is None else atoms
    shape = (len(atoms),) if FIELDS[part.field].level == "atom" else ()
    return graph_of(atoms, as_builder(3.0), {part.field: np.full(shape, value)})


@pytest.mark.parametrize("name", NAMES)
def test_scalars_of_every_atom_from_its_own_structure(name: str) -> None:
    part = build(name)
    assert part.field in INPUTS
    graphs = [graph(part, value) for value in part.values]
    alone = [part(one, graph_index(one)) for one in graphs]
    batch = Batch.from_data_list(graphs)
    together = part(batch, batch.batch)
    assert together.shape == (3 * len(graphs), 4)
    assert torch.equal(together, torch.cat(alone))
    rows = torch.stack([one[0] for one in alone])
    assert torch.cdist(rows, rows).fill_diagonal_(1.0).min() > 1e-3
    together.square().sum().backward()
    assert all(parameter.grad.all() for parameter in part.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_value_is_an_error_and_no_other_value(name: str) -> None:
    part = build(name)
    for value in (min(part.values) - 1, max(part.values) + 1):
        with pytest.raises(IndexError):
            part(graph(part, value), torch.zeros(3, dtype=torch.long))
    gap = Table(4, "charge", [-2, 0, 3])
    for value in (-1, 1, 2):
        with pytest.raises(IndexError):
            gap(graph(gap, value), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        ("chrge", [0], "Did you mean 'charge'"),
        ("fixed", [0, 1], "one of charge, spin, tags, fragments"),
        ("charge", [], "The training data state no charge"),
        ("charge", None, "needs values of the charge"),
        ("spin", "12", "needs values of the spin"),
        ("charge", [0.5], "whole numbers"),
        ("charge", [True], "whole numbers"),
    ],
)
def test_senseless_tables_are_refused(field: str, values: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Table(4, field, values)


@pytest.fixture(scope="module")
def model() -> AtomisticModel:
    return small_facet("model/conditioning=[charge,spin]")


def charged(charge: int, spin: int, atoms: Atoms | None = None) -> Atoms:
    atoms = molecule(["H", "C", "O"], num_atoms=5) if atoms is None else atoms.copy()
    atoms.info.update(charge=charge, spin=spin)
    return atoms


def test_energy_and_forces_depend_on_charge_and_spin(model: AtomisticModel) -> None:
    states = [(0, 1), (1, 1), (-1, 1), (0, 3)]
    found = [evaluate(model, charged(*state)) for state in states]
    energies = [float(one["energy"]) for one in found]
    assert np.min(np.abs(np.subtract.outer(energies, energies))[~np.eye(4, dtype=bool)]) > 1e-3
    assert all(np.abs(one["forces"] - found[0]["forces"]).max() > 1e-4 for one in found[1:])
    ions = [float(evaluate(model, charged(*state, isolated_atom("C")))["energy"]) for state in states]
    assert len({round(energy, 6) for energy in ions}) == 4
    mixed = [charged(*state) for state in states]
    assert symmetry.batch_error(model, mixed) < 1e-9


def test_a_fresh_model_does_not_know_the_charge_yet(model: AtomisticModel) -> None:
    assert not Table(4, "charge", [0, 1]).table.any()
    model = deepcopy(model)
    with torch.no_grad():
        for part in model.conditioning.values():
            part.table.zero_()
    assert evaluate(model, charged(1, 2))["energy"] == evaluate(model, charged(0, 1))["energy"]
    labels = stated_inputs(charged(1, 2), model.inputs)
    predict(model, graph_of(charged(1, 2), model.graph_builder, labels), create_graph=True)["energy"].sum().backward()
    gradient = model.conditioning["charge"].table.grad
    assert gradient[2].any()
    assert not gradient[:2].any()


@pytest.mark.parametrize(
    ("info", "given", "words"),
    [
        ({"spin": 1}, {}, r"trained with the total charge, and this structure has none: set atoms.info\['charge'\]"),
        ({"charge": 0}, {}, r"multiplicity 2S \+ 1, and this structure has none"),
        ({"charge": 7, "spin": 1}, {}, "trained with charge -1, 0, 1; this structure has 7"),
        ({"charge": 0, "spin": 0}, {}, "trained with spin 1, 2, 3; this structure has 0"),
        ({"charge": 0.5, "spin": 1}, {}, "whole numbers, got 0.5"),
        ({"charge": "one", "spin": 1}, {}, "whole numbers, got 'one'"),
        ({"charge": True, "spin": 1}, {}, "whole numbers, got True"),
        ({"charge": 1, "spin": 1}, {"charge": 0}, "says charge 1, .* asked for with charge 0"),
    ],
)
def test_what_a_structure_must_state(
    model: AtomisticModel, info: dict[str, object], given: dict[str, int], words: str
) -> None:
    atoms = Atoms("CO", positions=[[0, 0, 0], [1.1, 0, 0]], info=info)
    with pytest.raises(StructureError, match=words):
        stated_inputs(atoms, model.inputs, given)


def test_given_values_stand_in_for_stated_ones(model: AtomisticModel) -> None:
    atoms = Atoms("CO", info={"spin": 1.0})
    found = stated_inputs(atoms, model.inputs, {"charge": -1})
    assert {name: (int(value), value.dtype) for name, value in found.items()} == {
        "charge": (-1, np.int64),
        "spin": (1, np.int64),
    }


def test_data_without_a_charge_are_refused_before_training(model: AtomisticModel) -> None:
    atoms = Atoms("CO", positions=[[0, 0, 0], [1.1, 0, 0]])
    labels = {"energy": np.array(1.0), "charge": np.array(0), "spin": np.array(1)}
    good = Sample(atoms, labels, {"source": "a.xyz:0"})
    graphs = GraphDataset([good], model.graph_builder, labels=["energy"], inputs=model.inputs)
    assert graphs[0].charge.tolist() == [0]
    without = Sample(atoms, {"energy": np.array(1.0)}, {"source": "a.xyz:1"})
    with pytest.raises(DataError, match=r"a.xyz:1 has no charge, which the model needs"):
        GraphDataset([without], model.graph_builder, inputs=model.inputs)
    other = Sample(atoms, {**labels, "charge": np.array(4)}, {"source": "a.xyz:2"})
    with pytest.raises(DataError, match=r"a.xyz:2: The model was trained with charge -1, 0, 1; this structure has 4"):
        GraphDataset([good, other], model.graph_builder, labels=["energy"], inputs=model.inputs)
    with pytest.raises(StructureError, match="needs the total charge"):
        predict_dataset(model, [graph_of(atoms, model.graph_builder)], ("energy",))


def test_omol25_reaches_the_model(tmp_path: Path) -> None:
    """Charges and multiplicities of the files are those that the model sees."""
    config = compose_model("facet", *SMALL, "model/conditioning=[charge,spin]")
    config["elements"] = ["H", "C", "N", "O", "Na"]
    config["head"]["energy"]["atomic_energies"] |= {"N": -1484.9, "Na": -4411.0}
    model = random_model(config)
    data = OMol25Dataset(**write(tmp_path).options)
    graphs = GraphDataset(data, model.graph_builder, labels=["energy"], elements=model.elements, inputs=model.inputs)
    assert [int(graph.charge) for graph in graphs] == [int(sample.labels["charge"]) for sample in data]
    assert {int(graph.charge) for graph in graphs} == {-1, 0, 1}
    found = predict_dataset(model, graphs, ("energy",))
    for sample, prediction in zip(data, found):
        atoms = charged(int(sample.labels["charge"]), int(sample.labels["spin"]), sample.atoms)
        assert float(prediction["energy"]) == pytest.approx(float(evaluate(model, atoms)["energy"]), rel=1e-12)
