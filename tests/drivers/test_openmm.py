"""OpenMM: energies and forces are ASE's in kJ/mol and nm, in boxes and without; NVE and a barostat work."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, StructureError
from mlip.drivers.openmm import attach
from tests.drivers.test_session import Charged
from tests.simulate.pair_model import PairModel

mm = pytest.importorskip("openmm", reason="the extra 'openmm' is not installed")

EV = 96.48533289  # kJ/mol: Faraday's constant of CODATA 2014, which ASE has, in kC/mol


def alloy() -> Atoms:
    """A box in OpenMM's form: lower triangular, skewed by less than half a length."""
    atoms = bulk("Cu", "fcc", a=3.185, cubic=True) * 2
    atoms.numbers[::3] = 6
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1.02, 0], [-0.05, 0.08, 0.98]], scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def context(atoms: Atoms, *more: Any, model: Any = None, step: float = 0.001, **options: Any) -> Any:
    system = mm.System()
    if atoms.pbc.any():
        system.setDefaultPeriodicBoxVectors(*[mm.Vec3(*(row / 10)) for row in atoms.cell.array])
    for mass in atoms.get_masses():
        system.addParticle(mass)
    for force in more:
        system.addForce(force)
    attach(system, model or PairModel(), list(atoms.symbols), periodic=bool(atoms.pbc.all()), **options)
    made = mm.Context(system, mm.VerletIntegrator(step), mm.Platform.getPlatformByName("Reference"))
    made.setPositions(atoms.positions / 10)
    return made


@pytest.mark.parametrize("periodic", [True, False])
def test_numbers_are_ases(periodic: bool) -> None:
    atoms = alloy()
    atoms.pbc = periodic
    # Atoms in other images are the same atoms.
    moved = atoms.copy()
    if periodic:
        moved.positions[::5] += atoms.cell.array[1] - atoms.cell.array[2]
    state = context(moved).getState(energy=True, forces=True)
    atoms.calc = MLIPCalculator(PairModel())
    energy = state.getPotentialEnergy().value_in_unit(mm.unit.kilojoule_per_mole)
    assert energy == pytest.approx(atoms.get_potential_energy() * EV, rel=1e-9)
    forces = state.getForces(asNumpy=True).value_in_unit(mm.unit.kilojoule_per_mole / mm.unit.nanometer)
    assert np.asarray(forces) == pytest.approx(atoms.get_forces() * EV * 10, rel=1e-8, abs=1e-7)


def test_forces_are_the_slope_of_the_energy() -> None:
    atoms, step = alloy(), 1e-6
    made = context(atoms)
    forces = made.getState(forces=True).getForces(asNumpy=True)._value
    for atom, axis in ((0, 0), (3, 1), (17, 2)):
        energies = []
        for sign in (1, -1):
            positions = atoms.positions / 10
            positions[atom, axis] += sign * step
            made.setPositions(positions)
            energies.append(made.getState(energy=True).getPotentialEnergy()._value)
        assert forces[atom][axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), rel=1e-5)


def test_nve_conserves() -> None:
    """The error of Verlet falls with the square of the time step."""
    errors = []
    for step in (0.004, 0.002):
        made = context(alloy(), step=step)
        made.setVelocitiesToTemperature(500, 3)
        seen = []
        for _ in range(int(0.2 / step)):
            made.getIntegrator().step(1)
            state = made.getState(energy=True)
            seen.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
        errors.append(np.std(seen))
    assert 3.0 < errors[0] / errors[1] < 5.0
    assert errors[1] < 0.05 * state.getKineticEnergy()._value


def test_a_barostat_moves_the_box() -> None:
    atoms = bulk("Cu", "fcc", a=3.4, cubic=True) * 2
    made = context(atoms, mm.MonteCarloBarostat(1.0, 100, 1))
    made.setVelocitiesToTemperature(50, 1)
    made.getIntegrator().step(150)
    assert made.getState().getPeriodicBoxVolume()._value * 1000 < 0.97 * atoms.get_volume()


def test_elements_come_from_a_topology() -> None:
    from openmm import app

    topology = app.Topology()
    residue = topology.addResidue("M", topology.addChain())
    system = mm.System()
    for symbol in ("C", "H", "H"):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        system.addParticle(app.Element.getBySymbol(symbol).mass)
    force = attach(system, PairModel(), topology)
    assert not force.usesPeriodicBoundaryConditions()
    topology.setUnitCellDimensions((2, 2, 2))
    assert attach(system, PairModel(), topology).usesPeriodicBoundaryConditions()
    assert system.getNumForces() == 2
    topology.addAtom("M", None, residue)
    with pytest.raises(ConfigError, match="no element"):
        attach(system, PairModel(), topology)


def test_what_does_not_fit_is_refused() -> None:
    system = mm.System()
    for mass in (12.0, 1.0):
        system.addParticle(mass)
    for elements, options, message in (
        (["C"], {}, "2 particles"),
        (["H", "C"], {}, "Particle 1 is H"),
        ("CH", {}, "name each particle"),
        (["C", "O"], {}, "does not know"),
        (["C", "H"], {"periodic": None}, "periodic=True"),
    ):
        with pytest.raises((ConfigError, StructureError), match=message):
            attach(system, PairModel(), elements, **{"periodic": False, **options})
    with pytest.raises(ConfigError, match="give charge="):
        attach(system, Charged(), ["C", "H"], periodic=False)
    system.addParticle(0.0)
    system.setVirtualSite(2, mm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    with pytest.raises(ConfigError, match="virtual site"):
        attach(system, PairModel(), ["C", "H", "H"], periodic=False)
    assert system.getNumForces() == 0


def test_a_failure_of_the_model_is_its_error() -> None:
    made = context(alloy())
    positions = alloy().positions / 10
    positions[0] = 1e9
    made.setPositions(positions)
    with pytest.raises((StructureError, mm.OpenMMException), match="Positions must be"):
        made.getState(energy=True)
