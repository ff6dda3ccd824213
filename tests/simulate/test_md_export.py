"""Trajectories in formats of other programs."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from ase.units import kJ, mol

from mlip.core.errors import SimulationError
from mlip.core.units import FS
from mlip.simulate.ensembles import NVE
from mlip.simulate.export import export_trajectory
from mlip.simulate.md import MDFiles, run_md
from tests.simulate.analytic import Springs


@pytest.fixture
def trajectory(tmp_path: Path) -> Path:
    places = np.array([[0.0, 0, 0], [3, 0, 0], [0, 3.0, 1]])
    atoms = Atoms("OCH", places, cell=[[8, 0, 0], [1, 9, 0], [0, 1, 10]], pbc=True)
    path = tmp_path / "t.traj"
    run_md(atoms, Springs(places, np.array([4.0, 3.0, 2.0])), NVE(200), 12, files=MDFiles(path), frame_interval=2)
    return path


def test_extended_xyz(trajectory: Path) -> None:
    assert export_trajectory(trajectory, trajectory.with_suffix(".xyz")) == 7
    for frame, original in zip(read(trajectory.with_suffix(".xyz"), ":"), read(trajectory, ":"), strict=True):
        np.testing.assert_allclose(frame.positions, original.positions, atol=1e-7)
        np.testing.assert_allclose(frame.get_forces(), original.get_forces(), atol=1e-7)
        assert frame.info["step"] == original.info["step"]
        assert frame.get_potential_energy() == pytest.approx(original.get_potential_energy(), abs=1e-7)


def test_h5md_layout(trajectory: Path) -> None:
    """What the specification asks for: h5md 1.1, particles group, box, time-dependent elements."""
    export_trajectory(trajectory, trajectory.with_suffix(".h5"))
    frames = read(trajectory, ":")
    with h5py.File(trajectory.with_suffix(".h5")) as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert file["h5md/creator"].attrs["name"] == "mlip"
        atoms = file["particles/atoms"]
        assert atoms["box"].attrs["dimension"] == 3
        assert atoms["box"].attrs["boundary"].tolist() == [b"periodic"] * 3
        assert atoms["species"][:].tolist() == [8, 6, 1]
        assert h5py.check_enum_dtype(atoms["species"].dtype) == {"O": 8, "C": 6, "H": 1}
        for name, expected in (
            ("position", [frame.positions for frame in frames]),
            ("velocity", [frame.get_velocities() * FS for frame in frames]),
            ("force", [frame.get_forces() / (kJ / mol) for frame in frames]),
            ("box/edges", [frame.cell.array for frame in frames]),
        ):
            np.testing.assert_array_equal(atoms[name]["value"][:], expected)
            assert atoms[name]["step"][:].tolist() == list(range(0, 13, 2))
            np.testing.assert_allclose(atoms[name]["time"][:], 0.5 * np.arange(0, 13, 2))
        energies = file["observables/potential_energy/value"][:]
        np.testing.assert_array_equal(energies, [frame.get_potential_energy() for frame in frames])


def test_mdanalysis_reads_it(trajectory: Path) -> None:
    universe = pytest.importorskip("MDAnalysis")
    path = trajectory.with_suffix(".h5")
    export_trajectory(trajectory, path)
    frames = read(trajectory, ":")
    atoms = universe.Universe.empty(3, trajectory=True)
    atoms.load_new(str(path), format="H5MD")
    assert len(atoms.trajectory) == len(frames)
    for step, frame in zip(atoms.trajectory, frames):
        np.testing.assert_allclose(step.positions, frame.positions, atol=1e-5)
        np.testing.assert_allclose(step.velocities, frame.get_velocities() * FS * 1000, atol=1e-3)
        np.testing.assert_allclose(step.dimensions, frame.cell.cellpar(), atol=1e-4)
        np.testing.assert_allclose(step.forces, frame.get_forces() * 96.4853, rtol=1e-4, atol=1e-4)
        assert step.time == pytest.approx(frame.info["time_fs"] / 1000)


def test_what_cannot_be_exported(trajectory: Path, tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="stands for no format"):
        export_trajectory(trajectory, tmp_path / "a.dcd")
    from mlip.simulate.trajectory import FrameWriter

    with FrameWriter(tmp_path / "two.traj") as frames:
        frames.write(Atoms("H"), step=0)
        frames.write(Atoms("O"), step=1)
    with pytest.raises(SimulationError, match="same atoms"):
        export_trajectory(tmp_path / "two.traj", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
