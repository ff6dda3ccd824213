"""What of a run is analysed: atoms that can move, without the motion of the whole, since its settings changed."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLengths, FixConstraint, FixedLine, FixedPlane

from mlip.core.errors import SimulationError
from mlip.simulate.analysis.dynamics import diffusion, vibrations
from mlip.simulate.analysis.motion import motion_of
from mlip.simulate.analysis.report import analyse
from mlip.simulate.ensembles import NVE, BussiNVT, Ensemble
from mlip.simulate.md import MDFiles, run_md
from mlip.simulate.md_summary import MDSummary
from tests.simulate.analytic import einstein_crystal
from tests.simulate.test_md_restart import Killed, killed_at


def walk(*constraints: FixConstraint, sizes: tuple[float, ...], shift: np.ndarray | float = 0.0) -> list[Atoms]:
    """Random walks of 40 atoms with steps of given sizes along the axes, 5 fs apart; and all of them together."""
    rng, frames = np.random.default_rng(0), []
    positions = 12 * rng.random((40, 3))
    for k in range(800):
        positions = positions + rng.normal(size=(40, 3)) * np.array(sizes)[:, None]
        atoms = Atoms("Cu40", positions + k * np.asarray(shift), cell=[12] * 3, pbc=True, info={"time_fs": 5.0 * k})
        atoms.set_velocities(rng.normal(size=(40, 3)) + 10 * np.asarray(shift))
        atoms.set_constraint(list(constraints))
        frames.append(atoms)
    return frames


def test_fixed_atoms_do_not_diffuse_less() -> None:
    frames = walk(FixAtoms(range(20, 40)), sizes=(0.14,) * 20 + (0.0,) * 20)
    found = diffusion(motion_of(frames), 29)
    assert found.constant == pytest.approx(0.14**2 / (2 * 5.0) * 0.1, rel=0.1)
    still = motion_of(walk(FixAtoms(range(40)), sizes=(0.0,) * 40))
    with pytest.raises(SimulationError, match="atoms that can move"):
        diffusion(still, 29)


@pytest.mark.parametrize(("held", "dimension"), [(FixedPlane, 2), (FixedLine, 1)])
def test_atoms_in_a_plane_diffuse_in_two_dimensions(held: type, dimension: int) -> None:
    """Walks with the same steps along the directions that are left have the same constant."""
    steps = np.array({2: [0.14, 0.14, 0.0], 1: [0.0, 0.0, 0.14]}[dimension])
    rng, frames, positions = np.random.default_rng(0), [], np.zeros((40, 3))
    for k in range(800):
        positions = positions + rng.normal(size=(40, 3)) * steps
        atoms = Atoms("Cu40", positions, cell=[12] * 3, pbc=True, info={"time_fs": 5.0 * k})
        atoms.set_constraint(held(range(40), (0, 0, 1)))
        frames.append(atoms)
    assert diffusion(motion_of(frames), 29).constant == pytest.approx(0.14**2 / (2 * 5.0) * 0.1, rel=0.15)


def test_the_whole_drifts_where_nothing_holds_it() -> None:
    """Springs and rigid bonds between atoms hold nothing to a place; planes let it drift along."""
    quiet = diffusion(motion_of(walk(sizes=(0.05,) * 40)), 29)
    for constraint, shift in ((FixBondLengths([[0, 1]]), [0.1, 0.2, 0.3]), (FixedPlane([3], (0, 0, 1)), [0.2, 0.1, 0])):
        moved = motion_of(walk(constraint, sizes=(0.05,) * 40, shift=np.array(shift)))
        assert diffusion(moved, 29).constant == pytest.approx(quiet.constant, rel=0.1)
        spectrum = vibrations(moved)
        low = spectrum.wave_number < 20
        assert np.trapezoid(spectrum.spectrum[low], spectrum.wave_number[low]) < 0.02
    held = motion_of(walk(FixAtoms([3]), sizes=(0.05,) * 40, shift=np.array([0.1, 0.2, 0.3])))
    assert diffusion(held, 29).constant > 10 * quiet.constant


class TestChangedSettings:
    """Only what was computed with the settings that the run ended with is averaged."""

    @staticmethod
    def run(folder: Path, ensemble: Ensemble, steps: int, *kills: int) -> MDSummary:
        atoms, springs = einstein_crystal()
        files = MDFiles(folder / "trajectory.traj", folder / "thermo.csv", steps > 200, folder / "checkpoint.npz")
        options = {"timestep": 2.0, "log_interval": 5, "frame_interval": 5, "checkpoint_interval": 150, "seed": 1}
        return run_md(atoms, springs, ensemble, steps, files=files, callback=killed_at(*kills), **options)

    @pytest.mark.parametrize("after", [NVE(), BussiNVT(600)], ids=["ensemble", "temperature"])
    def test_it_begins_there(self, after: Ensemble, tmp_path: Path) -> None:
        self.run(tmp_path, BussiNVT(300, 20), 200)
        summary = self.run(tmp_path, after, 400)
        found = analyse(tmp_path)
        numbers = found.as_dict()
        assert numbers["temperature_K"] == pytest.approx(summary.temperature_mean, rel=1e-12)
        assert numbers["energy_drift_meV_per_atom_per_ps"] == pytest.approx(summary.drift, rel=1e-9)
        assert found.motion.time[0] == 410
        assert "The settings of the run changed at step 200: its first 400 fs are left out" in found.notes[0]
        assert analyse(tmp_path / "trajectory.traj").motion.time[0] == 410
        # Frames know the ensemble by themselves, and what the user leaves out may be more than that.
        assert analyse(tmp_path, skip=300).notes == found.notes
        longer = analyse(tmp_path, skip=600)
        assert longer.motion.time[0] == 600 == longer.thermodynamics.time[0]
        assert not any("settings" in note for note in longer.notes)
        (tmp_path / "checkpoint.npz").unlink()
        assert analyse(tmp_path).motion.time[0] == (410 if isinstance(after, NVE) else 0)

    def test_a_restart_that_is_killed_has_changed_them(self, tmp_path: Path) -> None:
        self.run(tmp_path, BussiNVT(300), 200)
        with pytest.raises(Killed):
            self.run(tmp_path, BussiNVT(900), 400, 250)
        assert analyse(tmp_path).motion.time[0] == 410

    def test_there_may_be_too_little_or_no_knowing(self, tmp_path: Path) -> None:
        self.run(tmp_path, BussiNVT(300), 200)
        self.run(tmp_path, NVE(), 204)
        with pytest.raises(SimulationError, match=r"changed at step 200 and there are 1 frame\(s\) since"):
            analyse(tmp_path)
        self.run(tmp_path, NVE(), 300)
        (tmp_path / "checkpoint.npz").write_bytes(b"nothing")
        found = analyse(tmp_path)
        assert found.motion.time[0] == 410
        assert any("Whether the settings of the run were changed is not known" in note for note in found.notes)
