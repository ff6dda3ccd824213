"""New elements for a model: what it knew stays the same to the bit, on every shipped model."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from torch import nn

from mlip.core.errors import ConfigError, ModelFileError
from mlip.data.build_graph import graph_of
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.models.grow import add_elements, has_reference_energies, nearest_element, shift_energies
from mlip.models.model_file import load_model, save_model
from mlip.nn.derivatives import predict, predictable
from mlip.testing.structures import molecule
from tests.components import SMALL, component_names, compose_model, random_model
from tests.models.hamiltonian_cases import HAMILTONIANS, hamiltonian_model

NEW = ["Si", "N", "Cl"]
"""Between and behind H, C, O: rows of known elements move."""

VARIANTS = [
    ("facet", (*SMALL, "model/pair_term=[zbl]")),
    ("facet", (*SMALL, "model/self_connection=species", "model/radial_weights=mlp")),
    ("mace", ("model.irreps_hidden=4x0e+4x1o", "model.lmax_edge=1", "model.correlation=2")),
    *(pytest.param(name, (), marks=pytest.mark.slow) for name in component_names("") if name not in HAMILTONIANS),
]


def everything(model: AtomisticModel, atoms: Atoms) -> dict[str, torch.Tensor]:
    return predict(model, graph_of(atoms, model.graph_builder), [f for f in predictable(model) if "members" not in f])


def substituted(atoms: Atoms, old: str, new: str) -> Atoms:
    other = atoms.copy()
    other.symbols[[k for k, symbol in enumerate(other.symbols) if symbol == old]] = new
    return other


@pytest.mark.parametrize(("name", "overrides"), VARIANTS)
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64])
def test_old_elements_are_predicted_as_before_to_the_bit(name, overrides, dtype):
    model = random_model(compose_model(name, *overrides), size=0.1).to(dtype)
    atoms = molecule(model.elements, seed=3)
    before = everything(model, atoms)
    grown, origins = add_elements(model, NEW)
    assert grown.elements == ("H", "C", "N", "O", "Si", "Cl")
    assert origins == {"N": ("C",), "Si": ("C",), "Cl": ("O",)}
    assert grown.dtype == dtype
    after = everything(grown, atoms)
    for field, value in before.items():
        assert torch.equal(value, after[field]), field
    for field, value in everything(grown, substituted(atoms, "C", "Si")).items():
        assert torch.isfinite(value).all(), field


def test_every_new_row_is_a_copy_of_the_nearest_element():
    model = random_model(compose_model("facet", *SMALL, "model/self_connection=species"))
    grown, _ = add_elements(model, ["Si"])
    atoms = molecule(model.elements, seed=3)
    energy = {symbol: grown.config["head"]["energy"]["atomic_energies"][symbol] for symbol in ("C", "Si")}
    assert energy["Si"] == -289.2  # the configuration had it already
    found = everything(grown, substituted(atoms, "C", "Si"))
    expected = everything(model, atoms)
    number = list(atoms.symbols).count("C")
    torch.testing.assert_close(found["forces"], expected["forces"])
    torch.testing.assert_close(found["energy"], expected["energy"] + number * (energy["Si"] - energy["C"]))


@pytest.mark.slow
def test_the_mean_of_all():
    model = random_model(compose_model("facet", *SMALL))
    grown, origins = add_elements(model, ["N"], start="mean")
    assert origins == {"N": ("H", "C", "O")}
    torch.testing.assert_close(grown.embedding[2], model.embedding.mean(0))
    assert torch.equal(grown.embedding[[0, 1, 3]], model.embedding)
    # The energy of an atom has nothing to do with that of another one.
    assert grown.config["head"]["energy"]["atomic_energies"]["N"] == 0.0


@pytest.mark.slow
def test_a_grown_model_is_saved_and_loaded(tmp_path):
    model, _ = add_elements(random_model(compose_model("facet", *SMALL)), ["N"])
    save_model(tmp_path / "grown.safetensors", model)
    loaded = load_model(tmp_path / "grown.safetensors")
    assert loaded.elements == ("H", "C", "N", "O")
    atoms = molecule(loaded.elements, seed=1)
    assert torch.equal(everything(loaded, atoms)["forces"], everything(model, atoms)["forces"])


def test_nothing_new_is_the_same_model_and_mistakes_are_sentences():
    model = random_model(compose_model("facet", *SMALL))
    assert add_elements(model, ["C", "H"])[0] is model
    with pytest.raises(ConfigError, match="Did you mean 'nearest'"):
        add_elements(model, ["N"], start="neares")
    with pytest.raises(ConfigError, match="'Q' is not a chemical symbol"):
        add_elements(model, ["Q"])


@pytest.mark.parametrize("name", HAMILTONIANS)
def test_networks_of_hamiltonians_are_refused(name):
    """The blocks have room for the shells of the elements that there were."""
    with pytest.raises(
        ModelFileError, match="cannot get new elements: its matrices are laid out for the orbitals of H, "
    ):
        add_elements(hamiltonian_model(name), NEW)


class Odd(AtomisticModel):
    """Its weight grows with the square of the number of elements, in one dimension."""

    exactly_equivariant = True

    def __init__(self, elements, cutoff=3.0):
        super().__init__(elements, cutoff)
        self.table = nn.Parameter(torch.zeros(len(self.elements) ** 2))

    def forward(self, graph):
        raise NotImplementedError


def test_a_weight_that_no_row_can_be_added_to_is_refused(monkeypatch):
    model = Odd(["H", "C"])
    model.config = {"elements": ["H", "C"]}
    monkeypatch.setattr("mlip.models.grow.build_model", lambda config, dtype: Odd(config["elements"]))
    with pytest.raises(ModelFileError, match=r"'table' of shape \(4,\) for 2 elements has the shape \(9,\) for 3"):
        add_elements(model, ["O"])


def test_reference_energies_are_shifted_by_exactly_so_much():
    model = random_model(compose_model("facet", *SMALL))
    atoms = Atoms("H2CO", [[0, 0, 0], [0, 1.5, 0], [0.5, 0.7, 1.0], [1.5, 0.8, 1.2]])
    shifted = shift_energies(model, {"H": 0.5, "C": -1000.0})
    before, after = everything(model, atoms), everything(shifted, atoms)
    torch.testing.assert_close(after["energy"], before["energy"] + 2 * 0.5 - 1000.0, rtol=0, atol=1e-9)
    assert torch.equal(after["forces"], before["forces"])
    plain = build_model(compose_model("shape_classifier"))
    assert not has_reference_energies(plain)
    with pytest.raises(ModelFileError, match="has no 'atomic_energies'"):
        shift_energies(plain, {"H": 1.0})


@pytest.mark.parametrize(
    ("symbol", "known", "expected"),
    [
        ("Ge", ["H", "Ga", "As", "C", "Si"], "Si"),
        ("Na", ["H", "C", "F", "Li"], "Li"),
        ("Na", ["H", "C", "F"], "H"),
        ("Hf", ["La", "Lu", "Zr", "Ta"], "Zr"),
        ("Gd", ["Y", "Eu", "Zr"], "Eu"),
        ("He", ["H", "Ne"], "Ne"),
        ("Tc", ["Fe", "Mo", "Ca"], "Mo"),
        ("Al", ["Mg", "Si", "Sc"], "Si"),
        ("Og", ["Rn", "Fr"], "Rn"),
    ],
)
def test_the_nearest_element(symbol, known, expected):
    assert nearest_element(symbol, known) == expected
