"""What a restart takes up is the run that it names: the same model, structure and ramp, and nobody else's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixCom, FixedLine, FixedPlane, FixScaled, Hookean

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import NVE, BussiNVT, LangevinNVT
from mlip.simulate.lock import only_writer
from mlip.simulate.md import MDFiles, run_md
from mlip.simulate.md_start import OTHER_SEED
from mlip.simulate.md_traits import refuse_others, traits_of
from mlip.simulate.trajectory import FrameWriter, last_frame
from tests.simulate.analytic import Springs, einstein_crystal
from tests.simulate.pair_model import PairModel
from tests.simulate.test_md_restart import OPTIONS, Killed, contents, crystal, files, killed_at


def masses(atoms: Atoms) -> None:
    atoms.set_masses([100] * len(atoms))


def fixed(atoms: Atoms) -> None:
    atoms.set_constraint(FixAtoms([0, 1]))


def charged(atoms: Atoms) -> None:
    atoms.info["charge"] = 1


@pytest.mark.parametrize("frame", [False, True], ids=["checkpoint", "last frame"])
@pytest.mark.parametrize(
    ("change", "match"),
    [(masses, "other masses"), (fixed, "other constraints"), (charged, "the charge not stated instead of 1")],
)
def test_another_structure_is_refused(change: Callable, match: str, frame: bool, tmp_path: Path) -> None:
    atoms, springs = einstein_crystal()
    run_md(atoms, springs, NVE(), 20, files=files(tmp_path), **OPTIONS)
    if frame:
        (tmp_path / "c.npz").unlink()
    before = contents(tmp_path)
    change(atoms)
    with pytest.raises(SimulationError, match=rf"a run with {match}: .* --overwrite"):
        run_md(atoms, springs, NVE(), 30, files=files(tmp_path, True), **OPTIONS)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("frame", [False, True], ids=["checkpoint", "last frame"])
def test_another_model_is_refused(frame: bool, tmp_path: Path) -> None:
    atoms, springs = einstein_crystal()
    other = Springs(springs.places, springs.constants * 1.5)
    run_md(atoms, springs, NVE(), 20, files=files(tmp_path), model="one", **OPTIONS)
    if frame:
        (tmp_path / "c.npz").unlink()
    else:
        with pytest.raises(SimulationError, match="a run with another model: repeat the command"):
            run_md(atoms, springs, NVE(), 30, files=files(tmp_path, True), model="other", **OPTIONS)
    with pytest.raises(SimulationError, match=r"another model: the structure to go on from had .* eV and has"):
        run_md(atoms, other, NVE(), 30, files=files(tmp_path, True), **OPTIONS)
    assert run_md(atoms, springs, NVE(), 30, files=files(tmp_path, True), **OPTIONS).last_step == 30


def test_a_frame_is_known_again(tmp_path: Path) -> None:
    """All that ASE writes of constraints, masses, charge and spin comes back as it was."""
    for number, constraint in enumerate(
        (
            [FixAtoms([0, 2]), FixedLine([1], (1, 2, 0))],
            [FixCartesian([0], (True, False, True)), FixedPlane([1, 2], (0.3, 1, 2))],
            [FixBondLengths([[0, 1]]), FixScaled([3], (True, False, False)), Hookean(0, 3, 2.0, 1.5)],
            [FixCom()],
        )
    ):
        atoms = crystal()
        atoms.set_masses(np.linspace(60, 63.1, 4))
        atoms.info |= {"charge": np.int64(1), "spin": 2}
        atoms.set_constraint(constraint)
        path = tmp_path / f"{number}.traj"
        with FrameWriter(path) as frames:
            frames.write(atoms, step=1)
        refuse_others(path, traits_of(last_frame(path)), traits_of(atoms))


def test_another_seed_or_precision_is_noted(tmp_path: Path) -> None:
    options = OPTIONS | {"timestep": 1.0}
    run_md(crystal(), MLIPCalculator(PairModel(), dtype="float64"), NVE(), 6, files=files(tmp_path), **options)
    options["seed"] = 77
    for steps in (8, 10):
        calculator = MLIPCalculator(PairModel(), dtype="float32")
        summary = run_md(crystal(), calculator, NVE(), steps, files=files(tmp_path, True), **options)
        assert summary.notes.count(OTHER_SEED) == 1
        assert summary.notes.count("The precision changed from float64 to float32 at step 6.") == 1
    assert [row.step for row in summary.rows] == [8, 9, 10]


class TestRamps:
    @pytest.fixture
    def targets(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        found, original = [], BussiNVT.set_temperature

        def noted(ensemble: BussiNVT, dynamics, temperature: float) -> None:
            found.append(temperature)
            original(ensemble, dynamics, temperature)

        monkeypatch.setattr(BussiNVT, "set_temperature", noted)
        return found

    @staticmethod
    def run(folder: Path, steps: int, restart: bool, final: float | None = 600, *kills: int):
        atoms, springs = einstein_crystal()
        callback = killed_at(*kills)
        setup = {"files": files(folder, restart), "callback": callback, "final_temperature": final}
        return run_md(atoms, springs, BussiNVT(300), steps, **setup, **OPTIONS)

    def test_one_that_has_ended_keeps_its_temperature(self, targets: list[float], tmp_path: Path) -> None:
        self.run(tmp_path, 20, False)
        assert targets[-1] == 600
        targets.clear()
        summary = self.run(tmp_path, 40, True)
        assert set(targets) == {600.0}
        assert "The thermostat goes from 600 K at step 20 to 600 K at step 40." in summary.notes

    @pytest.mark.parametrize(("first", "final", "begins"), [(600, 600, 450), (600, 900, 450), (None, 600, 300)])
    def test_one_that_is_changed_goes_on_from_where_it_is(
        self, first: float | None, final: float, begins: float, targets: list[float], tmp_path: Path
    ) -> None:
        for name, kills in (("whole", ()), ("parts", (33,))):
            with pytest.raises(Killed):
                self.run(tmp_path / name, 20, False, first, 10)
            # Killed before the checkpoint of step 10 is written: that of step 0 is taken up, of a ramp of 20 steps.
            with pytest.raises(Killed):
                self.run(tmp_path / name, 20, True, first, 11)
            targets.clear()
            if kills:
                with pytest.raises(Killed):
                    self.run(tmp_path / name, 40, True, final, *kills)
            self.run(tmp_path / name, 40, True, final)
            if not kills:
                np.testing.assert_allclose(targets, np.linspace(begins, final, 31), rtol=1e-12)
        assert contents(tmp_path / "parts") == contents(tmp_path / "whole")

    def test_another_temperature_begins_there(self, targets: list[float], tmp_path: Path) -> None:
        self.run(tmp_path, 20, False)
        targets.clear()
        atoms, springs = einstein_crystal()
        run_md(atoms, springs, BussiNVT(700), 30, files=files(tmp_path, True), final_temperature=200, **OPTIONS)
        np.testing.assert_allclose(targets, np.linspace(700, 200, 11))


class TestTwoProcesses:
    def test_the_second_is_refused(self, tmp_path: Path) -> None:
        """A lock belongs to what opened the file, so one process can stand for two."""
        atoms, springs = einstein_crystal()
        run_md(atoms, springs, LangevinNVT(), 12, files=files(tmp_path), **OPTIONS)

        def second(progress) -> None:
            if progress.step == 15:
                with pytest.raises(SimulationError, match=r"Another process runs MD in '.*': wait"):
                    run_md(atoms, springs, LangevinNVT(), 30, files=files(tmp_path, True), **OPTIONS)

        run_md(atoms, springs, LangevinNVT(), 24, files=files(tmp_path, True), callback=second, **OPTIONS)
        run_md(*einstein_crystal(), LangevinNVT(), 24, files=files(tmp_path / "whole"), **OPTIONS)
        assert contents(tmp_path) == contents(tmp_path / "whole")
        assert not list(tmp_path.glob(".*"))

    def test_nothing_is_left_of_a_lock(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / ".lock"
        with only_writer(path), pytest.raises(SimulationError, match="Another process"), only_writer(path):
            pass
        assert not list(tmp_path.iterdir())
        with only_writer(path):
            (path.parent / "kept").touch()
        assert [one.name for one in path.parent.iterdir()] == ["kept"]

    def test_where_nothing_can_be_written_others_say_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with only_writer(tmp_path / "file" / ".lock"), only_writer(None):
            pass
        with pytest.raises(SimulationError, match="Cannot write the trajectory"):
            run_md(*einstein_crystal(), NVE(), 2, files=MDFiles(tmp_path / "file" / "t.traj"))
