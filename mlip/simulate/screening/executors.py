"""Where the workers are: processes of this machine, a dask scheduler that runs, jobs of Slurm."""

from __future__ import annotations

import json
import logging
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlip.core.errors import ConfigError, SimulationError

if TYPE_CHECKING:
    from distributed import Client

CONNECT = 5.0
"""Seconds to wait for a scheduler."""

PAGES = "127.0.0.1:0"
"""Where dask shows its pages: it always does; here for this machine only, at any port that is free."""

LOCAL_PATIENCE = 120.0
"""Seconds after which processes of this machine are not expected to come back."""

_SETTINGS = {
    # The supervisor decides what is tried again.
    "distributed.scheduler.allowed-failures": 0,
    # Freed memory is kept for the next step: a worker that has much goes on, and only close to the limit it is killed.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}


def require_distributed() -> ModuleType:
    """Return the module.

    Raises:
        ConfigError: it, or what it needs for encryption, is not installed.
    """
    try:
        import cryptography  # noqa: F401
        import distributed
    except ImportError as error:
        raise ConfigError(
            f"Screening needs dask ({error}): pip install 'mlip-kit[screen]', or pip install distributed dask-jobqueue "
            "cryptography."
        ) from error
    return distributed


class Executor(ABC):
    """Gives workers; a frozen dataclass of its options.

    Class attributes:
        patience: seconds without any worker after which there is no hope; None: others see to it.
    """

    patience: float | None = None

    @property
    @abstractmethod
    def expected(self) -> int | None:
        """How many workers there will be; None: as many as there are."""

    @abstractmethod
    def clients(self) -> Any:
        """Return a context manager that yields a client, and ends what it has started.

        Raises:
            ConfigError: dask is not installed.
            SimulationError: no workers can be had.
        """


@dataclass(frozen=True)
class LocalExecutor(Executor):
    """Processes of this machine, which end with this one, whatever ends it.

    Attributes:
        workers: number of processes, of one thread each.
        memory: that each may have, such as ``"8GB"``; one that takes more is killed. None: its share of the machine.
    """

    workers: int = 1
    memory: str | None = None
    patience = LOCAL_PATIENCE

    def __post_init__(self) -> None:
        _require_workers(self.workers)

    @property
    def expected(self) -> int:
        """How many workers there will be."""
        return self.workers

    @contextmanager
    def clients(self) -> Iterator[Client]:
        """Start the processes; see :meth:`Executor.clients`."""
        distributed = require_distributed()
        with ExitStack() as stack:
            stack.enter_context(_settings())
            with _interrupts_held():
                try:
                    cluster = distributed.LocalCluster(
                        n_workers=self.workers, threads_per_worker=1, processes=True, dashboard_address=PAGES,
                        silence_logs=logging.CRITICAL, memory_limit=self.memory or "auto", security=True,
                    )  # fmt: skip
                except (OSError, RuntimeError, ValueError, TimeoutError) as error:
                    raise SimulationError(f"The workers do not start: {error}.") from error
                stack.callback(cluster.close)
            yield stack.enter_context(distributed.Client(cluster))


@dataclass(frozen=True)
class DaskExecutor(Executor):
    """Workers of a dask scheduler that runs somewhere; they need this package and see the model's file.

    Attributes:
        scheduler: its address, such as ``tcp://node1:8786``, or the file that it wrote (``--scheduler-file``).
    """

    scheduler: str

    @property
    def expected(self) -> None:
        """Unknown before one is there."""

    @contextmanager
    def clients(self) -> Iterator[Client]:
        """Connect; see :meth:`Executor.clients`."""
        distributed = require_distributed()
        with ExitStack() as stack:
            stack.enter_context(_settings())
            try:
                address = _address(self.scheduler)
                client = distributed.Client(address, timeout=CONNECT)
            except (OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError) as error:
                raise SimulationError(
                    f"There is no dask scheduler at '{self.scheduler}': expected the address (tcp://HOST:8786) or the "
                    "--scheduler-file of a dask scheduler that runs."
                ) from error
            yield stack.enter_context(client)


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
        _require_workers(self.workers)
        if self.cores < 1:
            raise ConfigError(f"A job needs at least one core, got --cores {self.cores}.")

    @property
    def expected(self) -> int:
        """How many workers there will be."""
        return self.workers

    @contextmanager
    def clients(self) -> Iterator[Client]:
        """Submit jobs; see :meth:`Executor.clients`."""
        distributed = require_distributed()
        with ExitStack() as stack:
            cluster = stack.enter_context(self.clusters())
            cluster.scale(n=self.workers)
            yield stack.enter_context(distributed.Client(cluster))

    def job_script(self) -> str:
        """Return the script of a job, which can be looked at without Slurm."""
        with self.clusters() as cluster:
            return cluster.job_script()

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
            stack.enter_context(_settings())
            logs = Path(self.shared)
            logs.mkdir(parents=True, exist_ok=True)
            with _interrupts_held():
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


def _address(scheduler: str) -> str:
    """Return the address of a scheduler at which somebody listens: a client that waits in vain is hard to get rid of.

    Raises:
        OSError, ValueError, LookupError, TypeError: nobody does, or it is no address.
    """
    from distributed.comm.addressing import get_address_host_port

    file = Path(scheduler)
    address = str(json.loads(file.read_bytes())["address"]) if file.is_file() else scheduler
    with socket.create_connection(get_address_host_port(address, strict=True), timeout=CONNECT):
        return address


def _require_workers(workers: int) -> None:
    if workers < 1:
        raise ConfigError(f"A screening needs at least one worker, got --workers {workers}.")


@contextmanager
def _settings() -> Iterator[None]:
    """Set what dask is to do, and have it say nothing: what happens to workers is in the report."""
    import dask

    logger = logging.getLogger("distributed")
    before = logger.level
    with dask.config.set(_SETTINGS):
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(before)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start threads and processes that Ctrl-C does not reach: it is for this one, which then ends the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
