"""Workers in jobs of Slurm."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate.screening.executors import (
    PAGES,
    Executor,
    interrupts_held,
    quiet_settings,
    require_distributed,
    require_memory,
    require_workers,
)

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class SlurmExecutor(Executor):
    """Workers in jobs of Slurm, which this process submits and ends; it must run where the nodes can reach it.

    Attributes:
        workers: number of processes in all jobs together.
        cores: processes of one job, of one thread each.
        memory: of one job, such as ``"16GB"``.
        walltime: of a job, ``HH:MM:SS``.
        queue, account: of Slurm.
        directives: more lines of ``#SBATCH``, such as ``--gres=gpu:1``.
        prologue: lines of shell before the worker starts, such as ``module load …``.
        interface: of the network, such as ``ib0``.
        shared: folder that the nodes see, for logs and the certificates of the encryption.
    """

    workers: int = 1
    cores: int = 1
    memory: str = "4GB"
    walltime: str = "01:00:00"
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    interface: str | None = None
    shared: str = field(default=".")

    def __post_init__(self) -> None:
        require_workers(self.workers)
        if self.cores < 1:
            raise ConfigError(f"A job needs at least one core, got --cores {self.cores}.")

    @property
    def expected(self) -> int:
        """How many workers there will be."""
        return self.workers

    def check(self) -> None:
        """Refuse a machine without Slurm, and a memory that is none; see :meth:`Executor.check`."""
        require_memory(self.memory)
        if shutil.which("sbatch") is None:
            raise SimulationError(
                "There is no command sbatch here: run --executor slurm on a machine that submits jobs to Slurm, or "
                "choose --executor local."
            )

    @contextmanager
    def clients(self) -> Iterator[Client]:
        """Submit jobs; see :meth:`Executor.clients`."""
        distributed = require_distributed()
        self.check()
        with ExitStack() as stack:
            cluster = stack.enter_context(self.clusters())
            cluster.scale(n=self.workers)
            yield stack.enter_context(distributed.Client(cluster))

    def job_script(self) -> str:
        """Return the script of a job, which can be looked at without Slurm; leaves no folder that was not there."""
        shared = Path(self.shared)
        made = [folder for folder in (shared, *shared.parents) if not folder.exists()]
        try:
            with self.clusters() as cluster:
                script = cluster.job_script()
                # While the folder is there: each removes itself when it is closed, in the end at the latest.
                for name, value in vars(cluster).items():
                    if name.startswith("_job_") and hasattr(value, "close"):
                        value.close()
                return script
        finally:
            if made:
                # Of nobody else: certificates for workers that will not be.
                shutil.rmtree(shared, ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):
                    folder.rmdir()

    @contextmanager
    def clusters(self) -> Iterator[Any]:
        """Yield a cluster without jobs.

        Raises:
            ConfigError: dask-jobqueue is not installed.
            SimulationError: the scheduler does not start.
        """
        require_distributed()
        try:
            from dask_jobqueue import SLURMCluster
        except ImportError as error:
            raise ConfigError(
                f"Slurm needs dask-jobqueue ({error}): pip install 'mlip-kit[screen]', or pip install dask-jobqueue."
            ) from error
        with ExitStack() as stack:
            stack.enter_context(quiet_settings())
            logs = Path(self.shared)
            logs.mkdir(parents=True, exist_ok=True)
            with interrupts_held():
                try:
                    cluster = SLURMCluster(
                        queue=self.queue, account=self.account, walltime=self.walltime, memory=self.memory,
                        cores=self.cores, processes=self.cores, interface=self.interface, job_name="mlip-screen",
                        job_extra_directives=list(self.directives), job_script_prologue=list(self.prologue),
                        log_directory=str(logs), shared_temp_directory=str(logs), security=True,
                        silence_logs=logging.CRITICAL,
                        scheduler_options={"dashboard_address": PAGES}, worker_extra_args=["--no-dashboard"],
                    )  # fmt: skip
                except (OSError, RuntimeError, ValueError) as error:
                    raise SimulationError(f"The scheduler of the jobs does not start: {error}.") from error
                stack.callback(cluster.close)
            yield cluster
