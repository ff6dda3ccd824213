"""Velocities: exact temperature, no net motion, and the right count of what can take up heat."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from mlip.core.errors import SimulationError
from mlip.core.units import KB
from mlip.simulate.velocities import degrees_of_freedom, draw_velocities, temperature_of


def wire() -> Atoms:
    return Atoms("CuCCu", [[0, 0, 0], [1.6, 0.9, 0.2], [0.2, 1.9, 1.1]], cell=[3.1, 9, 8], pbc=(True, False, False))


def fixed() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("Cu", cubic=True), 3 * 4 - 3),
        (molecule("CH4"), 3 * 5 - 6),
        (molecule("CO2"), 3 * 3 - 5),
        (molecule("H2"), 1),
        (wire(), 3 * 3 - 4),
        (fixed(), 3 * 3),
    ],
    ids=["crystal", "CH4", "CO2", "H2", "wire", "fixed atom"],
)
def test_velocities_have_the_temperature_and_no_net_motion(atoms: Atoms, expected: int) -> None:
    atoms.rotate(37, (1, 2, 3), rotate_cell=True)
    atoms.positions += [100, -50, 3]
    draw_velocities(atoms, 300, np.random.default_rng(0))
    assert degrees_of_freedom(atoms, momentum_conserved=True) == expected
    assert 2 * atoms.get_kinetic_energy() / (expected * KB) == pytest.approx(300, rel=1e-12)
    assert temperature_of(atoms, expected) == pytest.approx(300, rel=1e-12)
    if not atoms.constraints:
        np.testing.assert_allclose(atoms.get_momenta().sum(0), 0, atol=1e-12)
    if not atoms.pbc.any():
        np.testing.assert_allclose(atoms.get_angular_momentum(), 0, atol=1e-11)


def test_components_are_normal_and_scaled_by_mass() -> None:
    atoms = bulk("Cu", cubic=True) * (6, 6, 6)
    atoms.symbols[::2] = "H"
    draw_velocities(atoms, 300, np.random.default_rng(1))
    per_atom = atoms.get_momenta() ** 2 / atoms.get_masses()[:, None] / (KB * 300)
    assert per_atom[::2].mean() == pytest.approx(1, abs=0.1)
    assert per_atom[1::2].mean() == pytest.approx(1, abs=0.1)
    # The fourth moment of a normal distribution is three times the square of the second.
    assert (per_atom**2).mean() == pytest.approx(3, abs=0.4)


def test_same_seed_same_velocities() -> None:
    first, second, other = molecule("CH4"), molecule("CH4"), molecule("CH4")
    for atoms, seed in ((first, 5), (second, 5), (other, 6)):
        draw_velocities(atoms, 300, np.random.default_rng(seed))
    np.testing.assert_array_equal(first.get_momenta(), second.get_momenta())
    assert np.abs(first.get_momenta() - other.get_momenta()).max() > 0.1


@pytest.mark.parametrize(
    "atoms", [Atoms("H"), bulk("Cu"), Atoms("H2", [[0, 0, 0], [0, 0, 1]], constraint=FixAtoms([0, 1]))]
)
def test_nothing_to_heat(atoms: Atoms) -> None:
    with pytest.raises(SimulationError, match="no internal motion"):
        draw_velocities(atoms, 300, np.random.default_rng(0))
