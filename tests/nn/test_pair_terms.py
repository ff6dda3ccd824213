"""The contract of pair terms, run on every yaml in configs/model/pair_term, and each against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from mlip.core.errors import ConfigError
from mlip.nn.edges import Edges
from mlip.nn.pair_terms.base import PairTerm, atomic_numbers_of
from mlip.nn.pair_terms.born_mayer import BornMayer
from mlip.nn.pair_terms.zbl import ZBL
from tests.components import component_names, factory

NAMES = component_names("pair_term")
ELEMENTS = ("H", "O", "Si", "Cs")


def edges_of(vectors: torch.Tensor, senders: list[int], receivers: list[int]) -> Edges:
    nothing = vectors.new_zeros(len(vectors), 0)
    return Edges(vectors, vectors.norm(dim=1), nothing, nothing, torch.tensor(senders), torch.tensor(receivers))


def pair(term: PairTerm, first: str, second: str, r: float) -> torch.Tensor:
    """Return the energies of both atoms of a pair, whose gradient reaches the distance ``r``."""
    x = torch.as_tensor(r, dtype=torch.float64)
    vector = x * torch.tensor([0.48, 0.6, 0.64], dtype=torch.float64)
    species = torch.tensor([term.elements.index(first), term.elements.index(second)])
    return term(edges_of(torch.stack([vector, -vector]), [1, 0], [0, 1]), species)


def build(name: str, cutoff: float = 5.0) -> PairTerm:
    return factory("pair_term", name)(elements=ELEMENTS, cutoff=cutoff).double()


def end(first: str, second: str, scale: float = 0.8) -> float:
    return scale * (covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])


@pytest.mark.parametrize("name", NAMES)
def test_half_for_each_atom_in_float64(name: str) -> None:
    for term in (build(name), build(name).float()):
        found = pair(term, "O", "Si", 0.9)
        assert found.dtype == torch.float64
        assert float(found[0]) == pytest.approx(float(found[1]), rel=1e-14)
        assert float(found[0]) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_monotone_and_zero_from_the_end_on(name: str) -> None:
    term, last = build(name), end("O", "Si")
    energies = [float(pair(term, "O", "Si", r).sum()) for r in np.linspace(0.05, last, 60)]
    assert energies == sorted(energies, reverse=True)
    assert energies[-2] > 0
    assert energies[-1] == 0
    assert [float(pair(term, "O", "Si", r).sum()) for r in (last + 1e-9, 2.5, 4.99)] == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_never_reaches_beyond_the_graph(name: str) -> None:
    """Two caesium atoms touch at 3.9 Å; with edges up to 3 Å the repulsion must have ended there, smoothly."""
    term = build(name, cutoff=3.0)
    assert end("Cs", "Cs") > 3.0
    r = torch.tensor(3.0 - 1e-5, dtype=torch.float64, requires_grad=True)
    energy = pair(term, "Cs", "Cs", r).sum()
    (slope,) = torch.autograd.grad(energy, r)
    assert float(energy.detach()) < 1e-9
    assert abs(float(slope)) < 1e-6
    assert float(pair(term, "Cs", "Cs", 2.0).sum()) > 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("r", [0.3, 0.8, 1.1, 1.35])
def test_slope_by_finite_differences(name: str, r: float) -> None:
    term, h = build(name), 1e-4
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(pair(term, "O", "Si", x).sum(), x)
    plus, minus, far, near = (float(pair(term, "O", "Si", r + k * h).sum()) for k in (1, -1, 2, -2))
    assert float(slope) == pytest.approx((8 * (plus - minus) - (far - near)) / (12 * h), rel=1e-7)
    assert float(slope) < 0


@pytest.mark.parametrize("name", NAMES)
def test_lattice_of_many_pairs_adds_up(name: str) -> None:
    atoms = Atoms("SiOSi", positions=[[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0]])
    senders, receivers = [1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]
    positions = torch.from_numpy(atoms.positions)
    term = build(name)
    species = torch.tensor([ELEMENTS.index(symbol) for symbol in atoms.get_chemical_symbols()])
    found = term(edges_of(positions[senders] - positions[receivers], senders, receivers), species)
    each = [
        float(pair(term, atoms.symbols[i], atoms.symbols[j], atoms.get_distance(i, j)).sum())
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert float(found.sum()) == pytest.approx(sum(each), rel=1e-12)


def zbl(z1: int, z2: int, r: float) -> float:
    """The universal potential in eV, written down once more from the book."""
    a = 0.46850 / (z1**0.23 + z2**0.23)
    phi = sum(c * np.exp(-d * r / a) for c, d in ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4029), (0.02817, 0.2016)))
    return 14.399645 * z1 * z2 / r * phi


def switch(x: float) -> float:
    """DimeNet's, p = 6."""
    return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8


@pytest.mark.parametrize("r", [0.05, 0.3, 0.8, 1.05, 1.3])
def test_zbl_against_the_formula(r: float) -> None:
    found = pair(ZBL(ELEMENTS, 5.0), "O", "Si", r)
    assert float(found.sum()) == pytest.approx(zbl(8, 14, r) * switch(r / end("O", "Si")), rel=1e-7)


def test_zbl_at_short_range_is_coulomb() -> None:
    """At 10⁻⁴ Å the screening is one: k Z Z' / r, with the published amplitudes summing to 1.00007."""
    assert float(pair(ZBL(("C",), 5.0), "C", "C", 1e-4).sum()) == pytest.approx(14.399645 * 36 / 1e-4, rel=1e-3)


def straight_line(z: int) -> tuple[float, float]:
    """(ln A, b): numpy's fit of ln V of two equal atoms over Abrahamson's range."""
    r = np.linspace(1.5 * 0.529177210903, 3.5 * 0.529177210903, 101)
    slope, intercept = np.polyfit(r, np.log([zbl(z, z, x) for x in r]), 1)
    return intercept, -slope


@pytest.mark.parametrize("r", [0.0, 0.3, 0.8, 1.3])
def test_born_mayer_against_the_formula(r: float) -> None:
    """sqrt(A A') exp(-(b + b') r / 2) is the geometric mean of the two elements' own potentials."""
    (log_a, b), (log_c, d) = straight_line(8), straight_line(14)
    expected = np.sqrt(np.exp(log_a) * np.exp(log_c)) * np.exp(-(b + d) / 2 * r) * switch(r / end("O", "Si"))
    assert float(pair(BornMayer(ELEMENTS, 5.0), "O", "Si", r).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("symbol", "error"), [("H", 0.12), ("O", 0.13), ("Si", 0.135), ("U", 0.175)])
def test_born_mayer_follows_zbl_in_its_range(symbol: str, error: float) -> None:
    term = BornMayer((symbol,), 20.0, scale=20.0).double()
    index, z = torch.zeros(1, dtype=torch.long), atomic_numbers[symbol]
    for r in np.linspace(0.794, 1.852, 30):
        found = float(term.pair_energy(torch.tensor([r], dtype=torch.float64), index, index))
        assert found == pytest.approx(zbl(z, z, r), rel=error)


def test_learned_born_mayer_stays_positive_and_gets_gradients() -> None:
    fixed, learned = (BornMayer(ELEMENTS, 5.0, scale=1.5, learned=flag).double() for flag in (False, True))
    assert not list(fixed.parameters())
    assert {name for name, _ in learned.named_parameters()} == {"amplitude_changes", "rate_changes"}
    assert torch.equal(pair(fixed, "O", "Si", 1.5), pair(learned, "O", "Si", 1.5).detach())
    pair(learned, "O", "Si", 1.5).sum().backward()
    assert all(parameter.grad[1:3].all() for parameter in learned.parameters())
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.fill_(-3.0)
        energies = [float(pair(learned, "O", "Si", r).sum()) for r in (0.5, 1.0, 1.5)]
    assert energies == sorted(energies, reverse=True)
    assert energies[-1] > 0


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="scale > 0"):
        factory("pair_term", name)(elements=("H",), cutoff=5.0, scale=0.0)
    with pytest.raises(ConfigError, match="Not chemical symbols: Xx"):
        factory("pair_term", name)(elements=("H", "Xx"), cutoff=5.0)


def test_symbols_to_numbers() -> None:
    assert atomic_numbers_of(("H", "Og")) == [1, 118]
    with pytest.raises(ConfigError, match="X"):
        atomic_numbers_of(("X",))
