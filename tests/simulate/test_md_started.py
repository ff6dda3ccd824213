"""What a run says at its start of time steps, and what it takes out of velocities that are kept."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import fs

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import NVE, SMOOTH, BussiNVT, Ensemble, LangevinNVT, NoseHooverNVT
from mlip.simulate.md import run_md
from mlip.simulate.thermo import column
from tests.simulate.analytic import Nothing, einstein_crystal
from tests.simulate.pair_model import PairModel
from tests.simulate.test_md_restart import OPTIONS, files


@pytest.mark.parametrize(("product", "ratio"), [(0.5, 0.9942), (1.0, 1.0062), (2.0, 1.4)])
def test_how_wrong_langevin_is_with_long_steps(product: float, ratio: float) -> None:
    """The variance of the velocities of free particles, from the two half steps of ASE's integrator by hand:
    v → (1 − c)² v + (2 − c) n, with c = x/2 − x²/8 and ⟨n²⟩ = (x/2 (1 − x/4)² + x³/24) kT/m.
    """
    x = product
    c, noise = x / 2 - x**2 / 8, x / 2 * (1 - x / 4) ** 2 + x**3 / 24
    assert (2 - c) ** 2 * noise / (1 - (1 - c) ** 4) == pytest.approx(ratio, abs=1e-4)
    atoms = Atoms("Ar400", 20.0 * np.stack(np.meshgrid(*[np.arange(8)] * 3), -1).reshape(-1, 3)[:400])
    ensemble = LangevinNVT(300, friction=500 * product)
    summary = run_md(atoms, Nothing(), ensemble, 150, timestep=2.0, log_interval=2)
    mean = column(summary.rows, "temperature")[10:].mean()
    # 1200 velocities at about 140 / (2 / x) independent times.
    assert mean == pytest.approx(300 * ratio, abs=4 * 300 * ratio * np.sqrt(2 / (1200 * 70 * min(x, 1))))
    assert any("A friction of" in note for note in summary.notes) == (product > SMOOTH)


def test_friction_is_noted_once(tmp_path: Path) -> None:
    atoms, springs = einstein_crystal()
    said: list[str] = []
    for steps in (12, 24):
        much = LangevinNVT(300, friction=400)
        summary = run_md(atoms, springs, much, steps, files=files(tmp_path, steps > 12), notify=said.append, **OPTIONS)
        assert sum("Take at most 250 1/ps" in note for note in summary.notes) == 1
    assert "A friction of 400 1/ps is much for steps of 2 fs: the product is 0.8" in said[0]


@pytest.mark.parametrize("frame", [False, True], ids=["checkpoint", "last frame"])
def test_a_time_step_that_is_changed_is_checked(frame: bool, tmp_path: Path) -> None:
    atoms, springs = einstein_crystal()
    run_md(atoms, springs, NVE(50), 12, files=files(tmp_path), **OPTIONS)
    if frame:
        (tmp_path / "c.npz").unlink()
    options = OPTIONS | {"timestep": 80.0}
    summary = run_md(atoms, springs, NVE(50), 14, files=files(tmp_path, True), **options)
    assert sum("A time step of 80 fs is long" in note for note in summary.notes) == 1
    summary = run_md(atoms, springs, NVE(50), 16, files=files(tmp_path, True), **options)
    assert sum("A time step of 80 fs is long" in note for note in summary.notes) == 1


def flying(internal: float) -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.18)
    atoms.set_velocities(np.tile([0.005 / fs, 0, 0], (4, 1)) + internal * np.random.default_rng(0).normal(size=(4, 3)))
    return atoms


@pytest.mark.parametrize("ensemble", [NVE(), BussiNVT(), LangevinNVT(), NoseHooverNVT()], ids=lambda one: one.name)
def test_kept_velocities_lose_what_is_no_heat(ensemble: Ensemble) -> None:
    atoms, kept = flying(0.004), flying(0.004)
    momenta = kept.get_momenta()
    kept.set_momenta(momenta - kept.get_masses()[:, None] * momenta.sum(axis=0) / kept.get_masses().sum())
    summary = run_md(atoms, MLIPCalculator(PairModel()), ensemble, 1, keep_velocities=True, log_interval=1)
    assert summary.rows[0].kinetic == pytest.approx(kept.get_kinetic_energy(), rel=1e-10)
    assert atoms.get_kinetic_energy() > 1.5 * summary.rows[0].kinetic > 0


def test_bussi_has_nothing_to_scale(tmp_path: Path) -> None:
    options = {"keep_velocities": True, "files": files(tmp_path)}
    with pytest.raises(SimulationError, match=r"scales velocities, and here are none: draw some or use Langevin\.$"):
        run_md(flying(0.0), MLIPCalculator(PairModel()), BussiNVT(), 5, **options)
    assert not list(tmp_path.iterdir())
    assert run_md(flying(0.0), MLIPCalculator(PairModel()), LangevinNVT(), 5, **options).rows[0].temperature < 1e-6


@pytest.mark.parametrize("frame", [False, True], ids=["checkpoint", "last frame"])
def test_what_langevin_gave_the_whole_is_taken_out_for_others(frame: bool, tmp_path: Path) -> None:
    atoms, calculator = bulk("Cu", cubic=True, a=3.18), MLIPCalculator(PairModel())
    before = run_md(atoms, calculator, LangevinNVT(300, 50), 40, files=files(tmp_path), **OPTIONS).atoms
    assert np.abs(before.get_momenta().sum(axis=0)).max() > 0.1
    if frame:
        (tmp_path / "c.npz").unlink()
    after = run_md(atoms, calculator, NVE(), 60, files=files(tmp_path, True), **OPTIONS)
    np.testing.assert_allclose(after.atoms.get_momenta().sum(axis=0), 0, atol=1e-10)
