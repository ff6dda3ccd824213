"""The contract of heads, run on every yaml in configs/model/head, and the energy head's own promises."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError
from mlip.core.fields import FIELDS
from mlip.nn.heads.energy import EnergyHead, atomic_numbers_of
from tests.components import ENERGIES, component_names, factory

IRREPS = Irreps("5x0e+2x1o")


@pytest.mark.parametrize("name", component_names("head"))
def test_provides_known_fields_from_features(name: str) -> None:
    head = factory("head", name)(irreps_in=IRREPS, elements=("H", "C", "O"))
    assert head.provides
    assert set(head.provides) <= set(FIELDS)
    result = head(torch.randn(4, IRREPS.dim), torch.tensor([0, 2, 2, 1]))
    assert result.shape[0] == 4


@pytest.mark.parametrize("name", component_names("head"))
def test_scalars_do_not_see_the_direction(name: str) -> None:
    """Fields of rank 0 are invariant: nothing but scalars may reach them."""
    head = factory("head", name)(irreps_in=IRREPS, elements=("H", "C", "O"))
    if any(FIELDS[field].rank for field in head.provides):
        pytest.skip("provides more than scalars")
    x = torch.randn(4, IRREPS.dim)
    turned = x.clone()
    turned[:, 5:] = torch.randn(4, 6)
    species = torch.tensor([0, 2, 2, 1])
    assert torch.equal(head(x, species), head(turned, species))


def test_formula_with_large_reference_energies_in_float32() -> None:
    """A float32 head keeps the digits of -2041.8 eV: float32 alone would lose 1e-4 eV."""
    head = EnergyHead(IRREPS, ("H", "C", "O"), ENERGIES, scale=0.5)
    x, species = torch.randn(4, IRREPS.dim), torch.tensor([0, 2, 2, 1])
    with torch.no_grad():
        head.scales.copy_(torch.tensor([1.0, 2.0, 3.0]))
        head.shifts.copy_(torch.tensor([0.1, 0.2, 0.3]))
    energies = head(x, species)
    assert energies.dtype == torch.float64
    readout = x[:, :5] @ head.readout / 5**0.5
    learned = 0.5 * (head.scales[species] * readout + head.shifts[species])
    reference = torch.tensor([ENERGIES[s] for s in ("H", "O", "O", "C")], dtype=torch.float64)
    assert (energies - reference - learned.double()).abs().max() < 1e-6
    assert float(head.to(torch.float32).atomic_energies[2]) == ENERGIES["O"]


@pytest.mark.parametrize(
    ("irreps", "elements", "energies", "scale", "words"),
    [
        ("4x0e", ("H", "S"), {"H": -13.6}, 1.0, "lacks S"),
        ("4x0e", ("H",), {"H": -13.6}, 0.0, "scale > 0"),
        ("4x0e", ("H",), {"H": -13.6}, float("nan"), "scale > 0"),
        ("4x1o", ("H",), {"H": -13.6}, 1.0, "scalars"),
        ("4x1o+2x0e", ("H",), {"H": -13.6}, 1.0, "first block"),
    ],
)
def test_senseless_heads_are_refused(
    irreps: str, elements: tuple[str, ...], energies: dict[str, float], scale: float, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        EnergyHead(Irreps(irreps), elements, energies, scale)


def test_symbols_to_numbers() -> None:
    assert atomic_numbers_of(("H", "Og")) == [1, 118]
    with pytest.raises(ConfigError, match="Xx"):
        atomic_numbers_of(("H", "Xx"))
    with pytest.raises(ConfigError, match="X"):
        atomic_numbers_of(("X",))
