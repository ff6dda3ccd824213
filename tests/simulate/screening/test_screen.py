"""Screenings with real workers: some of them are killed, so is the whole; nothing is lost, nothing is done twice."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate.journal import Journal, fingerprint
from mlip.simulate.relax_many import relax_many
from mlip.simulate.screening.executors import DaskExecutor, LocalExecutor
from mlip.simulate.screening.record import JOURNAL, ScreenRecord
from mlip.simulate.screening.screen import Progress, all_records, screen
from mlip.simulate.screening.task import ScreeningTask
from tests.simulate.pair_model import PairModel
from tests.simulate.screening.helpers import DeadlyTask, PairSource, inputs

COUNT = 24


def run(
    folder: Path,
    task: ScreeningTask,
    executor: LocalExecutor | DaskExecutor,
    *,
    restart: bool = False,
    timeout: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[dict[int, ScreenRecord], Progress]:
    structures = inputs(COUNT)
    with Journal(folder, JOURNAL, fingerprint(structures, {}, "m"), restart) as journal:
        last = screen(
            structures, task, PairSource(), executor, journal, batch_atoms=8, timeout=timeout, progress=progress
        )
        assert [record.number for record in all_records(structures, journal)] == sorted(journal.done)
        return dict(journal.done), last


def require_alone(found: dict[int, ScreenRecord], task: ScreeningTask, but: set[int] = frozenset()) -> None:
    """Compare with relaxations in this process."""
    assert sorted(found) == list(range(COUNT))
    some = [one.atoms for one in inputs(COUNT)]
    for relaxed in relax_many(some, MLIPCalculator(PairModel()), task):
        record = found[relaxed.number]
        if relaxed.number in but:
            assert record.status == "poisoned"
            continue
        assert record.status == "done"
        assert record.values["energy_after"] == pytest.approx(relaxed.result.after.energy, abs=1e-8)
        assert record.values["steps"] == relaxed.result.steps


def numbers(folder: Path) -> list[int]:
    return [json.loads(line)["number"] for line in (folder / JOURNAL.file).read_bytes().splitlines()[1:]]


def test_numbers_and_what_is_done(tmp_path: Path) -> None:
    executor = LocalExecutor(1)
    structures = inputs(2)
    with Journal(tmp_path, JOURNAL, {}) as journal:
        with pytest.raises(ConfigError, match="must be above 0, got 0"):
            screen(structures, DeadlyTask(), PairSource(), executor, journal, tries=0)
        for number in range(2):
            journal.add(ScreenRecord(number, f"s{number}", "done"))
        # Nothing is left: no workers are started.
        assert screen(structures, DeadlyTask(), PairSource(), executor, journal) == Progress(0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestWorkers:
    """In this class warnings are dask's."""

    @pytest.fixture(autouse=True)
    def _dask(self) -> None:
        pytest.importorskip("distributed")
        pytest.importorskip("cryptography")

    def test_one_of_three_is_killed(self, tmp_path: Path) -> None:
        task = DeadlyTask(relax_cell=True, fmax=0.01, deadly=tuple(range(COUNT)), once=str(tmp_path / "x"), pause=0.02)
        found, last = run(tmp_path / "out", task, LocalExecutor(3))
        assert last.deaths == 1
        require_alone(found, relax_only(task))
        assert sorted(numbers(tmp_path / "out")) == list(range(COUNT))

    def test_those_that_always_kill_or_hang_are_set_aside(self, tmp_path: Path) -> None:
        task = DeadlyTask(relax_cell=True, fmax=0.01, deadly=(5,), hanging=(8,))
        found, last = run(tmp_path, task, LocalExecutor(3), timeout=8)
        assert last.deaths >= 6
        require_alone(found, relax_only(task), {5, 8})

    def test_a_scheduler_of_others(self, tmp_path: Path) -> None:
        from distributed import LocalCluster

        task = DeadlyTask(relax_cell=True, fmax=0.01, deadly=(5,))
        with LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster:
            found, _ = run(tmp_path, task, DaskExecutor(cluster.scheduler_address))
        require_alone(found, relax_only(task), {5})

    def test_the_model_is_not_there(self, tmp_path: Path) -> None:
        from mlip.core.errors import ModelFileError
        from mlip.simulate.screening.model import ModelFiles

        structures = inputs(3)
        with Journal(tmp_path, JOURNAL, {}) as journal, pytest.raises(ModelFileError, match="no model file"):
            screen(structures, DeadlyTask(), ModelFiles(("gone.safetensors",), "0"), LocalExecutor(1), journal)

    def test_the_whole_is_killed_at_random_moments(self, tmp_path: Path) -> None:
        chance, before, kills = random.Random(5), b"", 0
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        path = tmp_path / "out" / JOURNAL.file
        while True:
            words = [sys.executable, "-c", CHILD, str(tmp_path / "out"), str(int(path.exists()))]
            with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
                watch = threading.Timer(240, child.kill)
                watch.start()
                while child.poll() is None and not (path.exists() and path.stat().st_size > max(len(before), 300)):
                    time.sleep(0.005)
                time.sleep(chance.uniform(0, 0.5))
                if kills < 2:
                    workers = children(child.pid)
                    child.send_signal(signal.SIGKILL)
                output, _ = child.communicate()
                watch.cancel()
            after = path.read_bytes()
            assert after.startswith(before[: before.rfind(b"\n") + 1])
            before, kills = after, kills + 1
            if child.returncode == 0:
                break
            assert child.returncode == -signal.SIGKILL, output
            deadline = time.monotonic() + 20
            while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        assert sorted(numbers(tmp_path / "out")) == list(range(COUNT))
        with pytest.raises(SimulationError, match="begun with other model"):
            Journal(tmp_path / "out", JOURNAL, fingerprint(inputs(COUNT), {}, "other"), restart=True)
        found, last = run(tmp_path / "out", SLOW, LocalExecutor(1), restart=True)
        assert last.total == 0
        require_alone(found, relax_only(SLOW))


SLOW = DeadlyTask(relax_cell=True, fmax=0.01, pause=0.1)

CHILD = """
import sys
from pathlib import Path
from mlip.simulate.screening.executors import LocalExecutor
from tests.simulate.screening.test_screen import SLOW, run
run(Path(sys.argv[1]), SLOW, LocalExecutor(3), restart=sys.argv[2] == "1")
"""


def relax_only(task: DeadlyTask) -> ScreeningTask:
    """Return the options of the relaxation."""
    from mlip.simulate.screening.tasks.relax import RelaxTask

    return RelaxTask(relax_cell=task.relax_cell, fmax=task.fmax)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found
