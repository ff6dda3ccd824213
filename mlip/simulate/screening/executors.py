"""Where the workers are: processes of this machine, a dask scheduler that runs; Slurm is in `slurm`."""

from __future__ import annotations

import json
import logging
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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

_NO_ADDRESS = (OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError)

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
    def check(self) -> None:
        """Refuse what can be known before anything is started or written.

        Raises:
            ConfigError: an option makes no sense.
            SimulationError: there is no scheduler.
        """

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
        require_workers(self.workers)

    @property
    def expected(self) -> int:
        """How many workers there will be."""
        return self.workers

    def check(self) -> None:
        """Refuse a memory that is none; see :meth:`Executor.check`."""
        require_memory(self.memory)

    @contextmanager
    def clients(self) -> Iterator[Client]:
        """Start the processes; see :meth:`Executor.clients`."""
        distributed = require_distributed()
        with ExitStack() as stack:
            stack.enter_context(quiet_settings())
            with interrupts_held():
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

    def check(self) -> None:
        """Look whether somebody listens; see :meth:`Executor.check`."""
        require_distributed()
        try:
            _address(self.scheduler)
        except _NO_ADDRESS as error:
            raise self._nobody() from error

    def _nobody(self) -> SimulationError:
        return SimulationError(
            f"There is no dask scheduler at '{self.scheduler}': expected the address (tcp://HOST:8786) or the "
            "--scheduler-file of a dask scheduler that runs."
        )

    @contextmanager
    def clients(self) -> Iterator[Client]:
        """Connect; see :meth:`Executor.clients`."""
        distributed = require_distributed()
        with ExitStack() as stack:
            stack.enter_context(quiet_settings())
            try:
                address = _address(self.scheduler)
                client = distributed.Client(address, timeout=CONNECT)
            except _NO_ADDRESS as error:
                raise self._nobody() from error
            yield stack.enter_context(client)


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


def require_workers(workers: int) -> None:
    """Refuse none.

    Raises:
        ConfigError: the number is below one.
    """
    if workers < 1:
        raise ConfigError(f"A screening needs at least one worker, got --workers {workers}.")


def require_memory(memory: str | None) -> None:
    """Refuse what dask does not read as an amount of memory; None is a default.

    Raises:
        ConfigError: how to write it.
    """
    if memory is None:
        return
    require_distributed()
    from dask.utils import parse_bytes

    try:
        if parse_bytes(memory) > 0:
            return
    except ValueError:
        pass
    raise ConfigError(f"--memory must be an amount such as 4GB or 500MB, got '{memory}'.")


@contextmanager
def quiet_settings() -> Iterator[None]:
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
def interrupts_held() -> Iterator[None]:
    """Start threads and processes that Ctrl-C does not reach: it is for this one, which then ends the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
