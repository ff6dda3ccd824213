"""Networks of Hamiltonians: the contract of matrices over orbitals, and what else they promise."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule as g2

from mlip.core.errors import StructureError
from mlip.data.build_graph import build_graph, graph_of
from mlip.data.orbitals import orbital_table
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.models.model_file import load_model, save_model
from mlip.testing import orbital_checks
from mlip.testing.evaluate import evaluate
from mlip.testing.structures import molecule, within_reach
from tests.models.checked import check
from tests.models.hamiltonian_cases import FIXED, acid, configuration, hamiltonian_model, onsite

DIFFERENCE = ("model/target=difference",)
VARIANTS = {
    "qhnet": ("qhnet", (), "def2-svp"),
    "qhnet, one pair layer, pairs by element": (
        "qhnet",
        ("model.pairs=by_element", "model.num_pair_layers=1"),
        "def2-svp",
    ),
    "qhnet, difference": ("qhnet", DIFFERENCE, "def2-svp"),
    "qhnet, small basis": ("qhnet", ("model.lmax=1", "model.lmax_edge=2"), "sto-3g"),
    "sphnet": ("sphnet", FIXED, "def2-svp"),
    "sphnet, all paths": ("sphnet", ("model/path_gate=none", "model.pair_gate.sparsity=0.4"), "def2-svp"),
    "vectorial, no gates": (
        "sphnet",
        ("model/path_gate=none", "model/pair_gate=none", "model.front_end.num_long_layers=0"),
        "def2-svp",
    ),
    "qhnet, f shells": ("qhnet", ("model.lmax=3", "model.num_channels=4"), "def2-tzvp"),
}
QUICK = ("qhnet", "qhnet, one pair layer, pairs by element", "sphnet")
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in VARIANTS]


def variant(name: str) -> AtomisticModel:
    model, overrides, basis = VARIANTS[name]
    return hamiltonian_model(model, *overrides, basis=basis)


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    model = variant(name)
    generated = within_reach(molecule(model.elements, seed=1), model.cutoff)
    check(orbital_checks.matrix_rows(model, "molecule", generated))
    check(orbital_checks.matrix_case_rows(model, {"molecule": generated, "H2": g2("H2"), "water": g2("H2O")}))
    check(orbital_checks.matrix_cutoff_rows(model))


@pytest.mark.parametrize(
    ("name", "options", "basis"),
    [
        ("qhnet", (), "def2-svp"),
        ("sphnet", FIXED, "def2-svp"),
        ("qhnet", ("model.lmax=3", "model.num_channels=4"), "def2-tzvp"),
        ("sphnet", ("model.lmax=3", "model.num_channels=4", "model.front_end.num_heads=4", *FIXED), "def2-tzvp"),
    ],
)
def test_a_molecule_of_three_elements_turns_to_1e_9_hartree(name: str, options: tuple[str, ...], basis: str) -> None:
    """The bar of the project: absolute, in float64, with entries as large as those of real Hamiltonians."""
    model, atoms = hamiltonian_model(name, *options, basis=basis, size=0.1), acid()
    assert model.remarks == ()
    found = evaluate(model, atoms)["hamiltonian"]
    atom = orbital_table(atoms.numbers, basis).atom
    for entries in (found, found[atom[:, None] == atom], found[atom[:, None] != atom]):
        assert 0.1 < np.sqrt(np.mean(entries**2)) < 100
    assert orbital_checks.rotation_error(model, "hamiltonian", atoms) < 1e-9


@pytest.mark.parametrize("name", QUICK)
def test_any_order_of_the_atoms_and_molecules_of_one_element(name: str) -> None:
    model, atoms = variant(name), acid()
    atom = orbital_table(atoms.numbers, "def2-svp").atom
    plain = evaluate(model, atoms)["hamiltonian"]
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(atoms))
        rows = np.concatenate([np.flatnonzero(atom == k) for k in order])
        found = evaluate(model, atoms[order])["hamiltonian"]
        assert np.abs(found - plain[np.ix_(rows, rows)]).max() < 1e-12 * np.abs(plain).max()
    for one in (g2("H2"), g2("O3"), Atoms("C4", positions=[[0, 0, 0], [1.3, 0, 0], [0, 1.4, 0], [0, 0.3, 1.5]])):
        size = np.abs(evaluate(model, one)["hamiltonian"]).max()
        assert size > 0.1
        assert orbital_checks.rotation_error(model, "hamiltonian", one) < 1e-12 * max(size, 1.0)


@pytest.mark.parametrize("step", [1, 2500])
def test_training_goes_on_from_a_state_as_if_it_had_not_stopped(step: int) -> None:
    """The draws of the first phase, and what is kept, are those of the model whose state it is."""
    config = configuration("sphnet")
    model, other = (build_model(config, seed=seed, dtype=torch.float64).train() for seed in (0, 1))
    model.begin_step(step)
    other.load_state_dict(model.state_dict())
    graph = build_graph(acid(), model.cutoff)
    for k in (step + 1, 3000):
        for one in (model, other):
            one.begin_step(k)
        assert torch.equal(model(graph)["hamiltonian"], other(graph)["hamiltonian"])


@pytest.mark.parametrize("name", ["qhnet", "qhnet, one pair layer, pairs by element", "sphnet"])
def test_every_parameter_is_trained(name: str) -> None:
    """A parameter without a gradient breaks distributed training and is wasted."""
    model, overrides, basis = VARIANTS[name]
    # Irreps that no kept path reaches would have weights without an effect.
    overrides = ("model.path_gate.sparsity=0.0",) if model == "sphnet" else overrides
    model = build_model(configuration(model, *overrides, basis=basis), dtype=torch.float64).train()
    model(build_graph(acid(), model.cutoff))["hamiltonian"].square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    idle = {name for name, p in model.named_parameters() if not p.grad.any()}
    assert not idle


def test_without_features_the_matrix_is_that_of_the_atoms() -> None:
    """Mean blocks of the training data: s with s, p with p of the same m, by hand."""
    model = build_model(configuration("qhnet"), dtype=torch.float64)
    with torch.no_grad():
        for expansion in (model.expand_self, model.expand_pair):
            for part in (expansion.dense.weights[-1], expansion.dense.biases[-1]):
                part.zero_()
    atoms = acid()
    found, table = evaluate(model, atoms)["hamiltonian"], orbital_table(atoms.numbers, "def2-svp")
    values = onsite("def2-svp")
    for a in range(len(table)):
        for b in range(len(table)):
            same = all(getattr(table, part)[a] == getattr(table, part)[b] for part in ("atom", "degree", "order"))
            of_atom = values[atoms.symbols[table.atom[a]]][table.degree[a]]
            assert found[a, b] == (of_atom[table.rank[a]][table.rank[b]] if same else 0.0)


def test_difference_is_added_to_the_initial_guess() -> None:
    model, atoms = variant("qhnet, difference"), g2("H2O")
    guess = np.random.default_rng(0).normal(size=(24, 24))
    guess += guess.T
    own = evaluate(model, atoms)["hamiltonian"]
    graph = graph_of(atoms, model.graph_builder, {"initial_hamiltonian": guess})
    found = model(graph)["hamiltonian"].detach().numpy().reshape(24, 24)
    assert np.abs(found - own - guess).max() < 1e-13
    for labels in ({}, {"initial_hamiltonian": guess[1:, 1:]}):
        with pytest.raises(StructureError, match=r"none in def2-svp: data need data\.dataset\.initial_guess=compute"):
            model(graph_of(atoms, model.graph_builder, labels))


def test_matrices_are_float64_in_any_precision() -> None:
    model = build_model(configuration("qhnet"), dtype=torch.float32)
    found = model(build_graph(acid(), model.cutoff))
    assert found["hamiltonian"].dtype == torch.float64
    assert found["num_orbitals"].tolist() == [76]
    assert found["hamiltonian"].shape == (76**2,)


def test_hydrogen_in_s_functions_alone() -> None:
    """No degree but 0: the layers are those of scalars."""
    config = configuration("qhnet", "model.lmax=0", basis="sto-3g") | {"elements": ["H"], "onsite": None}
    model = build_model(config, dtype=torch.float64)
    assert orbital_checks.rotation_error(model, "hamiltonian", g2("H2")) < 1e-12
    assert evaluate(model, g2("H2"))["hamiltonian"].shape == (2, 2)


@pytest.mark.parametrize(("long", "jumps"), [(1, True), (0, False)])
def test_a_hydrogen_that_changes_its_fragment_is_said_to_make_a_jump(long: int, jumps: bool) -> None:
    model = hamiltonian_model(
        *("sphnet", "model/pair_gate=none", "model/path_gate=none", f"model.front_end.num_long_layers={long}")
    )
    found = []
    for height in (1.1997, 1.2003, 1.2009):
        atoms = Atoms("OHCH2", positions=[[0, 0, 0], [0, 0, height], [0, 0, 2.4], [0.9, 0.3, 2.9], [-0.9, 0.4, 2.9]])
        found.append(evaluate(model, atoms)["hamiltonian"])
    assert model.continuous is not jumps
    across, beside = (float(np.abs(b - a).max()) for a, b in pairwise(found))
    assert across > 10 * beside if jumps else across < 1.1 * beside


def test_blocks_of_far_atoms_are_zero_and_those_of_near_ones_are_not() -> None:
    model = variant("qhnet")
    # Without an edge, and with one at which the envelope has long been zero.
    for distance in (model.cutoff, 0.999 * model.cutoff):
        far = Atoms("OC", positions=[[0, 0, 0], [0, 0, distance]])
        assert not evaluate(model, far)["hamiltonian"][:14, 14:].any()
    far.positions[1, 2] = 0.2 * model.cutoff
    assert np.abs(evaluate(model, far)["hamiltonian"][:14, 14:]).max() > 1e-3


@pytest.mark.parametrize("name", ["qhnet", "sphnet"])
def test_bad_structures(name: str) -> None:
    model = variant(name)
    with pytest.raises(StructureError, match="Hamiltonians of molecules; set pbc to false"):
        evaluate(model, Atoms("O", cell=[4, 4, 4], pbc=True))
    with pytest.raises(IndexError):
        model(build_graph(Atoms("S"), model.cutoff))
    on_top = evaluate(model, Atoms("COH", positions=[[0, 0, 0], [0, 0, 0], [0, 0, 1]]))["hamiltonian"]
    assert np.isfinite(on_top).all()


@pytest.mark.parametrize("step", [pytest.param(0, marks=pytest.mark.slow), 2500, 4000])
def test_a_file_keeps_the_phase_of_the_gates(step: int, tmp_path: Path) -> None:
    model = build_model(configuration("sphnet"), dtype=torch.float64)
    with torch.no_grad():
        for layer in (*model.self_pairs, *model.pair_layers):
            layer.product.gate.strengths.add_(torch.linspace(0.4, -0.4, len(layer.product.gate.strengths)))
    model.begin_step(step)
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors")
    assert np.array_equal(evaluate(model.eval(), acid())["hamiltonian"], evaluate(again, acid())["hamiltonian"])
    gate = again.pair_layers[0].product.gate
    assert int(gate.step) == step
    assert gate.is_fixed == (step == 4000)


def test_inference_after_the_gates_is_the_adaptive_model() -> None:
    """Fixing the paths changes nothing at that moment: the smaller product is exact."""
    model = build_model(configuration("sphnet"), dtype=torch.float64).eval()
    model.begin_step(2999)
    adaptive = evaluate(model, acid())["hamiltonian"]
    model.begin_step(3000)
    assert model.pair_layers[0].product.columns is not None
    assert np.abs(evaluate(model, acid())["hamiltonian"] - adaptive).max() < 1e-12 * np.abs(adaptive).max()
