"""The model that the tests of this folder rest on, against formulas written a second time."""

import numpy as np
import pytest
from ase import Atoms

from mlip.calculators.ase import MLIPCalculator
from tests.simulate.pair_model import PairModel, fcc_energy


def test_fcc_energy_is_the_lattice_sum() -> None:
    model = PairModel()
    for a in (3.1, 3.3, 3.6):
        atoms = Atoms("Cu4", cell=[a, a, a], pbc=True)
        atoms.set_scaled_positions([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
        atoms.calc = MLIPCalculator(model)
        assert atoms.get_potential_energy() / 4 == pytest.approx(fcc_energy(model, a), abs=1e-12)


def test_energy_is_twice_differentiable_at_the_cutoff() -> None:
    model, h = PairModel(), 1e-3
    e = model.pair_energy(model.cutoff + h * np.arange(-2, 3), "Cu", "Cu")
    assert abs(np.gradient(e, h)).max() < 1e-5
    assert abs(np.diff(e, 2) / h**2).max() < 1e-2
