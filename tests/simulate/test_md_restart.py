"""A run that was killed and continued is the run that was not: to the byte of its files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms
from ase.io import read

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import NVE, BussiNVT, Ensemble, LangevinNVT, NoseHooverNVT
from mlip.simulate.ensembles_npt import AnisotropicNPT, FullCellNPT, IsotropicNPT
from mlip.simulate.md import MDFiles, run_md
from mlip.simulate.md_checkpoint import previous_checkpoint, read_checkpoint
from mlip.simulate.md_replicas import ReplicaAverages, replicas_in, run_replicas
from mlip.simulate.trajectory import FrameWriter, rewind
from tests.simulate.analytic import Nothing, einstein_crystal
from tests.simulate.pair_model import PairModel

MODEL = PairModel()
QUICK = [LangevinNVT(), FullCellNPT()]
SLOW = [NVE(400), BussiNVT(), NoseHooverNVT(), IsotropicNPT(), AnisotropicNPT()]
DONE = "All steps had been done before: only the results were written."
OPTIONS = {"timestep": 2.0, "log_interval": 3, "frame_interval": 2, "checkpoint_interval": 10, "seed": 5}


class Killed(BaseException):
    """Nothing in the program catches it."""


def crystal() -> Atoms:
    return bulk("Cu", "fcc", a=3.185, cubic=True)


def files(folder: Path, restart: bool = False) -> MDFiles:
    return MDFiles(folder / "t.traj", folder / "thermo.csv", restart, folder / "c.npz")


def killed_at(*steps: int):
    left = list(steps)

    def callback(progress) -> None:
        if left and progress.step == left[0]:
            left.pop(0)
            raise Killed

    return callback


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("t.traj", "thermo.csv")]


def with_kills(atoms: Atoms, make, ensemble: Ensemble, steps: int, folder: Path, *kills: int, **options):
    """Run to the end through kills; returns the last summary."""
    callback = killed_at(*kills)
    for number in range(len(kills) + 1):
        try:
            return run_md(
                atoms, make(), ensemble, steps, files=files(folder, number > 0), callback=callback, **OPTIONS | options
            )
        except Killed:
            continue
    raise AssertionError("not reached")


@pytest.mark.parametrize(
    "ensemble",
    [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)],
    ids=lambda ensemble: type(ensemble).__name__,
)
def test_killed_and_continued_is_uninterrupted(ensemble: Ensemble, tmp_path: Path) -> None:
    def make() -> Calculator:
        return MLIPCalculator(MODEL)

    whole = run_md(crystal(), make(), ensemble, 40, files=files(tmp_path / "whole"), **OPTIONS)
    parts = with_kills(crystal(), make, ensemble, 40, tmp_path / "parts", 0, 29, 30)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    np.testing.assert_array_equal(parts.atoms.positions, whole.atoms.positions)
    assert parts.temperature_mean == whole.temperature_mean
    assert len(parts.rows) == len(whole.rows)
    assert parts.drift == whole.drift
    assert parts.notes == (*whole.notes, "Continued from step 20.")


def test_a_ramp_and_fixed_atoms_are_continued(tmp_path: Path) -> None:
    atoms, springs = einstein_crystal()
    atoms.set_constraint(FixAtoms([1, 2]))
    for name, kills in (("whole", ()), ("parts", (0, 17, 33))):
        with_kills(atoms, lambda: springs, NoseHooverNVT(100), 40, tmp_path / name, *kills, final_temperature=400.0)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_ramp_of_the_cell_is_continued(tmp_path: Path) -> None:
    atoms = Atoms("Ar4", np.arange(12.0).reshape(4, 3), cell=[20] * 3, pbc=True)
    for name, kills in (("whole", ()), ("parts", (17, 33))):
        with_kills(atoms, Nothing, FullCellNPT(100), 40, tmp_path / name, *kills, final_temperature=400.0)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_what_is_changed_on_a_restart_is_noted(tmp_path: Path) -> None:
    atoms, springs = einstein_crystal()
    run_md(atoms, springs, BussiNVT(), 20, files=files(tmp_path), **OPTIONS)
    summary = run_md(atoms, springs, LangevinNVT(400), 30, files=files(tmp_path, True), **OPTIONS | {"timestep": 1.0})
    notes = " ".join(summary.notes)
    assert "ensemble changed from NVT (Bussi) to NVT (Langevin) at step 20" in notes
    assert "temperature changed from 300.0 to 400" in notes
    assert "time step in fs changed from 2.0 to 1.0" in notes
    assert "started afresh" in notes
    assert summary.rows[0].step == 21
    assert read(tmp_path / "t.traj").info["time_fs"] == 20 * 2.0 + 10 * 1.0
    with pytest.raises(SimulationError, match="already at step 30"):
        run_md(atoms, springs, LangevinNVT(), 30, files=files(tmp_path, True), **OPTIONS)


def test_killed_after_the_last_step(tmp_path: Path) -> None:
    """All is computed, and what is left to do is to summarise: the files stay as they are, to the byte."""
    atoms, springs = einstein_crystal()
    whole = run_md(atoms, springs, BussiNVT(), 20, files=files(tmp_path), **OPTIONS)
    before = contents(tmp_path)
    again = run_md(atoms, springs, BussiNVT(), 20, files=files(tmp_path, True), **OPTIONS)
    assert contents(tmp_path) == before
    assert repr(again.rows) == repr(whole.rows)
    np.testing.assert_array_equal(again.atoms.positions, whole.atoms.positions)
    assert again.notes == (*whole.notes, "Continued from step 20.", DONE)
    assert again.ns_per_day == 0
    with pytest.raises(SimulationError, match="already at step 20"):
        run_md(atoms, springs, BussiNVT(), 10, files=files(tmp_path, True), **OPTIONS)


def test_a_long_time_step_is_said_before_it_does_harm() -> None:
    atoms, springs = einstein_crystal()
    said = []
    with pytest.raises(SimulationError, match="MD stopped at step"):
        run_md(atoms, springs, NVE(), 1000, timestep=80.0, notify=said.append)
    assert "No integration is stable" in said[0]


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    atoms, springs = einstein_crystal()
    run_md(atoms, springs, NVE(), 20, files=files(tmp_path), **OPTIONS)
    with pytest.raises(SimulationError, match=r"holds Ar8, the structure is HAr"):
        run_md(Atoms("ArH"), springs, NVE(), 30, files=files(tmp_path, True))
    (tmp_path / "t.traj").write_bytes(b"short")
    with pytest.raises(SimulationError, match="changed since"):
        run_md(atoms, springs, NVE(), 30, files=files(tmp_path, True))
    for damage in (b"", b"nonsense", (tmp_path / "c.npz").read_bytes()[:-300]):
        (tmp_path / "c.npz").write_bytes(damage)
        with pytest.raises(SimulationError, match="damaged or no checkpoint"):
            run_md(atoms, springs, NVE(), 30, files=files(tmp_path, True))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", json=np.array([print], dtype=object))
    with pytest.raises(SimulationError, match="damaged or no checkpoint"):
        read_checkpoint(tmp_path / "c.npz")


def test_a_trajectory_is_taken_back_to_the_byte(tmp_path: Path) -> None:
    """Also across the places where the format moves its table: after 1 and 42 frames."""
    path = tmp_path / "a.traj"
    for kept in (1, 2, 41, 42, 43):
        with FrameWriter(path) as frames:
            for step in range(60):
                frames.write(bulk("Cu"), step=step)
                if step + 1 == kept:
                    mark = frames.mark()
                    before = path.read_bytes()
        rewind(path, mark)
        assert path.read_bytes() == before
        with FrameWriter(path, append=True) as frames:
            frames.write(bulk("Cu"), step=99)
        assert [frame.info["step"] for frame in read(path, ":")] == [*range(kept), 99]


class TestReplicas:
    @pytest.mark.slow
    def test_they_are_the_runs_they_would_be_alone(self, tmp_path: Path) -> None:
        calculator = MLIPCalculator(MODEL)
        replicas = replicas_in(tmp_path, 3, seed=5)
        outcomes = run_replicas(crystal(), calculator, LangevinNVT(), 20, replicas, **self.options())
        for outcome, replica in zip(outcomes, replicas, strict=True):
            options = OPTIONS | {"seed": replica.seed}
            alone = run_md(crystal(), MLIPCalculator(MODEL), LangevinNVT(), 20, **options)
            np.testing.assert_allclose(outcome.value.atoms.positions, alone.atoms.positions, atol=1e-10)
        assert len({outcome.value.temperature_mean for outcome in outcomes}) == 3
        averages = ReplicaAverages.of([outcome.value for outcome in outcomes])
        means = [outcome.value.temperature_mean for outcome in outcomes]
        assert averages.temperature == pytest.approx((np.mean(means), np.std(means, ddof=1) / np.sqrt(3)))

    @staticmethod
    def options() -> dict:
        return {name: value for name, value in OPTIONS.items() if name != "seed"}

    def test_killed_and_continued(self, tmp_path: Path) -> None:
        """Even if some had written a checkpoint that others had not."""
        made = {}
        for name, kills in (("whole", []), ("parts", [(1, 20), (2, 25)])):
            replicas = replicas_in(tmp_path / name, 3, seed=5)
            restart = False
            while True:

                def callback(number, progress, kills=kills) -> None:
                    if kills and (number, progress.step) == kills[0]:
                        kills.pop(0)
                        raise Killed

                try:
                    run_replicas(
                        crystal(), MLIPCalculator(MODEL), BussiNVT(), 30, replicas,
                        restart=restart, callback=callback, **self.options(),
                    )  # fmt: skip
                    break
                except Killed:
                    restart = True
                    if len(kills) == 1:
                        steps = [read_checkpoint(replica.folder / "checkpoint.npz").step for replica in replicas]
                        assert steps == [20, 10, 10]
            made[name] = [
                (one.folder / file).read_bytes() for one in replicas for file in ("trajectory.traj", "thermo.csv")
            ]
        assert made["parts"] == made["whole"]
        again = run_replicas(crystal(), MLIPCalculator(MODEL), BussiNVT(), 30, replicas, restart=True, **self.options())
        assert all("All steps had been done before" in outcome.value.notes[-1] for outcome in again)

    def test_an_earlier_run_is_not_mixed_in(self, tmp_path: Path) -> None:
        replicas = replicas_in(tmp_path, 2, seed=0)
        for _ in range(2):
            run_replicas(crystal(), MLIPCalculator(MODEL), NVE(), 10, replicas, **self.options())
        path = replicas[0].folder / "checkpoint.npz"
        assert read_checkpoint(previous_checkpoint(path)).step == 0


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.simulate.analytic import Nothing, einstein_crystal
from mlip.simulate.ensembles import LangevinNVT
from mlip.simulate.md import MDFiles, run_md
folder, restart = Path(sys.argv[1]), sys.argv[2] == "restart"
atoms, springs = einstein_crystal()
files = MDFiles(folder / "t.traj", folder / "thermo.csv", restart, folder / "c.npz")
run_md(atoms, springs, LangevinNVT(), 3000, files=files, log_interval=1, frame_interval=1, checkpoint_interval=50)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])

    def start(name: str, restart: bool) -> subprocess.Popen:
        words = [sys.executable, "-c", SCRIPT.format(root=root), str(tmp_path / name), "restart" if restart else "new"]
        return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})

    assert start("whole", False).wait() == 0
    rng = np.random.default_rng()
    checkpoint, kills = tmp_path / "parts" / "c.npz", 0
    for _ in range(10):
        process = start("parts", checkpoint.exists())
        known = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == known):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        kills += process.poll() is None
        process.kill()
        if process.wait() == 0:
            break
    if process.returncode:
        assert start("parts", True).wait() == 0
    assert kills >= 2
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
