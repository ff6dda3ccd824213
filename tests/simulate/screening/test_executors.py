"""Jobs as Slurm would get them, and what is said if there are no workers."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate.screening.executors import DaskExecutor, LocalExecutor, require_distributed
from mlip.simulate.screening.slurm import SlurmExecutor


def test_numbers_that_make_no_sense() -> None:
    for wrong in (LocalExecutor, SlurmExecutor):
        with pytest.raises(ConfigError, match="at least one worker, got --workers 0"):
            wrong(0)
    with pytest.raises(ConfigError, match="at least one core"):
        SlurmExecutor(1, cores=0)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'mlip-kit\[screen\]'"):
        require_distributed()


def test_no_slurm_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SimulationError, match="no command sbatch here"), SlurmExecutor().clients():
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_job_script(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    pytest.importorskip("dask_jobqueue")
    (tmp_path / "m").touch()
    words = [
        "screen", "x.cif", "--model", "m", "--executor", "slurm", "--workers", "64", "--cores", "16",
        "--memory", "32GB", "--walltime", "04:30:00", "--queue", "normal", "--account", "abc",
        "--directive=--gres=gpu:1",
        "--prologue", "module load cuda", "--show-job", "--output", "out",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-m", "mlip.cli", *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    lines = found.stdout.strip().splitlines()
    assert lines[0].startswith("#!")
    for wanted in (
        "#SBATCH -p normal", "#SBATCH -A abc", "#SBATCH --cpus-per-task=16", "#SBATCH --mem=30G",
        "#SBATCH -t 04:30:00", "#SBATCH --gres=gpu:1", "#SBATCH -J mlip-screen", "module load cuda",
    ):  # fmt: skip
        assert wanted in lines, wanted
    command = lines[-1]
    assert "--nthreads 1" in command
    assert "--nworkers 16" in command
    # Encrypted: nobody else on the node can send work.
    assert "tls://" in command
    assert "--tls-key" in command
    assert {path.name for path in tmp_path.iterdir()} == {"m"}
    assert not found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "nonsense", "foo://x:1", "127.0.0.1:{port}"])
def test_a_scheduler_that_is_not_there(address: str) -> None:
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    executor = DaskExecutor(address.format(port=port))
    with pytest.raises(SimulationError, match="no dask scheduler at"), executor.clients():
        pass
    assert time.monotonic() - started < 15
