"""Committees of whole models against numpy over their members, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError
from mlip.data.build_graph import graph_of
from mlip.models.base import AtomisticModel
from mlip.models.committee import Committee, committee_of
from mlip.models.model_file import load_model, save_model
from mlip.nn.derivatives import predict, predictable
from mlip.nn.heads.energy import EnergyHead
from mlip.testing import field_checks, suite
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import molecule, standard_structures
from mlip.testing.symmetry import random_orthogonal, transformed
from tests.components import SMALL, compose_model, random_model, small_facet
from tests.simulate.pair_model import PairModel

SPREADS = ("energy_std", "energies_std", "forces_std", "stress_std")


@pytest.fixture(scope="module")
def members() -> list[AtomisticModel]:
    """Three seeds, and one with another cutoff and without a head's oxygen."""
    shorter = compose_model("facet", *SMALL, "model/activation=quadratic", "model.cutoff=3.3", "model.elements=[H,C]")
    return [*(small_facet(seed=seed) for seed in range(3)), random_model(shorter, seed=3)]


@pytest.fixture(scope="module")
def committee(members: list[AtomisticModel]) -> Committee:
    return committee_of(members)


def norms(values: np.ndarray) -> np.ndarray:
    """Square norms over all but the first two dimensions (members, rows)."""
    return np.square(values).reshape(*values.shape[:2], -1).sum(2)


def expected(members: list[AtomisticModel], graph: object) -> dict[str, np.ndarray]:
    """Means and spreads from each member by itself on a graph of its own."""
    found = {}
    for name in ("energy", "energies", "forces", "stress"):
        each = []
        for member in members:
            batch = Batch.from_data_list([graph_of(atoms, member.graph_builder) for atoms in graph])
            each.append(predict(member, batch, ("energy", "energies", "forces", "stress"))[name].numpy())
        each = np.stack(each)
        found[name] = each.mean(0)
        found[f"{name}_members"] = np.moveaxis(each, 0, 1)
        found[f"{name}_std"] = np.sqrt(norms(each - each.mean(0)).mean(0))
    return found


def test_means_and_spreads_of_a_batch(committee: Committee, members: list[AtomisticModel]) -> None:
    structures = list(standard_structures(committee.elements, seed=1).values())
    batch = Batch.from_data_list([graph_of(atoms, committee.graph_builder) for atoms in structures])
    before = batch.clone()
    wanted = expected(members, structures)
    found = predict(committee, batch, ("energy", "energies", "forces", "stress", *SPREADS))
    assert set(wanted) == set(found)
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        assert np.abs(found[name].numpy() - value).max() < 1e-11, name
    assert (wanted["forces_std"] > 0.01).all()
    # Through one backward pass of the mean, too.
    plain = predict(committee, batch, ("energy", "forces", "stress"))
    for name in ("energy", "forces", "stress"):
        assert np.abs(plain[name].numpy() - wanted[name]).max() < 1e-11, name
    assert "forces_members" not in plain
    assert torch.equal(before.edge_index, batch.edge_index)
    assert torch.equal(before.cell_shifts, batch.cell_shifts)


def test_a_member_is_differentiated_once() -> None:
    models = [PairModel(depth=depth) for depth in (0.3, 0.4, 0.5)]
    committee = committee_of(models)
    graph = graph_of(molecule(committee.elements), committee.graph_builder)
    predict(committee, graph, ("forces", "forces_std", "energy_std"))
    assert [member.calls for member in committee.members] == [[True]] * 3
    predict(committee, graph, ("energy_std",))
    assert [member.calls for member in committee.members] == [[True, False]] * 3


def test_identical_members_agree() -> None:
    model = small_facet()
    found = evaluate(committee_of([model, model, model]), molecule(model.elements), ("energy", "forces", *SPREADS[:3]))
    alone = evaluate(model, molecule(model.elements))
    assert all(np.abs(found[name]).max() < 1e-11 for name in SPREADS[:3])
    assert np.abs(found["forces"] - alone["forces"]).max() < 1e-12


def test_spreads_do_not_turn_with_the_structure(committee: Committee) -> None:
    atoms = standard_structures(committee.elements, seed=2)["slab"]
    plain = evaluate(committee, atoms, SPREADS)
    for seed, proper in ((0, True), (1, False)):
        turned = evaluate(committee, transformed(atoms, random_orthogonal(seed, proper=proper)), SPREADS)
        for name in SPREADS:
            assert np.abs(turned[name] - plain[name]).max() < 1e-9 * np.abs(plain[name]).max(), name


@pytest.mark.slow
def test_a_committee_is_a_model(committee: Committee) -> None:
    structures = standard_structures(committee.elements, seed=1)
    rows = [*suite.cutoff_rows(committee), *suite.edge_case_rows(committee, structures)]
    rows += [*field_checks.field_case_rows(committee, structures), *field_checks.field_cutoff_rows(committee)]
    for name in ("molecule", "slab"):
        for check in (suite.equivariance_rows, suite.symmetry_rows, suite.derivative_rows, suite.precision_rows):
            rows += check(committee, name, structures[name])
        rows += field_checks.field_rows(committee, name, structures[name])
    assert not [row for row in rows if not row.passed]


def test_one_file(committee: Committee, members: list[AtomisticModel], tmp_path: Path) -> None:
    save_model(tmp_path / "committee.safetensors", committee)
    loaded = load_model(tmp_path / "committee.safetensors")
    assert isinstance(loaded, Committee)
    assert loaded.elements == ("H", "C")
    assert loaded.cutoff == 4.0
    assert loaded.num_parameters == sum(member.num_parameters for member in members)
    atoms = molecule(committee.elements)
    fields = ("energy", "forces", "forces_std")
    first, second = evaluate(committee, atoms, fields), evaluate(loaded, atoms, fields)
    assert all(np.array_equal(first[name], second[name]) for name in fields)


def test_committees_of_committees_are_flat(members: list[AtomisticModel]) -> None:
    for member, author in zip(members, "abcd"):
        member.metadata = {"author": author, "data": {"train": 1}}
    nested = committee_of([committee_of(members[:2]), members[2].to(torch.float32)])
    members[2].to(torch.float64)
    assert len(nested.members) == len(nested.config["members"]) == 3
    assert nested.dtype == torch.float64
    assert nested.metadata["data"] == {"train": 1}
    assert [card["author"] for card in nested.metadata["members"].values() if "author" in card] == ["c"]


def test_fields_of_single_models_are_as_before() -> None:
    assert predictable(small_facet()) == ("energy", "energies", "forces", "stress")
    with pytest.raises(ConfigError, match="Cannot predict 'forces_std'"):
        evaluate(small_facet(), molecule(["H", "C"]), ("forces_std",))


def with_fields(*fields: str) -> PairModel:
    model = PairModel()
    model.fields = fields
    return model


def with_spins(*values: int) -> PairModel:
    model = PairModel()
    model.inputs = {"spin": values}
    return model


def of_level(level: str | None) -> PairModel:
    model = PairModel()
    model.metadata = {"data": {} if level is None else {"level_of_theory": level}}
    return model


def test_levels_of_theory_are_not_averaged() -> None:
    """Energies of PBE and r2SCAN have other zeros; members of unknown level are taken on trust."""
    assert len(committee_of([of_level("PBE"), of_level(None), of_level("PBE")]).members) == 3
    with pytest.raises(ConfigError, match=r"one level of theory, .* fitted to PBE, and to r2SCAN"):
        committee_of([of_level("PBE"), of_level(None), of_level("r2SCAN")])


def test_inputs_that_all_members_know() -> None:
    assert committee_of([with_spins(1, 2), with_spins(2, 3), PairModel()]).inputs == {"spin": (2,)}


def test_models_that_do_not_fit_together() -> None:
    nearest = compose_model("facet", *SMALL, "model/graph=nearest")
    for models, words in (
        ([PairModel()], "at least two models"),
        ([PairModel(("H",)), PairModel(("Cu", "C"))], "must share an element, these know H; C, Cu"),
        ([PairModel(), with_fields("energy", "energies", "magmoms")], "must predict the same: .* number 2 .*magmoms"),
        ([random_model(nearest), small_facet()], "the same graph or radius graphs, these have: the .* nearest"),
        ([with_spins(1), with_spins(3)], "must share a spin"),
    ):
        with pytest.raises(ConfigError, match=words):
            committee_of(models)


def with_reference(energy: float) -> AtomisticModel:
    model = small_facet()
    for head in model.modules():
        if isinstance(head, EnergyHead):
            head.atomic_energies += energy
    return model


def test_zeros_of_energy_are_not_averaged() -> None:
    """All electrons, or valence electrons: what no card says, too."""
    assert len(committee_of([with_reference(0.0), with_reference(5.0)]).members) == 2
    with pytest.raises(ConfigError, match=r"same zero: the reference energy of \w+ is .* in number 1, .* in number 3"):
        committee_of([with_reference(0.0), PairModel(), with_reference(-500.0)])
