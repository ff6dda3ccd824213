"""Molecular dynamics: conservation, ensembles, restarts, guards."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import read
from ase.md.verlet import VelocityVerlet

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError, StructureError
from mlip.core.units import FS, GPA, KB
from mlip.simulate.ensembles import NVE, BussiNVT, Ensemble, LangevinNVT, NoseHooverNVT
from mlip.simulate.ensembles_npt import IsotropicNPT
from mlip.simulate.guards import Limits
from mlip.simulate.md import MDFiles, run_md
from mlip.simulate.thermo import column, energy_drift, read_thermo
from tests.simulate.pair_model import PairModel

MODEL = PairModel()


def calculator() -> MLIPCalculator:
    return MLIPCalculator(MODEL)


def crystal() -> Atoms:
    return bulk("Cu", "fcc", a=3.185, cubic=True) * (2, 1, 1)


def cluster() -> Atoms:
    """A tetrahedron at its minimum: no stretched bond, six internal degrees of freedom."""
    return Atoms("Cu4", 0.854 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]))


@pytest.mark.slow
def test_energy_error_falls_with_the_square_of_the_time_step() -> None:
    errors = []
    for timestep in (4.0, 2.0, 1.0):
        steps = int(400 / timestep)
        summary = run_md(crystal(), calculator(), NVE(300), steps, timestep=timestep, log_interval=1)
        errors.append(np.std(column(summary.rows, "total")))
        assert abs(summary.drift) < 1.0
        assert summary.drift_of == "total energy"
    for coarse, fine in pairwise(errors):
        assert 3.3 < coarse / fine < 4.7


def test_nve_is_ases_verlet() -> None:
    rng = np.random.default_rng([7, 0])
    summary = run_md(crystal(), calculator(), NVE(500), 30, timestep=2.0, seed=7)
    atoms = crystal()
    from mlip.simulate.velocities import draw_velocities

    draw_velocities(atoms, 500, rng)
    atoms.calc = MLIPCalculator(MODEL, skin=0)
    VelocityVerlet(atoms, 2.0 * FS).run(30)
    np.testing.assert_allclose(summary.atoms.positions, atoms.positions, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    "ensemble",
    [LangevinNVT(400, friction=30), BussiNVT(400, time_constant=40), NoseHooverNVT(400, time_constant=60)],
    ids=["langevin", "bussi", "nose-hoover"],
)
def test_thermostat_holds_the_temperature(ensemble: Ensemble) -> None:
    summary = run_md(crystal(), calculator(), ensemble, 700, timestep=4.0, log_interval=2)
    temperature = column(summary.rows, "temperature")[50:]
    blocks = temperature[: len(temperature) // 10 * 10].reshape(10, -1).mean(1)
    error = blocks.std(ddof=1) / np.sqrt(10)
    assert error < 25
    assert abs(temperature.mean() - 400) < 4 * error
    # The canonical ensemble's fluctuation is sqrt(2 / freedom) T = 123 K for 21 degrees of freedom.
    assert 80 < temperature.std() < 170
    if isinstance(ensemble, LangevinNVT):
        assert summary.drift is None
        assert "not defined" in summary.drift_of
    else:
        assert np.ptp(column(summary.rows, "conserved")) < 0.1 * np.ptp(column(summary.rows, "total"))


@pytest.mark.slow
def test_a_small_molecule_is_not_overheated() -> None:
    """Of 12 degrees of freedom 6 are conserved and stay cold; the mean kinetic energy is 6 kT/2, not 12."""
    summary = run_md(cluster(), calculator(), BussiNVT(150, time_constant=40), 800, timestep=4.0, log_interval=2)
    kinetic = column(summary.rows, "kinetic")[20:]
    assert kinetic.mean() == pytest.approx(6 * KB * 150 / 2, rel=0.25)
    np.testing.assert_allclose(summary.atoms.get_angular_momentum(), 0, atol=1e-9)
    np.testing.assert_allclose(summary.atoms.get_momenta().sum(0), 0, atol=1e-10)


@pytest.mark.slow
def test_barostat_holds_the_pressure() -> None:
    ensemble = IsotropicNPT(200, pressure=2.0, time_constant=60, barostat_time=150)
    summary = run_md(crystal(), calculator(), ensemble, 700, timestep=4.0, log_interval=2)
    pressure, volume = column(summary.rows, "pressure")[100:], column(summary.rows, "volume")[100:]
    blocks = pressure[: len(pressure) // 8 * 8].reshape(8, -1).mean(1)
    error = blocks.std(ddof=1) / np.sqrt(8)
    assert error < 0.7
    assert abs(pressure.mean() - 2.0) < 4 * error
    assert volume.std() > 0.1
    assert np.ptp(column(summary.rows, "conserved")) < 0.1 * np.ptp(column(summary.rows, "total"))
    stress = summary.atoms.get_stress(include_ideal_gas=True)
    assert summary.rows[-1].pressure == pytest.approx(-stress[:3].mean() / GPA, rel=1e-12)
    # The shape of the cell stays.
    ratios = summary.atoms.cell.array / crystal().cell.array.max()
    assert ratios[0, 0] == pytest.approx(2 * ratios[1, 1])


def files(folder: Path, restart: bool = False) -> MDFiles:
    return MDFiles(folder / "t.traj", folder / "thermo.csv", restart)


def test_restarted_nve_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    options = {"timestep": 2.0, "log_interval": 5, "frame_interval": 10, "seed": 3}
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = run_md(crystal(), calculator(), NVE(400), 90, files=files(tmp_path / "whole"), **options)
    run_md(crystal(), calculator(), NVE(400), 33, files=files(tmp_path / "parts"), **options)
    last = run_md(crystal(), calculator(), NVE(400), 90, files=files(tmp_path / "parts", True), **options)
    np.testing.assert_allclose(last.atoms.positions, whole.atoms.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(last.atoms.get_momenta(), whole.atoms.get_momenta(), rtol=0, atol=1e-10)
    assert (last.first_step, last.last_step) == (33, 90)
    steps = [frame.info["step"] for frame in read(tmp_path / "parts/t.traj", ":")]
    assert steps == [0, 10, 20, 30, 33, 40, 50, 60, 70, 80, 90]
    rows = read_thermo(tmp_path / "parts/thermo.csv")
    assert [row.step for row in rows] == [*range(0, 31, 5), 33, *range(35, 91, 5)]
    assert rows[-1].time == pytest.approx(180)
    assert np.ptp([row.total for row in rows]) < 1e-2


def test_log_lines_after_the_last_frame_are_dropped_on_a_restart(tmp_path: Path) -> None:
    options = {"timestep": 2.0, "log_interval": 1, "frame_interval": 10}

    def interrupt(progress) -> None:
        if progress.step == 27:
            raise KeyboardInterrupt

    with pytest.raises(SimulationError, match=r"by the user at step 27. 3 frames are kept .* --restart"):
        run_md(crystal(), calculator(), NVE(), 50, files=files(tmp_path), callback=interrupt, **options)
    assert read_thermo(tmp_path / "thermo.csv")[-1].step == 27
    run_md(crystal(), calculator(), NVE(), 50, files=files(tmp_path, True), **options)
    assert [row.step for row in read_thermo(tmp_path / "thermo.csv")] == list(range(51))


def test_restart_with_a_thermostat_says_what_changed_and_draws_new_noise(tmp_path: Path) -> None:
    run_md(crystal(), calculator(), NoseHooverNVT(), 5, files=files(tmp_path))
    again = run_md(crystal(), calculator(), LangevinNVT(), 10, timestep=1.0, files=files(tmp_path, True))
    assert any("ensemble changed" in note for note in again.notes)
    assert any("time step in fs changed from 0.5 to 1.0" in note for note in again.notes)
    again = run_md(crystal(), calculator(), NoseHooverNVT(), 15, timestep=1.0, files=files(tmp_path, True))
    assert any("started afresh" in note for note in again.notes)
    assert again.rows[-1].time == pytest.approx(5 * 0.5 + 10 * 1.0)
    frames = {frame.info["step"]: frame for frame in read(tmp_path / "t.traj", ":")}
    kicks = []
    for step in (5, 10):
        frame = frames[5].copy()
        frame.info["step"] = step
        frame.write(tmp_path / f"{step}.traj")
        only = MDFiles(tmp_path / f"{step}.traj", restart=True)
        kicks.append(run_md(crystal(), calculator(), LangevinNVT(), step + 1, files=only).atoms)
    assert np.abs(kicks[0].get_momenta() - kicks[1].get_momenta()).max() > 1e-3


def test_same_seed_same_run_and_the_input_is_kept() -> None:
    start = crystal()
    first = run_md(start, calculator(), LangevinNVT(), 20, seed=1)
    second = run_md(start, calculator(), LangevinNVT(), 20, seed=1)
    third = run_md(start, calculator(), LangevinNVT(), 20, seed=2)
    np.testing.assert_array_equal(first.atoms.positions, second.atoms.positions)
    assert np.abs(first.atoms.positions - third.atoms.positions).max() > 1e-3
    assert start == crystal()
    assert start.calc is None


def test_velocities_can_be_kept() -> None:
    atoms = crystal()
    with pytest.raises(SimulationError, match="no velocities"):
        run_md(atoms, calculator(), NVE(), 5, keep_velocities=True)
    atoms.set_momenta(np.random.default_rng(0).normal(0, 1, (8, 3)))
    summary = run_md(atoms, calculator(), NVE(), 1, timestep=1e-6, keep_velocities=True)
    expected = atoms.get_momenta() - atoms.get_momenta().sum(0) / 8
    np.testing.assert_allclose(summary.atoms.get_momenta(), expected, atol=1e-6)


def test_fixed_atoms_stay() -> None:
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0, 1]))
    for ensemble in (NVE(), LangevinNVT(), BussiNVT(), NoseHooverNVT()):
        summary = run_md(atoms, calculator(), ensemble, 10, timestep=2.0)
        np.testing.assert_array_equal(summary.atoms.positions[:2], atoms.positions[:2])
        assert np.abs(summary.atoms.positions[2:] - atoms.positions[2:]).min() > 0


class TestGuards:
    def test_explosion_stops_and_keeps_the_frames(self, tmp_path: Path) -> None:
        atoms = crystal()
        atoms.positions[1] = atoms.positions[0] + [0, 0, 1.4]
        hard = MLIPCalculator(PairModel(depth=5.0, width=3.0))
        with pytest.raises(SimulationError, match=r"MD stopped at step \d+: .* (frame is|frames are) kept in"):
            run_md(atoms, hard, NVE(), 500, timestep=5.0, files=files(tmp_path), frame_interval=1)
        frames = read(tmp_path / "t.traj", ":")
        assert frames
        assert all(np.isfinite(frame.positions).all() for frame in frames)

    def test_temperature_limit(self) -> None:
        with pytest.raises(SimulationError, match="above the limit of 100 K"):
            run_md(crystal(), calculator(), NVE(300), 10, limits=Limits(max_temperature=100))

    def test_touching_atoms(self) -> None:
        atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 1.2]])
        with pytest.raises(SimulationError, match=r"atoms 0 \(Cu\) and 1 \(Cu\) are 1.20 Å apart"):
            run_md(atoms, calculator(), NVE(), 10)

    def test_a_calculator_that_returns_nan(self) -> None:
        class Broken(MLIPCalculator):
            def _evaluate(self, wanted):
                results = super()._evaluate(wanted)
                if self.atoms.positions[0, 0] != 0:
                    results["forces"] = results["forces"] * np.nan
                return results

        with pytest.raises(SimulationError, match="not finite"):
            run_md(crystal(), Broken(MODEL), NVE(), 10, timestep=2.0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("ensemble", "options", "match"),
        [
            (NVE(-5), {}, "temperature must be a positive"),
            (LangevinNVT(friction=0), {}, "friction must be"),
            (BussiNVT(time_constant=-1), {}, "thermostat time must be"),
            (NVE(), {"timestep": 0}, "timestep must be"),
            (NVE(), {"steps": 0}, "steps must be"),
            (IsotropicNPT(pressure=float("nan")), {}, "pressure"),
        ],
    )
    def test_numbers(self, ensemble: Ensemble, options: dict, match: str) -> None:
        with pytest.raises(SimulationError, match=match):
            run_md(crystal(), calculator(), ensemble, **{"steps": 10, **options})

    def test_npt(self) -> None:
        with pytest.raises(SimulationError, match="periodic along all axes"):
            run_md(molecule("CH4"), calculator(), IsotropicNPT(), 10)
        atoms = crystal()
        atoms.set_constraint(FixAtoms([0]))
        with pytest.raises(SimulationError, match="constraints"):
            run_md(atoms, calculator(), IsotropicNPT(), 10)

    def test_a_refused_structure_leaves_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(StructureError, match="contains O"):
            run_md(molecule("H2O"), calculator(), NVE(), 10, files=files(tmp_path))
        assert not list(tmp_path.iterdir())

    def test_restarts(self, tmp_path: Path) -> None:
        with pytest.raises(SimulationError, match="no trajectory"):
            run_md(crystal(), calculator(), NVE(), 10, files=files(tmp_path, True))
        run_md(crystal(), calculator(), NVE(), 10, files=files(tmp_path))
        with pytest.raises(SimulationError, match="already at step 10"):
            run_md(crystal(), calculator(), NVE(), 10, files=files(tmp_path, True))
        with pytest.raises(SimulationError, match="holds Cu8, the structure is CH4"):
            run_md(molecule("CH4"), calculator(), NVE(), 20, files=files(tmp_path, True))
        crystal().write(tmp_path / "t.traj")
        with pytest.raises(SimulationError, match="no step number"):
            run_md(crystal(), calculator(), NVE(), 20, files=files(tmp_path, True))
        (tmp_path / "t.traj").write_bytes(b"- of UlmASE-Trajectory" + bytes(10))
        with pytest.raises(SimulationError, match="damaged"):
            run_md(crystal(), calculator(), NVE(), 20, files=files(tmp_path, True))


def test_energy_drift_is_the_slope() -> None:
    time = np.arange(0, 1000, 10.0)
    noise = np.random.default_rng(0).normal(0, 1e-9, len(time))
    assert energy_drift(time, -5 + 2e-6 * time + noise, 4) == pytest.approx(0.5, rel=1e-3)
    assert energy_drift(time[:2], time[:2], 4) is None
    assert energy_drift(time, time * np.nan, 4) is None


def test_thermo_file_survives_a_cut_line(tmp_path: Path) -> None:
    summary = run_md(crystal(), calculator(), NVE(), 30, files=files(tmp_path))
    rows = read_thermo(tmp_path / "thermo.csv")
    assert [row.step for row in rows] == [0, 10, 20, 30]
    for read_back, row in zip(rows, summary.rows, strict=True):
        assert read_back.total == pytest.approx(row.total, abs=1e-10)
        assert np.isnan(read_back.pressure)
    text = (tmp_path / "thermo.csv").read_text()
    (tmp_path / "thermo.csv").write_text(text[:-20])
    assert [row.step for row in read_thermo(tmp_path / "thermo.csv")] == [0, 10, 20]
    (tmp_path / "thermo.csv").write_text("time;energy\n1;2\n")
    with pytest.raises(SimulationError, match="no thermodynamic log"):
        read_thermo(tmp_path / "thermo.csv")
    (tmp_path / "thermo.csv").write_text(text.replace(",5.0,", ",five,"))
    with pytest.raises(SimulationError, match="damaged line"):
        read_thermo(tmp_path / "thermo.csv")


def test_summary_is_json(tmp_path: Path) -> None:
    from mlip.simulate.output import write_summary

    summary = run_md(crystal(), calculator(), LangevinNVT(), 3)
    values = replace(summary, notes=("a",)).as_dict()
    write_summary(tmp_path / "summary.json", values)
    assert values["energy_drift_meV_per_atom_per_ps"] is None
    assert values["num_atoms"] == 8
