"""Mean diagonal blocks of Hamiltonians, against a formula written out for two molecules."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlip.core.errors import DataError
from mlip.data.orbital_rotation import orbital_rotation
from mlip.data.orbital_statistics import NAMES, OrbitalStatistics
from mlip.data.orbitals import num_orbitals
from mlip.data.sample import Sample
from mlip.testing.symmetry import random_orthogonal

SHELLS = {"H": [(0, 1), (1, 1), (2, 3)], "C": [(0, 1), (1, 1), (2, 1), (3, 3), (6, 3), (9, 5)]}
"""First row and number of rows of every shell in def2-SVP."""


def sample(atoms: Atoms, seed: int, initial: bool = True, **info: object) -> Sample:
    """Return a molecule with random symmetric matrices."""
    size = num_orbitals(atoms.numbers, "def2-svp")
    both = np.random.default_rng(seed).normal(size=(2, size, size))
    matrices = both + both.transpose(0, 2, 1)
    labels = {"hamiltonian": matrices[0]} | ({"initial_hamiltonian": matrices[1]} if initial else {})
    stated = {"source": f"made up:{seed}", "basis": "def2-svp", "functional": "b3lyp5"} | info
    return Sample(atoms, labels, stated)


def collected(*samples: Sample) -> dict[str, object]:
    statistics = OrbitalStatistics()
    for one in samples:
        statistics.add(one)
    return statistics.result()


def by_hand(samples: list[Sample], symbol: str, l: int, difference: bool) -> np.ndarray:
    """Return the mean over atoms and m of the entries between the shells of a degree."""
    shells = [(first, dim) for first, dim in SHELLS["H" if symbol == "H" else "C"] if dim == 2 * l + 1]
    found = []
    for one in samples:
        matrix = one.labels["hamiltonian"] - (one.labels["initial_hamiltonian"] if difference else 0.0)
        start = 0
        for other in one.atoms.symbols:
            if other == symbol:
                found.append(
                    [
                        [np.mean([matrix[start + a + m, start + b + m] for m in range(2 * l + 1)]) for b, _ in shells]
                        for a, _ in shells
                    ]
                )
            start += 5 if other == "H" else 14
    mean = np.mean(found, axis=0)
    return 0.5 * (mean + mean.T)


def test_means_against_the_formula() -> None:
    samples = [sample(molecule("H2O"), 0), sample(molecule("CH3OH"), 1), sample(molecule("H2O"), 2)]
    found = collected(*samples)
    assert set(found) == set(NAMES)
    assert (found["basis"], found["functional"]) == ("def2-svp", "b3lyp5")
    assert found["shells"] == {"H": [0, 0, 1], "C": [0, 0, 0, 1, 1, 2], "O": [0, 0, 0, 1, 1, 2]}
    for name, difference in (("onsite", False), ("onsite_difference", True)):
        for symbol, degrees in (("H", 2), ("C", 3), ("O", 3)):
            assert len(found[name][symbol]) == degrees
            for l in range(degrees):
                expected = by_hand(samples, symbol, l, difference)
                assert np.abs(np.array(found[name][symbol][l]) - expected).max() < 1e-14


def test_turned_molecules_have_the_same_means() -> None:
    one = sample(molecule("CH3OH"), 1, initial=False)
    turn = orbital_rotation(one.atoms.numbers, "def2-svp", random_orthogonal(3, proper=False))
    turned = Sample(one.atoms, {"hamiltonian": turn @ one.labels["hamiltonian"] @ turn.T}, one.info)
    first, second = collected(one)["onsite"], collected(turned)["onsite"]
    for symbol in first:
        for a, b in zip(first[symbol], second[symbol], strict=True):
            assert np.abs(np.array(a) - np.array(b)).max() < 1e-13


def test_what_is_not_there() -> None:
    """No Hamiltonians, no initial ones, no functional."""
    plain = Sample(molecule("H2O"), {"energy": np.array(1.0)}, {"source": "x"})
    assert collected(plain) == dict.fromkeys(NAMES)
    found = collected(plain, sample(molecule("H2O"), 0), sample(molecule("H2O"), 1, initial=False))
    assert found["onsite_difference"] is None


def test_hamiltonians_in_no_basis_are_passed_over() -> None:
    """A potential may be trained on them; a network over orbitals then says what it needs."""
    matrices = {"hamiltonian": np.eye(7), "initial_hamiltonian": np.eye(7)}
    bare = [Sample(molecule("H2O"), matrices, {"source": "x"} | stated) for stated in ({}, {"basis": None})]
    assert collected(*bare) == dict.fromkeys(NAMES)
    with pytest.raises(DataError, match="made up:0: the basis of its Hamiltonian is def2-svp, that of others None"):
        collected(*bare, sample(molecule("H2O"), 0))
    wrong = Sample(molecule("H2O"), matrices, {"source": "y:1", "basis": "def2-svp"})
    with pytest.raises(DataError, match=r"y:1: its Hamiltonian has shape \(7, 7\), but in def2-svp it has 24 orbitals"):
        collected(wrong)


def test_a_functional_that_nobody_states_is_none() -> None:
    found = collected(sample(molecule("H2O"), 0, functional=None))
    assert found["functional"] is None
    assert found["onsite_difference"] is not None


@pytest.mark.parametrize("changed", [{"basis": "def2-tzvp"}, {"functional": "pbe"}, {"functional": None}])
def test_one_level_of_theory(changed: dict[str, object]) -> None:
    ((name, value),) = changed.items()
    with pytest.raises(DataError, match=f"made up:1: the {name} of its Hamiltonian is {value}, that of others"):
        collected(sample(molecule("H2O"), 0), sample(molecule("H2O"), 1, **changed))
