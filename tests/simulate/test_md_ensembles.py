"""Distributions of temperature, energy and volume where they are known in closed form; time steps; guards."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLengths
from ase.io import read
from ase.vibrations import Vibrations
from scipy import stats

from mlip.core.errors import SimulationError
from mlip.core.units import FS, GPA, KB
from mlip.simulate.ensembles import NVE, BussiNVT, Ensemble, LangevinNVT, NoseHooverNVT
from mlip.simulate.ensembles_npt import AnisotropicNPT, FullCellNPT, IsotropicNPT
from mlip.simulate.guards import Limits
from mlip.simulate.md import MDFiles, run_md
from mlip.simulate.md_timestep import highest_frequency, timestep_problem
from mlip.simulate.thermo import column
from mlip.simulate.velocities import degrees_of_freedom
from tests.simulate.analytic import Nothing, Springs, einstein_crystal


def compare(samples: np.ndarray, expected: float, tolerance: float = 4.0, blocks: int = 20) -> None:
    """Compare a mean with what it should be, in standard errors from blocks."""
    means = samples[: len(samples) // blocks * blocks].reshape(blocks, -1).mean(1)
    error = means.std(ddof=1) / np.sqrt(blocks)
    assert abs(samples.mean() - expected) < tolerance * error, f"{samples.mean()} ± {error} is not {expected}"
    assert error < 0.2 * abs(expected)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [False, True])
def test_canonical_ensemble_of_springs(fixed: bool) -> None:
    """T has mean T0 and variance 2 T0² / f; every spring has kT/2 an axis. Also with two of eight atoms fixed.

    Langevin only: thermostats that scale all velocities alike never mix springs that do not feel each other.
    """
    atoms, springs = einstein_crystal()
    if fixed:
        atoms.set_constraint(FixAtoms([0, 3]))
    summary = run_md(atoms, springs, LangevinNVT(300, friction=20), 20_000, timestep=8.0, log_interval=4)
    temperature, potential = (column(summary.rows, name)[500:] for name in ("temperature", "potential"))
    freedom = 18 if fixed else 24
    compare(temperature, 300)
    compare((temperature - 300) ** 2, 2 * 300**2 / freedom)
    compare(potential, freedom * KB * 300 / 2)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [False, True])
def test_bussi_samples_the_kinetic_energy_of_a_gas(fixed: bool) -> None:
    """K is distributed as a gamma variable with f/2: f = 21 of eight atoms whose momentum is conserved, 18 of six."""
    atoms = gas()
    if fixed:
        atoms.set_constraint(FixAtoms([0, 3]))
    options = {"timestep": 5.0, "log_interval": 5, "limits": Blind()}
    summary = run_md(atoms, Nothing(), BussiNVT(300, time_constant=20), 20_000, **options)
    temperature, freedom = column(summary.rows, "temperature")[100:], 18 if fixed else 21
    compare(temperature, 300)
    compare((temperature - 300) ** 2, 2 * 300**2 / freedom)
    scale = 2 * 300 / freedom
    assert stats.kstest(temperature[::20], stats.gamma(freedom / 2, scale=scale).cdf).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", [NoseHooverNVT(300, 60), BussiNVT(300, 60)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("fixed", [False, True])
def test_the_canonical_ensemble_is_kept(ensemble: Ensemble, fixed: bool) -> None:
    """Of crystals drawn from it exactly, kinetic and potential energies stay gamma variables with f/2, f = 12 and 9.

    Nothing is asked about mixing, which a chain in an almost harmonic crystal of a few atoms does badly. What fixed
    atoms would take up, or one degree of freedom more or less in the thermostat, is seen.
    """
    rng = np.random.default_rng(0)
    atoms, net = Atoms("Ar5", 5.0 * rng.random((5, 3)), cell=[20] * 3, pbc=True), Net(5)
    atoms.calc, places = net, atoms.positions.copy()
    net.places = places
    if fixed:
        atoms.set_constraint(FixAtoms([0, 3]))
    free = [1, 2, 4] if fixed else [0, 1, 2, 3, 4]
    values, modes = np.linalg.eigh(net.stiffness[np.ix_(free, free)])
    values, modes = (values, modes) if fixed else (values[1:], modes[:, 1:])
    freedom = degrees_of_freedom(atoms, ensemble.momentum_conserved)
    assert freedom == 3 * len(values)
    mass, found = atoms.get_masses()[0], []
    for _ in range(300):
        atoms.positions[:] = places
        atoms.positions[free] += modes @ (rng.normal(size=(len(values), 3)) * np.sqrt(KB * 300 / values)[:, None])
        momenta = np.zeros((5, 3))
        momenta[free] = modes @ rng.normal(size=(len(values), 3)) * np.sqrt(mass * KB * 300)
        atoms.set_momenta(momenta)
        dynamics = ensemble.integrator(atoms, 4.0, freedom, rng)
        if isinstance(ensemble, NoseHooverNVT):
            chain = dynamics._thermostat
            chain._p_eta = rng.normal(size=3) * np.sqrt(chain._Q * KB * 300)
        for _ in range(40):
            dynamics.step()
        found.append((atoms.get_kinetic_energy(), atoms.get_potential_energy()))
    for energies in np.transpose(found):
        assert stats.kstest(energies, stats.gamma(freedom / 2, scale=KB * 300).cdf).pvalue > 1e-3
        assert energies.mean() == pytest.approx(freedom / 2 * KB * 300, abs=4 * KB * 300 * np.sqrt(freedom / 2 / 300))


class Net(Calculator):
    """Harmonic springs of no length between all displacements: E = ½ Σ_{i<j} k_ij |u_i − u_j|²."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 - ASE's interface

    def __init__(self, number: int) -> None:
        super().__init__()
        constants = np.random.default_rng(1).uniform(0.3, 1.5, (number, number))
        constants = np.triu(constants, 1) + np.triu(constants, 1).T
        self.stiffness = np.diag(constants.sum(0)) - constants
        self.places = np.zeros((number, 3))

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)) -> None:
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.places
        forces = -self.stiffness @ away
        energy = -0.5 * float((away * forces).sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


def test_a_chain_leaves_fixed_atoms_cold() -> None:
    """ASE's own lets their forces into momenta that the chain takes for heat, and the rest freezes."""
    atoms, springs = einstein_crystal()
    springs.places = springs.places + np.array([0.3, 0.0, 0.0])
    atoms.set_constraint(FixAtoms([0, 3]))
    summary = run_md(atoms, springs, NoseHooverNVT(300, 80), 400, timestep=4.0, log_interval=5)
    assert np.ptp(column(summary.rows, "conserved")) < 0.02
    assert column(summary.rows, "temperature")[20:].mean() > 200
    np.testing.assert_array_equal(summary.atoms.positions[[0, 3]], atoms.positions[[0, 3]])
    atoms.set_constraint(FixBondLengths([(0, 1)]))
    with pytest.raises(SimulationError, match=r"not FixBondLengths\. Use Langevin or Bussi"):
        run_md(atoms, springs, NoseHooverNVT(), 5)


class Blind(Limits):
    """Atoms of an ideal gas may meet."""

    def contact_problem(self, atoms: Atoms) -> None:
        return None


def gas(number: int = 8) -> Atoms:
    rng = np.random.default_rng(0)
    return Atoms(f"Ar{number}", rng.random((number, 3)) * 20, cell=[20, 20, 20], pbc=True)


NPT = [IsotropicNPT, AnisotropicNPT, FullCellNPT]


@pytest.mark.slow
@pytest.mark.parametrize("kind", NPT)
def test_volume_of_an_ideal_gas(kind: type) -> None:
    """p(V) ∝ V^(N−1) exp(−pV/kT) with the momentum conserved: mean N kT/p, variance N (kT/p)²."""
    number, temperature = 8, 300.0
    pressure = number * KB * temperature / 8000.0 / GPA
    ensemble = kind(temperature, pressure, time_constant=50, barostat_time=100)
    summary = run_md(gas(number), Nothing(), ensemble, 30_000, timestep=5.0, log_interval=5, limits=Blind())
    volume, heat = column(summary.rows, "volume")[500:], column(summary.rows, "temperature")[500:]
    compare(heat, temperature)
    compare((heat - temperature) ** 2, 2 * temperature**2 / (3 * number - 3))
    compare(volume, 8000.0)
    compare((volume - 8000.0) ** 2, 8000.0**2 / number)
    spaced = volume[::200]
    assert stats.kstest(spaced, stats.gamma(number, scale=8000 / number).cdf).pvalue > 1e-3
    assert np.ptp(column(summary.rows, "conserved")) < 0.05 * number * KB * temperature


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "freedom"), [(IsotropicNPT, 1), (AnisotropicNPT, 3), (FullCellNPT, 6)])
def test_the_cell_has_the_temperature_of_the_atoms(kind: type, freedom: int) -> None:
    """kT/2 for each way in which it can be strained; ASE's full cell had half as much again."""
    made, energies = [], []

    class Watched(kind):
        def integrator(self, *args):
            made.append(super().integrator(*args))
            return made[0]

    def look(progress) -> None:
        dynamics = made[0]
        momentum = dynamics._p_eps if kind is IsotropicNPT else dynamics._p_g
        energies.append(np.sum(np.square(momentum)) / (2 * dynamics._barostat.W))

    pressure = 8 * KB * 300 / 8000 / GPA
    run_md(
        gas(),
        Nothing(),
        Watched(300.0, pressure, 50, 100),
        30_000,
        timestep=5.0,
        log_interval=100,
        callback=look,
        limits=Blind(),
    )
    compare(np.array(energies[3000:]), freedom * KB * 300 / 2)


@pytest.mark.parametrize("kind", NPT)
def test_what_of_the_cell_moves(kind: type) -> None:
    atoms = gas()
    atoms.cell[1, 0] = 0.0 if kind is AnisotropicNPT else 3.0
    before = atoms.cell.cellpar()
    summary = run_md(atoms, Stressed(), kind(100.0, 0.0, 50, 100), 20, timestep=5.0, limits=Blind())
    after = summary.atoms.cell.cellpar()
    lengths, angles = after[:3] / before[:3], after[3:] - before[3:]
    assert np.ptp(column(summary.rows, "conserved")) < 1e-3
    if kind is IsotropicNPT:
        assert np.ptp(lengths) < 1e-12 < abs(lengths[0] - 1)
    else:
        assert np.ptp(lengths) > 1e-4
    assert (np.abs(angles).max() > 1e-3) == (kind is FullCellNPT)


class Stressed(Nothing):
    """Something anisotropic with an energy that the stress belongs to: E = V₀ · (linear in the strain of the cell)."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=("cell",)) -> None:
        super().calculate(atoms, properties, system_changes)
        tension = np.array([[1.0, 0.3, 0.0], [0.3, -2.0, 0.5], [0.0, 0.5, 0.5]]) * 1e-5
        cell = self.atoms.cell.array
        # E = ½ Tr(hᵀ h A); its virial is hᵀ ∂E/∂h = hᵀ h A, made symmetric by rotational average below.
        metric = cell.T @ cell
        energy = 0.5 * np.trace(metric @ tension)
        virial = 0.5 * (metric @ tension + tension @ metric)
        stress = virial / self.atoms.get_volume()
        voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        self.results |= {"energy": energy, "free_energy": energy, "stress": voigt}


def test_anisotropic_needs_right_angles() -> None:
    atoms = gas()
    atoms.cell[1, 0] = 3.0
    with pytest.raises(SimulationError, match="right angles"):
        run_md(atoms, Nothing(), AnisotropicNPT(), 5)


@pytest.mark.slow
def test_a_ramp_is_followed() -> None:
    atoms, springs = einstein_crystal()
    ensemble = BussiNVT(100, time_constant=20)
    summary = run_md(atoms, springs, ensemble, 1500, timestep=8.0, log_interval=5, final_temperature=700.0)
    step, kinetic = column(summary.rows, "step"), column(summary.rows, "temperature")
    slope, start = np.polyfit(step, kinetic, 1)
    assert slope * 1500 == pytest.approx(600, rel=0.25)
    assert start == pytest.approx(100, abs=60)
    assert summary.drift is None
    # Heated a hundredfold, a chain keeps its periods; with its first masses it would run away.
    ensemble = NoseHooverNVT(10, time_constant=80)
    end = run_md(atoms, springs, ensemble, 800, timestep=8.0, final_temperature=1000.0, log_interval=5).rows
    assert column(end[120:], "temperature").mean() == pytest.approx(875, rel=0.25)
    ensemble = FullCellNPT(100, 8 * KB * 250 / 8000 / GPA, time_constant=50, barostat_time=100)
    end = run_md(gas(), Nothing(), ensemble, 600, timestep=8.0, final_temperature=400.0, limits=Blind()).rows
    assert column(end[40:], "temperature").mean() == pytest.approx(350, rel=0.25)


def test_a_ramp_that_cannot_be() -> None:
    atoms, springs = einstein_crystal()
    with pytest.raises(SimulationError, match="no thermostat"):
        run_md(atoms, springs, NVE(), 10, final_temperature=500.0)
    with pytest.raises(SimulationError, match="final temperature must be a positive"):
        run_md(atoms, springs, BussiNVT(), 10, final_temperature=-1.0)


class TestTimestep:
    def test_frequency_of_springs(self) -> None:
        atoms, springs = einstein_crystal()
        exact = np.sqrt(springs.constants.max() / atoms.get_masses()[0]) * FS
        atoms.calc = springs
        assert highest_frequency(atoms) == pytest.approx(exact, rel=1e-3)
        stiffest = int(np.argmax(springs.constants))
        atoms.set_constraint(FixAtoms([stiffest]))
        rest = np.delete(springs.constants, stiffest).max()
        assert highest_frequency(atoms) == pytest.approx(np.sqrt(rest / atoms.get_masses()[0]) * FS, rel=1e-3)
        np.testing.assert_array_equal(atoms.positions, springs.places)

    def test_frequency_of_a_molecule_is_that_of_all_second_derivatives(self, tmp_path: Path) -> None:
        atoms = molecule("CH3OH")
        atoms.calc = EMT()
        vibrations = Vibrations(atoms, name=str(tmp_path / "v"), delta=0.005)
        vibrations.run()
        exact = vibrations.get_frequencies().real.max()
        found = highest_frequency(atoms) / (2 * np.pi) * 1e15 / 2.99792458e10
        assert found == pytest.approx(exact, rel=0.03)

    def test_long_steps_are_noted(self) -> None:
        atoms = Atoms("H", [[0.0, 0, 0]])
        atoms.calc = Springs(np.zeros((1, 3)), np.array([30.0]))
        period = 2 * np.pi / (np.sqrt(30.0 / atoms.get_masses()[0]) * FS)
        assert timestep_problem(atoms, period / 8.1) is None
        assert "is long: the fastest vibration" in timestep_problem(atoms, period / 7.9)
        assert "No integration is stable" not in timestep_problem(atoms, period / 3.2)
        assert "No integration is stable" in timestep_problem(atoms, period / 3.1)
        free = Atoms("H", [[0.0, 0, 0]], calculator=Nothing())
        assert timestep_problem(free, 100.0) is None


def test_the_last_good_frame_is_kept(tmp_path: Path) -> None:
    """Frames are rarer than checks: the state of the last check is written when the run stops."""
    atoms = Atoms("Ar2", [[0, 0, 0], [6, 0, 0.0]])
    atoms.set_momenta([[1.0, 0, 0], [-1.0, 0, 0]])
    files = MDFiles(tmp_path / "t.traj", tmp_path / "thermo.csv")
    with pytest.raises(SimulationError, match=r"MD stopped at step .* apart. 2 frames are kept"):
        run_md(
            atoms, Nothing(), NVE(), 10_000, timestep=4.0, files=files, log_interval=10, frame_interval=5000,
            keep_velocities=True, limits=Limits(closest=0.6),
        )  # fmt: skip
    frames = read(tmp_path / "t.traj", ":")
    assert frames[1].info["step"] > 100
    assert 0.6 * 2.12 < frames[1].get_distance(0, 1) < 0.6 * 2.12 + 0.3
