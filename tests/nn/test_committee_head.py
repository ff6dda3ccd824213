"""The committee of readouts: its mean, who sees what in training, and the model contract."""

import numpy as np
import pytest
import torch
from ase import Atoms
from torch_geometric.data import Batch

from mlip.core.errors import ConfigError
from mlip.data.build_graph import graph_of
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict, predictable
from mlip.testing import field_checks, suite
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import molecule, standard_structures
from tests.components import SMALL, compose_model, random_model, small_facet

MEMBERS = ("energy_members", "energies_members", "forces_members", "stress_members")


def small_committee(*overrides: str) -> AtomisticModel:
    return small_facet("model/head=[committee]", "model/pair_term=[zbl]", *overrides)


@pytest.fixture(scope="module")
def model() -> AtomisticModel:
    return small_committee()


def batch_of(model: AtomisticModel, structures: list[Atoms]) -> Batch:
    return Batch.from_data_list([graph_of(atoms, model.graph_builder) for atoms in structures])


def single_models(model: AtomisticModel) -> list[AtomisticModel]:
    """The members of a committee of readouts as models of their own, with the plain energy head."""
    state = model.state_dict()
    singles = []
    for number in range(4):
        single = small_facet("model/pair_term=[zbl]")
        own = {name: value for name, value in state.items() if not name.startswith("heads.")}
        for name in single.state_dict():
            if name.startswith("heads.energy."):
                own[name] = state[name.replace("heads.energy", f"heads.committee.members.{number}")]
        single.load_state_dict(own)
        singles.append(single)
    return singles


def test_members_are_models_with_one_readout(model: AtomisticModel) -> None:
    structures = [*standard_structures(model.elements, seed=1).values()]
    batch = batch_of(model, structures)
    fields = ("energy", "energies", "forces", "stress")
    found = predict(model, batch, (*fields, *MEMBERS, "forces_std"))
    each = [predict(single, batch, fields) for single in single_models(model)]
    plain = predict(model, batch, fields)
    for name, members in zip(fields, MEMBERS, strict=True):
        wanted = torch.stack([one[name] for one in each], dim=1)
        assert (found[members] - wanted).abs().max() < 1e-11, name
        assert (found[name] - wanted.mean(1)).abs().max() < 1e-11, name
        assert (plain[name] - found[name]).abs().max() < 1e-11, name
    forces = torch.stack([one["forces"] for one in each]).numpy()
    spread = np.sqrt(np.square(forces - forces.mean(0)).sum(2).mean(0))
    assert np.abs(found["forces_std"].numpy() - spread).max() < 1e-12
    assert spread.min() > 0.01


def test_in_training_the_energy_is_that_of_those_who_see_the_structure(model: AtomisticModel) -> None:
    structures = [molecule(model.elements, seed=seed) for seed in range(12)]
    batch = batch_of(model, structures)
    head = model.heads["committee"]
    seen = head.seen(batch.positions, batch.batch, 12).bool()
    assert seen.any(1).all()
    assert 0.3 < seen.double().mean() < 0.7
    model.train()
    try:
        found = predict(model, batch, ("energy", "forces", "stress"), create_graph=True)
        alone = predict(model, batch_of(model, structures[5:6]), ("energy", "forces"))
    finally:
        model.eval()
    evaluated = predict(model, batch, MEMBERS)
    for graph in range(12):
        atoms = batch.batch == graph
        energy = evaluated["energy_members"][graph, seen[graph]].mean()
        forces = evaluated["forces_members"][atoms][:, seen[graph]].mean(1)
        assert abs(found["energy"][graph] - energy) < 1e-11
        assert (found["forces"][atoms] - forces).abs().max() < 1e-11
    assert abs(alone["energy"][0] - found["energy"][5]) < 1e-11
    # A member learns nothing from what it does not see.
    for member, weight in enumerate(m.readouts[0].weights[0] for m in head.members):
        unseen = found["energy"][~seen[:, member]].sum() + found["forces"][~seen[:, member][batch.batch]].sum()
        (gradient,) = torch.autograd.grad(unseen, [weight], retain_graph=True)
        assert not gradient.any()


@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_share_of_the_structures(share: float) -> None:
    head = small_committee(f"model.head.committee.share={share}").heads["committee"]
    positions = torch.randn(4000, 3, dtype=torch.float64)
    seen = head.seen(positions, torch.arange(4000), 4000)
    # A structure that nobody would see goes to one of the four.
    wanted = share + (1 - share) ** 4 / 4
    assert np.abs(seen.mean(0).numpy() - wanted).max() < 4 * np.sqrt(wanted / 4000)
    assert (seen.sum(1) >= 1).all()


@pytest.mark.slow
def test_a_model_with_it_obeys_the_contract(model: AtomisticModel) -> None:
    structures = standard_structures(model.elements, seed=1)
    rows = [*suite.cutoff_rows(model), *suite.edge_case_rows(model, structures)]
    rows += [*field_checks.field_case_rows(model, structures), *field_checks.field_cutoff_rows(model)]
    for name in ("molecule", "slab"):
        for check in (suite.equivariance_rows, suite.symmetry_rows, suite.derivative_rows, suite.precision_rows):
            rows += check(model, name, structures[name])
        rows += field_checks.field_rows(model, name, structures[name])
    assert not [row for row in rows if not row.passed]


def test_forces_of_a_head_of_their_own_have_no_members() -> None:
    own = ("model/head=[committee,direct_forces]", "model.irreps_hidden=6x0e+4x1o")
    model = random_model(compose_model("facet", *SMALL, *own))
    known = predictable(model)
    assert {"forces", "stress", "energy_std", "stress_std"} <= set(known)
    assert not {"forces_std", "forces_members"} & set(known)
    atoms = molecule(model.elements)
    direct = evaluate(model, atoms, ("forces",))["forces"]
    assert np.array_equal(evaluate(model, atoms, ("forces", "energy_std"))["forces"], direct)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.head.committee.members=1", "needs members >= 2, got 1"),
        ("model.head.committee.share=0", r"a share of the structures in \(0, 1\], got 0"),
        ("model.head.committee.share=1.5", "got 1.5"),
        ("model.head.committee.head._target_=mlip.nn.heads.committee.CommitteeHead", "CommitteeHead"),
    ],
)
def test_refusals(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small_committee(override)
