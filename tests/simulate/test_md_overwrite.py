"""A new run in the place of an earlier one: killed at any moment, a restart never takes one for the other."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import MlipError, SimulationError
from mlip.simulate.ensembles import BussiNVT, LangevinNVT
from mlip.simulate.md import run_md
from mlip.simulate.md_folder import RESULTS, clear_results
from mlip.simulate.md_replicas import Replica, replicas_in, run_replicas
from mlip.simulate.md_start import OTHER_SEED
from tests.simulate.analytic import einstein_crystal
from tests.simulate.pair_model import PairModel
from tests.simulate.test_md_command import MD, run  # noqa: F401 - a fixture
from tests.simulate.test_md_restart import OPTIONS, Killed, crystal

ALL = {name: value for name, value in OPTIONS.items() if name != "seed"}
OLD, NEW = BussiNVT(300), BussiNVT(600)


class Killer:
    """Ends the process, as it were, before or after the n-th time that a file is removed or replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.left: int | None = None
        for name in ("unlink", "replace"):
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name), folder))

    def wrap(self, original: Callable, folder: Path) -> Callable:
        def wrapped(*paths, **options):
            kept = self.left if str(folder) in str(paths[-1]) and not str(paths[0]).endswith(".lock") else None
            if kept is None:
                return original(*paths, **options)
            if kept == 0:
                self.left = None
                raise Killed
            self.left = kept - 1
            return original(*paths, **options)

        return wrapped


@pytest.mark.slow
def test_one_run_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, springs = einstein_crystal()
    killer, reached = Killer(monkeypatch, tmp_path), set()

    def go(folder: Path, ensemble: BussiNVT, restart: bool, steps: int = 20) -> None:
        files = Replica(0, folder).files(restart, clear=lambda: clear_results(folder))
        run_md(atoms, springs, ensemble, steps, files=files, **OPTIONS)

    def state(folder: Path) -> list[bytes]:
        return [(folder / name).read_bytes() for name in ("trajectory.traj", "thermo.csv")]

    go(tmp_path / "new", NEW, restart=False)
    for number in range(100):
        folder = tmp_path / f"kill_{number}"
        go(folder, OLD, restart=False)
        for name in RESULTS:
            (folder / name).write_text("of the old run")
        before, old = state(folder), (folder / "checkpoint.npz").read_bytes()
        killer.left = number
        try:
            go(folder, NEW, restart=False)
        except Killed:
            if (folder / "checkpoint.npz").read_bytes() == old:
                assert state(folder) == before
                reached.add("old")
                continue
        killer.left, survived = None, killer.left is not None
        if not survived:
            go(folder, NEW, restart=True)
            reached.add("new")
        assert state(folder) == state(tmp_path / "new")
        assert not any((folder / name).exists() for name in RESULTS)
        if survived:
            break
    assert reached == {"old", "new"}
    assert number > 15


@pytest.mark.slow
def test_replicas_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer, reached, said = Killer(monkeypatch, tmp_path), set(), set()
    calculator = MLIPCalculator(PairModel())

    def go(folder: Path, ensemble: BussiNVT, number: int, restart: bool) -> None:
        known = [path for path in folder.glob("replica_*") if path.name > f"replica_{number - 1}"]
        options = ALL | {"checkpoint_interval": 2, "restart": restart, "leftovers": [*known, folder]}
        outcomes = run_replicas(crystal(), calculator, ensemble, 4, replicas_in(folder, number, 0), **options)
        assert not any(outcome.error for outcome in outcomes)

    def state(folder: Path) -> dict[str, bytes]:
        names = ("trajectory.traj", "thermo.csv", "summary.json")
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in names}

    go(tmp_path / "new", NEW, 2, restart=False)
    go(tmp_path / "old", OLD, 3, restart=False)
    for number in range(200):
        folder = tmp_path / f"kill_{number}"
        shutil.copytree(tmp_path / "old", folder)
        (folder / "summary.json").write_text("of the old runs")
        (folder / "replica_1" / "summary.json").write_text("of an old run")
        before, killer.left = state(folder), number
        try:
            go(folder, NEW, 2, restart=False)
        except Killed:
            killer.left = None
            try:
                go(folder, NEW, 2, restart=True)
            except MlipError as error:
                # Nothing was touched, or there is nothing that could be taken for the new run.
                said.add(str(error).replace(str(folder), ""))
                if number == 0:
                    assert state(folder) == before
                continue
            reached.add(number)
        survived, killer.left = killer.left is not None, None
        assert state(folder) == state(tmp_path / "new")
        if survived:
            break
    assert len(reached) > 5
    assert {one.split("'")[2][:40] for one in said} == {
        " has 3 replicas, not 2: their number can",
        " has a trajectory and no checkpoint, so ",
        " to continue. Start without a restart.",
    }


class TestReplicas:
    @staticmethod
    def go(folder: Path, number: int, steps: int, restart: bool, seed: int = 0) -> list:
        replicas = replicas_in(folder, number, seed)
        calculator = MLIPCalculator(PairModel())
        return run_replicas(crystal(), calculator, LangevinNVT(), steps, replicas, restart=restart, **ALL)

    def test_what_cannot_be_continued(self, tmp_path: Path) -> None:
        with pytest.raises(SimulationError, match=r"no replicas in '.*' to continue"):
            self.go(tmp_path / "nowhere", 2, 4, restart=True)
        assert not (tmp_path / "nowhere").exists()
        self.go(tmp_path, 2, 4, restart=False)
        with pytest.raises(SimulationError, match="has 2 replicas, not 3: their number cannot change"):
            self.go(tmp_path, 3, 8, restart=True)
        assert not (tmp_path / "replica_2").exists()
        outcomes = self.go(tmp_path, 2, 8, restart=True, seed=99)
        assert all(OTHER_SEED in outcome.value.notes for outcome in outcomes)
        for path in (tmp_path / "replica_1").glob("*.npz"):
            path.unlink()
        with pytest.raises(SimulationError, match=r"replica_1' has a trajectory and no checkpoint"):
            self.go(tmp_path, 2, 12, restart=True)

    def test_the_second_process_is_refused(self, tmp_path: Path) -> None:
        replicas, refused = replicas_in(tmp_path, 2, 0), []
        calculator = MLIPCalculator(PairModel())

        def second(number: int, progress) -> None:
            if (number, progress.step) == (1, 2):
                with pytest.raises(SimulationError, match="Another process"):
                    self.go(tmp_path, 2, 8, restart=True)
                refused.append(number)

        run_replicas(crystal(), calculator, LangevinNVT(), 4, replicas, callback=second, **ALL)
        assert refused == [1]


@pytest.mark.slow
class TestCommand:
    def test_killed_and_continued(self, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        words = (*MD, "--steps", 20, "--checkpoint-interval", 5, "--thermostat", "bussi")
        run(*words)
        run("analyse", "out")
        with monkeypatch.context() as patch:
            patch.setattr("mlip.simulate.md_loop.MDLoop._record", killed)
            with pytest.raises(Killed):
                run(*words, "--temperature", 600, "--overwrite")
        assert {path.name for path in Path("out").iterdir()} <= {"checkpoint.npz", "thermo.csv", "trajectory.traj"}
        run(*words, "--temperature", 600, "--restart")
        summary = json.loads(Path("out/summary.json").read_text())
        assert summary["last_step"] == 20
        assert "Continued from step 0." not in summary["notes"]

    def test_another_number_of_replicas(self, run: Callable, tmp_path: Path) -> None:  # noqa: F811
        with pytest.raises(SimulationError, match="no replicas in 'out' to continue"):
            run(*MD, "--steps", 4, "--replicas", 2, "--restart")
        run(*MD, "--steps", 4, "--replicas", 10)
        with pytest.raises(SimulationError, match="'out' has 10 replicas, not 11"):
            run(*MD, "--steps", 8, "--replicas", 11, "--restart")
        Path("out/replica_7/mine.txt").touch()
        run(*MD, "--steps", 4, "--replicas", 2, "--overwrite")
        assert sorted(path.name for path in Path("out").glob("replica_*")) == ["replica_0", "replica_1", "replica_7"]
        assert [path.name for path in Path("out/replica_7").iterdir()] == ["mine.txt"]
        run(*MD, "--steps", 8, "--replicas", 2, "--restart")

    def test_another_model(self, run: Callable) -> None:  # noqa: F811
        run(*MD, "--steps", 4)
        Path("m").write_text("another")
        with pytest.raises(SimulationError, match=r"belongs to a run with another model: .* --overwrite"):
            run(*MD, "--steps", 8, "--restart")


def killed(*_: object) -> None:
    raise Killed
