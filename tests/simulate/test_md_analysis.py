"""Analysis of trajectories against systems whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip.core.errors import SimulationError
from mlip.core.units import FS, KB
from mlip.simulate.analysis.dynamics import diffusion, mean_square_displacement, vibrations
from mlip.simulate.analysis.motion import Motion, motion_of, read_motion
from mlip.simulate.analysis.pairs import follow_bonds, radial_distribution
from mlip.simulate.analysis.report import analyse, thermodynamics, write_analysis
from mlip.simulate.analysis.temperature import temperature_test
from mlip.simulate.ensembles import NVE
from mlip.simulate.md import MDFiles, run_md
from mlip.simulate.thermo import ThermoRow
from tests.simulate.analytic import Springs


def motion(positions: np.ndarray, numbers: list[int] | None = None, cell: np.ndarray | None = None, dt: float = 1.0):
    frames, atoms, _ = positions.shape
    cells = np.zeros((3, 3)) if cell is None else np.asarray(cell, float)
    return Motion(
        numbers=np.array(numbers or [18] * atoms),
        masses=np.ones(atoms),
        pbc=np.array([cell is not None] * 3),
        time=dt * np.arange(frames),
        positions=positions,
        velocities=None,
        cells=np.broadcast_to(cells, (frames, 3, 3)),
        dimensions=np.full(atoms, 3),
        drifts=np.zeros((3, 3)),
    )


def test_an_ideal_gas_has_no_structure() -> None:
    """In a skewed cell and for few atoms of two species: 1 at all distances, within the noise of counting."""
    cell = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.5, 8.5]])
    rng = np.random.default_rng(1)
    positions = rng.random((400, 12, 3)) @ cell
    found = radial_distribution(motion(positions, [18] * 8 + [29] * 4, cell), width=0.25, frames=400)
    assert found.frames == 400
    volume = np.linalg.det(cell)
    for (first, second), values in found.values.items():
        ways = {(18, 18): 28, (29, 29): 6, (18, 29): 32}[first, second]
        shells = 4 * np.pi * found.r**2 * 0.25
        noise = 1 / np.sqrt(ways * 400 * shells / volume)
        assert np.abs((values - 1) / noise)[4:].max() < 4
        weights = 1 / noise[4:] ** 2
        assert abs(np.average(values[4:] - 1, weights=weights)) < 4 / np.sqrt(weights.sum())


def test_the_shells_of_a_crystal() -> None:
    crystal = bulk("Cu", a=3.6, cubic=True) * 3
    found = radial_distribution(motion(np.stack([crystal.positions] * 2), [29] * 108, crystal.cell.array), width=0.05)
    density = 4 / 3.6**3
    counts = np.cumsum(found.values[29, 29] * 4 / 3 * np.pi * ((found.r + 0.025) ** 3 - (found.r - 0.025) ** 3))
    for r, neighbours in ((2.8, 12), (3.8, 18), (4.6, 42)):
        # The reference is N - 1 atoms in the volume.
        assert counts[found.r < r][-1] * density * 107 / 108 == pytest.approx(neighbours, rel=1e-9)


def test_mean_square_displacement_is_its_definition() -> None:
    positions = np.cumsum(np.random.default_rng(0).normal(size=(50, 3, 3)), axis=0) + 1000
    direct = [((positions[k:] - positions[: 50 - k]) ** 2).sum(-1).mean() for k in range(50)]
    np.testing.assert_allclose(mean_square_displacement(positions), direct, atol=1e-8)


def test_random_walk_through_a_changing_cell() -> None:
    """D = σ² / (2 Δt) along each axis, although positions are wrapped; 4 standard errors of the estimate."""
    rng = np.random.default_rng(3)
    steps = rng.normal(0, 0.2, (4000, 40, 3))
    positions = np.cumsum(steps, axis=0)
    cell = np.diag([6.0, 7.0, 8.0])
    wrapped = positions - np.floor(positions @ np.linalg.inv(cell)) @ cell
    found = diffusion(motion(wrapped, cell=cell, dt=5.0), fit=(0.05, 0.2))
    expected = 0.2**2 / (2 * 5.0) * 0.1
    assert found.error < 0.06 * expected
    assert found.constant == pytest.approx(expected, abs=4 * found.error)
    assert found.exponent == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(np.diff(motion(wrapped, cell=cell).unwrapped, axis=0), steps[1:], atol=1e-9)


@pytest.mark.slow
def test_oscillators_ring_at_their_frequency() -> None:
    """ω = sqrt(k / m); amplitudes and phases are random, frequencies of two species apart."""
    atoms = Atoms("H2", [[0, 0, 0], [5, 0, 0]])
    constants = np.array([20.0, 20.0])
    atoms.set_masses([1.0, 4.0])
    summary_frames = []
    springs = Springs(atoms.positions.copy(), constants)
    atoms.set_momenta([[0.1, 0.2, 0.1], [0, 0, 0]])
    atoms.calc = springs

    from ase.md.verlet import VelocityVerlet

    dynamics = VelocityVerlet(atoms, 0.25 * FS)
    for k in range(2000):
        dynamics.run(1)
        if k % 4 == 0:
            frame = atoms.copy()
            frame.info["time_fs"] = k * 0.25
            summary_frames.append(frame)
    found = vibrations(motion_of(summary_frames))
    per_fs = np.sqrt(20.0) * FS / (2 * np.pi)
    assert found.peak == pytest.approx(per_fs * 1e15 / 2.99792458e10, rel=2e-3)
    assert np.trapezoid(found.spectrum, found.wave_number) == pytest.approx(1)
    lag = round(1 / per_fs)
    assert found.autocorrelation[0] == 1
    assert found.autocorrelation[lag] > 0.9
    assert found.autocorrelation[round(0.5 / per_fs)] < -0.9


def test_a_bond_that_breaks() -> None:
    frames = []
    for k in range(10):
        # Across the border of the cell.
        frame = Atoms("CHH", [[0.2, 0, 0], [9.1 - (0.11 * k if k > 3 else 0), 0, 0], [0.2, 1.09, 0]], cell=[10] * 3)
        frame.pbc, frame.info["time_fs"] = True, 2.0 * k
        frames.append(frame)
    bonds = follow_bonds(motion_of(frames))
    assert bonds.pairs.tolist() == [[0, 1], [0, 2]]
    np.testing.assert_allclose(bonds.start, [1.1, 1.09])
    assert bonds.longest[0] == pytest.approx(2.09)
    assert bonds.std[1] == pytest.approx(0)
    assert bonds.stable_time == 10.0  # At 8 fs the difference is 0.44 Å, which is still allowed.
    apart = [Atoms("Ar2", [[0, 0, 0], [0, 0, 9]], info={"time_fs": t}) for t in (0, 1)]
    assert follow_bonds(motion_of(apart)) is None


def test_averages_of_a_log() -> None:
    rng = np.random.default_rng(0)
    kinetic = rng.gamma(10.5, KB * 300, 4000)
    rows = [
        ThermoRow(k, 10.0 * k, 2 * e / (21 * KB), 0.0, e, e, 1e-6 * k, np.nan, np.nan) for k, e in enumerate(kinetic)
    ]
    found = thermodynamics(rows, 8)
    assert found.freedom == 21
    assert found.temperature == pytest.approx(300, abs=4 * found.temperature_error)
    assert found.temperature_std == pytest.approx(found.temperature_std_expected, rel=0.05)
    assert found.drift == pytest.approx(1e-7 * 1e6 / 8)


@pytest.mark.parametrize(("width", "passes"), [(1.0, True), (1.4, False), (0.7, False)])
def test_the_temperature_of_a_canonical_ensemble(width: float, passes: bool) -> None:
    """Correlated rows, too: f squares of autoregressive normal variables, whose correlation time is known."""
    rng, memory, freedom = np.random.default_rng(4), 0.8, 21
    noise = rng.normal(size=(20_000, freedom)) * np.sqrt(1 - memory**2)
    values = rng.normal(size=freedom)
    kinetic = np.empty(len(noise))
    for k, kick in enumerate(noise):
        values = memory * values + kick
        kinetic[k] = values @ values
    temperature = 300 * kinetic / freedom
    temperature = temperature.mean() + width * (temperature - temperature.mean())
    found = temperature_test(temperature, freedom)
    assert found.correlation == pytest.approx((1 + memory**2) / (1 - memory**2), rel=0.15)
    assert found.variance_ratio == pytest.approx(width**2, rel=0.12)
    assert (min(found.variance_p, found.shape_p) > 0.01) == passes
    spread = 300 * np.sqrt(2 / freedom * found.correlation / 20_000)
    assert found.error == pytest.approx(width * spread, rel=0.1)
    assert temperature_test(temperature[:60], freedom) is None
    assert temperature_test(np.full(100, 300.0), freedom) is None


def test_a_run_is_analysed_and_written(tmp_path: Path) -> None:
    places = 4.0 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)
    atoms = Atoms("Ar8", places, cell=[8] * 3, pbc=True)
    files = MDFiles(tmp_path / "trajectory.traj", tmp_path / "thermo.csv")
    options = {"timestep": 20.0, "frame_interval": 2, "log_interval": 2}
    run_md(atoms, Springs(places, np.full(8, 1.0)), NVE(200), 401, files=files, **options)
    found = analyse(tmp_path, skip=80)
    assert len(found.motion.time) == 199  # The odd frame at the end is left out.
    paths = write_analysis(tmp_path / "analysis", found)
    names = {path.name for path in paths}
    assert {"temperature.csv", "temperature_distribution.png"} <= names
    assert {"rdf.csv", "msd.csv", "vacf.csv", "spectrum.csv", "analysis.json", "msd.png"} <= names
    assert all(path.stat().st_size > 50 for path in paths)
    period = 2 * np.pi / np.sqrt(1.0 / atoms.get_masses()[0]) / FS
    assert found.vibrations.peak == pytest.approx(1e15 / period / 2.99792458e10, rel=0.02)
    assert any("does not diffuse" in note for note in found.notes)
    assert found.as_dict()["frames"] == 199


def test_trajectories_that_cannot_be_followed(tmp_path: Path) -> None:
    def frames(*times: float) -> list[Atoms]:
        return [Atoms("Ar", info={"time_fs": t}) for t in times]

    with pytest.raises(SimulationError, match="1 frame"):
        motion_of(frames(0))
    with pytest.raises(SimulationError, match="do not grow"):
        motion_of(frames(0, 1, 2, 1))
    assert motion_of(frames(8, 10, 20, 30, 40, 44, 50, 60)).time.tolist() == [10, 20, 30, 40, 50, 60]
    with pytest.raises(SimulationError, match="not equally far"):
        motion_of(frames(0, 1, 2, 3, 9, 10))
    for name, content in (("empty.xyz", b""), ("noise.xyz", bytes(range(256))), ("noise.dat", bytes(range(256)))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SimulationError, match=name):
            read_motion(tmp_path / name, 1.0)
    with pytest.raises(SimulationError, match=r"different atoms, .* frame 1 is H, the first is Ar"):
        motion_of([*frames(0), Atoms("H")])
    with pytest.raises(SimulationError, match="does not state the times"):
        motion_of([Atoms("Ar"), Atoms("Ar")])
    with pytest.raises(SimulationError, match="states the times of its frames: leave the interval"):
        motion_of(frames(0, 10, 20, 25), interval=10.0)
    assert motion_of([Atoms("Ar"), Atoms("Ar")], interval=3.0).interval == 3.0
    with pytest.raises(SimulationError, match="no trajectory"):
        read_motion(tmp_path / "a.traj")
    (tmp_path / "a.traj").write_bytes(bytes(100))
    with pytest.raises(SimulationError, match="cannot be read"):
        read_motion(tmp_path / "a.traj")
    still = motion_of(frames(*range(4)))
    with pytest.raises(SimulationError, match="8 frames"):
        diffusion(still)
    with pytest.raises(SimulationError, match="no velocities"):
        vibrations(still)
    with pytest.raises(SimulationError, match="periodic"):
        radial_distribution(still)
    with pytest.raises(SimulationError, match="half the height"):
        radial_distribution(motion(np.zeros((2, 1, 3)), cell=np.eye(3) * 5), r_max=3)
