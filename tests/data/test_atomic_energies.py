"""Reference energies over structures that are seen once, and what compositions leave open, in words."""

import doctest

import numpy as np
import pytest
from ase.build import bulk, molecule

from mlip.core.errors import ConfigError
from mlip.data import atomic_energies as module
from mlip.data.atomic_energies import AtomicEnergyFit
from mlip.data.compositions import Compositions
from mlip.data.least_squares import StreamedLeastSquares
from mlip.data.sample import Sample

E0 = {"H": -13.6, "C": -1029.0, "O": -2042.0, "N": -1485.0}


def sample(atoms):
    return Sample(atoms, {"energy": np.array(sum(E0.get(symbol, -5.0) for symbol in atoms.symbols))})


def atomic_energies(data, **options):
    compositions = Compositions()
    for each in data:
        compositions.add(each.atoms.numbers, float(each.labels["energy"]))
    return compositions.atomic_energies(**options)


def fit_of(*structures):
    fit = AtomicEnergyFit()
    for atoms in structures:
        fit.add(atoms.numbers, float(sample(atoms).labels["energy"]))
    return fit


def test_examples_in_the_documentation():
    assert doctest.testmod(module).failed == 0


def test_streamed_is_the_minimum_norm_solution_of_numpy():
    names = ["CH4", "H2O", "CH3OH", "NH3", "C2H6", "HCN"]
    fit = fit_of(*map(molecule, names))
    counts = np.array(
        [[list(molecule(name).symbols).count(symbol) for symbol in "HCNO"] for name in names], dtype=float
    )
    energies = np.array([float(sample(molecule(name)).labels["energy"]) for name in names])
    expected = np.linalg.lstsq(counts, energies, rcond=None)[0]
    assert list(fit.energies()) == ["H", "C", "N", "O"]
    np.testing.assert_allclose(list(fit.energies().values()), expected, rtol=1e-9)
    assert fit.rank == 4
    assert fit.undetermined() == []


@pytest.mark.parametrize(
    ("structures", "rank", "phrases"),
    [
        ([molecule("CH3OH"), molecule("CH3OH")], 1, ["of H, C, O only 4 H + C + O together"]),
        ([bulk("NaCl", "rocksalt", a=5.6)], 1, ["of Na, Cl only Na + Cl together"]),
        ([bulk("NaCl", "rocksalt", a=5.6), bulk("Si")], 2, ["of Na, Cl only Na + Cl together"]),
        (
            [bulk("NaCl", "rocksalt", a=5.6), bulk("MgO", "rocksalt", a=4.2)],
            2,
            ["of O, Mg only O + Mg together", "of Na, Cl only Na + Cl together"],
        ),
        ([molecule("H2O"), molecule("CO2")], 2, ["of H, C, O only 4 H - C and 2 H + O together"]),
        ([molecule("H2O"), molecule("CO2"), molecule("CO")], 3, []),
    ],
)
def test_what_is_open_is_named_in_elements(structures, rank, phrases):
    fit = fit_of(*structures)
    assert fit.rank == rank
    found = fit.undetermined()
    if "4 H - C" in str(phrases):
        # Any two combinations that span the same are right; these are checked as equations.
        (phrase,) = found
        assert phrase.startswith("of H, C, O only ")
        known = {"H": 0.0, "C": 0.0, "O": 0.0} | fit.energies()
        assert 2 * known["H"] + known["O"] == pytest.approx(2 * E0["H"] + E0["O"])
        assert known["C"] + 2 * known["O"] == pytest.approx(E0["C"] + 2 * E0["O"])
    else:
        assert found == phrases


def test_state_can_be_saved_and_merged():
    first, second = fit_of(molecule("CH4")), fit_of(molecule("H2O"), molecule("CH3OH"))
    state = second.equations
    first.equations.merge(StreamedLeastSquares(118, state.triangle, state.num_rows))
    whole = fit_of(molecule("CH4"), molecule("H2O"), molecule("CH3OH"))
    assert first.energies() == pytest.approx(whole.energies())
    assert AtomicEnergyFit(first.equations).elements == ["H", "C", "O"]


def test_regularisation_shares_what_is_open():
    data = [sample(molecule("H2O"))]
    energies, note = atomic_energies(data)
    total = 2 * E0["H"] + E0["O"]
    # Minimum norm weighs by counts; regularisation draws both elements to the energy per atom.
    assert energies["H"] / energies["O"] == pytest.approx(2.0)
    assert "minimum norm" in note
    assert "only 2 H + O together" in note
    energies, note = atomic_energies(data, regularisation=1e-3)
    assert energies["H"] == pytest.approx(total / 3, rel=1e-6)
    assert energies["O"] == pytest.approx(total / 3, rel=1e-6)
    assert "regularisation 0.001" in note
    for wrong in (-1.0, float("nan"), float("inf"), None, "much"):
        with pytest.raises(ConfigError, match="a number that is not negative"):
            atomic_energies(data, regularisation=wrong)
    weak, _ = atomic_energies([sample(molecule(n)) for n in ("CH4", "H2O", "CH3OH", "CO")], regularisation=1e-9)
    for symbol, energy in weak.items():
        assert energy == pytest.approx(E0[symbol], rel=1e-6)
