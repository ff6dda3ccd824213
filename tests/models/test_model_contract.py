"""The contract of potentials, run on each option of their plug points; see test_shipped_models.py for the yamls."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read

from mlip.data.build_graph import build_graph
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.nn.derivatives import predict
from mlip.testing import finite_differences, suite, symmetry
from mlip.testing.evaluate import evaluate, graph_for
from mlip.testing.measurement import worst
from mlip.testing.structures import dimer, isolated_atom, molecule
from tests.components import ENERGIES, SMALL, component_names, compose_model, random_model, small_facet
from tests.models.checked import check, structures_of

GROUPS = ("tensor_product", "radial", "envelope", "graph")
PARTS_OF_EDGES = ("model/tensor_product=", "model/radial=", "model/envelope=")
"""Options that see the edges and not the cell that they come from."""
VARIANTS = [
    ("facet", (*SMALL, "model/activation=quadratic", f"model/{group}={name}"))
    for group in GROUPS
    for name in component_names(group)
]
VARIANTS += [
    ("facet", (*SMALL, "model/activation=quadratic", "model/pair_term=[zbl]")),
    ("facet", ("model.irreps_hidden=6x0e", "model.num_layers=2", "model/activation=silu")),
    (
        "facet",
        ("model.irreps_hidden=4x0e+4x2e", "model.lmax_edge=3", "model.num_layers=2", "model/activation=quadratic"),
    ),
    ("facet", (*SMALL, "model/activation=quadratic", "model.elements=[H]")),
    ("facet", (*SMALL, "model/activation=quadratic", "model.num_layers=1")),
    # Labels that are all even: three layers make pseudoscalars, which only rotations keep.
    ("facet", ("model.irreps_hidden=4x0e+2x1e+2x2e", "model.num_layers=3", "model.edge_parity=even")),
]
# Cubes of random features push atoms apart with 1000 eV/Å, for which float32 has no 1e-5 eV: a smaller scale.
SMALL_MACE = ("model.irreps_hidden=4x0e+4x1o", "model.lmax_edge=2", "model.head.energy_all_layers.scale=0.3")
VARIANTS += [("mace", (*SMALL_MACE, f"model/many_body={name}")) for name in component_names("many_body")]
VARIANTS += [("mace", (*SMALL_MACE, "model.correlation=2", "model.residual=true"))]
SMALL_SEVENNET = ("model.irreps_hidden=6x0e+4x1e+2x2e", "model.num_layers=2", "model.head.energy_fixed.hidden=[3]")
# Two cores, and all that a structure can say of itself.
PARTS = ("model/pair_term=[born_mayer,zbl]", "model/conditioning=[charge,spin,tags]")
VARIANTS += [
    ("facet", (*SMALL, "model/activation=quadratic", *PARTS)),
    ("sevennet", (*SMALL_SEVENNET, "+model.bias=true", "+model.solid_harmonics=true")),
]
SLOW = len(VARIANTS)
"""Index of the first variant that is left to the slow tests."""
VARIANTS += [("sevennet", SMALL_SEVENNET), ("mace", (*SMALL_MACE, *PARTS))]
QUICK_PRODUCTS = ("clebsch_gordan_dense", "gaunt_grid", "so2")
"""One of each kind of product; the others have a quick contract of their own, and are slow here."""


@cache
def variant(index: int) -> AtomisticModel:
    name, overrides = VARIANTS[index]
    return random_model(compose_model(name, *overrides))


def is_slow(index: int) -> bool:
    group, _, name = VARIANTS[index][1][-1].partition("=")
    return index >= SLOW or (group == "model/tensor_product" and name not in QUICK_PRODUCTS)


@pytest.fixture(
    params=[pytest.param(k, marks=pytest.mark.slow) if is_slow(k) else k for k in range(len(VARIANTS))],
    ids=lambda k: " ".join(VARIANTS[k][1][-1:]),
)
def number(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def model(number: int) -> AtomisticModel:
    return variant(number)


@pytest.fixture
def structures(number: int, model: AtomisticModel) -> dict[str, Atoms]:
    """All kinds of periodicity for what may treat them differently, else the open and the hardest one."""
    found = structures_of(model)
    edges_only = VARIANTS[number][1][-1].startswith(PARTS_OF_EDGES)
    return {name: found[name] for name in ("molecule", "skewed cell")} if edges_only else found


def test_exactly_equivariant(model: AtomisticModel, structures: dict[str, Atoms]) -> None:
    assert model.exactly_equivariant
    for name, atoms in structures.items():
        check(suite.equivariance_rows(model, name, atoms))


def test_other_symmetries(model: AtomisticModel, structures: dict[str, Atoms]) -> None:
    for name, atoms in structures.items():
        check(suite.symmetry_rows(model, name, atoms))


def test_forces_and_stress_by_finite_differences(model: AtomisticModel, structures: dict[str, Atoms]) -> None:
    for name, atoms in structures.items():
        if name != "crystal":
            check(suite.derivative_rows(model, name, atoms))


@pytest.mark.slow
def test_every_option_in_every_structure(model: AtomisticModel, structures: dict[str, Atoms]) -> None:
    """The structures that the tests above leave out."""
    for name, atoms in structures_of(model).items():
        if name not in structures:
            check(suite.equivariance_rows(model, name, atoms))
            check(suite.symmetry_rows(model, name, atoms))
            check(suite.derivative_rows(model, name, atoms))


def test_nothing_jumps_at_the_cutoff(model: AtomisticModel) -> None:
    check(suite.cutoff_rows(model))


def test_float32_and_edge_cases(model: AtomisticModel) -> None:
    check(suite.edge_case_rows(model, structures_of(model)))
    check(suite.precision_rows(model, "molecule", structures_of(model)["molecule"]))


def test_aliasing_falls_with_the_grid_and_vanishes_in_the_exact_variant() -> None:
    config = compose_model("facet", *SMALL, "model/activation=silu")
    errors = []
    for resolution in ([6, 11], [10, 19], [18, 35]):
        model = random_model({**config, "nonlinearity": {**config["nonlinearity"], "resolution": resolution}})
        assert not model.exactly_equivariant
        errors.append(symmetry.equivariance_errors(model, molecule(model.elements))["forces"])
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


def test_resolution_errors_of_the_doctor() -> None:
    model = random_model(
        compose_model("facet", *SMALL, "model/activation=silu", "model.nonlinearity.resolution=[10,19]")
    )
    found = suite.resolution_errors(model, molecule(model.elements))
    assert list(found) == ["6x11", "10x19", "16x30"]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    own = symmetry.equivariance_errors(model, molecule(model.elements))["forces"]
    assert found["10x19"] == pytest.approx(own, rel=1e-6)
    assert suite.resolution_errors(small_facet(), molecule(model.elements)) == {}


def test_energies_are_float64_and_include_the_references() -> None:
    model = small_facet().to(torch.float32)
    for symbol in model.elements:
        found = predict(model, build_graph(isolated_atom(symbol), model.cutoff), ("energy", "forces", "stress"))
        assert {value.dtype for value in found.values()} == {torch.float64}
        assert float(found["energy"]) == pytest.approx(ENERGIES[symbol], abs=20.0)
        assert not found["forces"].any()
        assert not found["stress"].any()


def test_fresh_model_is_the_reference_atoms_and_seeds_count() -> None:
    config = compose_model("facet", *SMALL, "model.norm.initial_scale=0.0")
    one, same, other = build_model(config, seed=1), build_model(config, seed=1), build_model(config, seed=2)
    state = one.state_dict()
    assert all(torch.equal(state[name], value) for name, value in same.state_dict().items())
    assert not all(torch.equal(state[name], value) for name, value in other.state_dict().items())
    # Residual branches start at zero: atoms do not see each other.
    assert not evaluate(one, molecule(one.elements))["forces"].any()


def test_building_leaves_the_random_state_and_the_configuration() -> None:
    config = compose_model("facet", *SMALL)
    before, state = str(config), torch.get_rng_state()
    model = build_model(config)
    assert str(config) == before
    assert torch.equal(torch.get_rng_state(), state)
    model.config["cutoff"] = 9.0
    assert config["cutoff"] == 4.0


def test_one_atom_in_a_cell_smaller_than_the_cutoff() -> None:
    """All edges go to images of the atom itself: forces are zero by symmetry, the stress is not."""
    model = small_facet()
    atoms = Atoms("C", cell=[[2.1, 0.1, 0.0], [1.3, 2.0, 0.2], [-0.4, 0.9, 2.3]], pbc=True)
    found = evaluate(model, atoms, ("energy", "forces", "stress"))
    assert np.abs(found["forces"]).max() < 1e-12
    assert np.abs(found["stress"]).max() > 1e-4
    assert finite_differences.stress_error(model, atoms) < 1e-6
    assert symmetry.supercell_error(model, atoms) < 1e-9


def test_order_of_elements_does_not_matter() -> None:
    config = compose_model("facet", *SMALL, "model/activation=quadratic")
    one, other = (random_model({**config, "elements": symbols}) for symbols in (["H", "C", "O"], ["O", "H", "C"]))
    atoms = molecule(["H", "C", "O"])
    assert one.elements == other.elements == ("H", "C", "O")
    assert evaluate(one, atoms)["energy"] == evaluate(other, atoms)["energy"]


def test_unknown_element_is_never_another_element() -> None:
    """The calculator refuses it in a sentence; a direct call of the model is an error, not a number."""
    model = small_facet()
    with pytest.raises(IndexError):
        predict(model, build_graph(Atoms("S"), model.cutoff), ("energy",))


def test_atoms_on_top_of_each_other() -> None:
    """No NaN and no 10¹² eV/Å from the direction of a vector of length zero, at second order too."""
    model = small_facet()
    graph = build_graph(dimer("C", "H", 0.0), model.cutoff)
    found = predict(model, graph, create_graph=True)
    assert graph.edge_index.shape[1] == 2
    assert torch.isfinite(found["forces"]).all()
    assert float(found["forces"].detach().abs().max()) < 1e3
    found["forces"].square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    repulsive = small_facet("model/pair_term=[zbl]")
    near = [evaluate(repulsive, dimer("C", "H", r))["energy"] for r in (0.5, 0.1, 0.01)]
    assert near == sorted(near)
    assert near[-1] > 1000


@pytest.mark.reference
def test_real_molecules(reference_data: Path) -> None:
    """Frames of 3BPA: 27 atoms in real geometries."""
    path = reference_data / "3bpa" / "train_300K.xyz"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    config = compose_model("facet", *SMALL, "model/activation=quadratic")
    config["elements"], energies = ["H", "C", "N", "O"], config["head"]["energy"]["atomic_energies"]
    energies["N"] = -1484.9
    model = random_model(config)
    atoms = read(path, "0")
    for rows in (suite.equivariance_rows, suite.symmetry_rows, suite.derivative_rows, suite.precision_rows):
        check(rows(model, "3BPA", atoms))


def test_repulsion_is_added_to_the_same_model() -> None:
    plain, repulsive = small_facet(), small_facet("model/pair_term=[zbl]")
    far, near = dimer("C", "H", 1.4), dimer("C", "H", 0.4)
    assert evaluate(plain, far)["energy"] == evaluate(repulsive, far)["energy"]
    assert evaluate(repulsive, near)["energy"] - evaluate(plain, near)["energy"] > 10.0


def test_every_parameter_is_trained_by_energies_and_forces(model: AtomisticModel) -> None:
    """A parameter without a gradient breaks distributed training and is wasted."""
    model.zero_grad(set_to_none=True)
    found = predict(model, graph_for(model, molecule(model.elements)), create_graph=True)
    (found["forces"].square().sum() + found["energy"].square().sum()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle, idle


def test_gradient_of_a_force_loss_by_finite_differences() -> None:
    model = small_facet()
    graph = build_graph(molecule(model.elements, num_atoms=4), model.cutoff)

    def loss(create_graph: bool) -> torch.Tensor:
        return predict(model, graph, create_graph=create_graph)["forces"].square().sum()

    loss(True).backward()
    # Shifts of the energy are no business of forces; every other parameter is.
    trained = {name: p for name, p in model.named_parameters() if name != "heads.energy.shifts"}
    for name, parameter in trained.items():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        k = int(gradient.abs().argmax())
        value, step = float(flat[k]), 1e-5
        results = []
        for sign in (1, -1):
            flat[k] = value + sign * step
            results.append(float(loss(False)))
        flat[k] = value
        assert (results[0] - results[1]) / (2 * step) == pytest.approx(float(gradient[k]), rel=1e-5), name


def test_unwrapped_and_far_away_atoms_lose_no_digits() -> None:
    model = small_facet().to(torch.float32)
    atoms = molecule(model.elements)
    moved = atoms.copy()
    moved.positions += 1e5
    near, far = evaluate(model, atoms)["forces"], evaluate(model, moved)["forces"]
    assert np.abs(near - far).max() < 1e-5 * np.abs(near).max()


def test_a_nan_is_not_lost_among_numbers() -> None:
    """Python's max drops a NaN that does not come first."""
    assert np.isnan(worst(0.0, float("nan"), 1.0))
    found = {"energy": np.array(float("nan")), "forces": np.zeros((2, 3))}
    expected = {"energy": np.array(0.0), "forces": np.ones((2, 3))}
    assert np.isnan(symmetry._difference(expected, found, expected["forces"]))
