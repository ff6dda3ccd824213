"""i-PI: a client that computes forces for a server of that protocol (i-PI itself, ASE, …) over a socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.socketio import IPIProtocol, SocketClient, actualunixsocketname
from ase.parallel import world

from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.committee import Source
from mlip.core.errors import ConfigError, SimulationError
from mlip.data.inputs import stated_inputs
from mlip.drivers.session import Session

_MESSAGES = {"STATUS", "INIT", "POSDATA", "GETFORCE", "EXIT"}

DEFAULT_PORT = 31415
"""i-PI's."""


def serve(
    atoms: Atoms,
    model: Source | Sequence[Source] | MLIPCalculator,
    *,
    address: str = "localhost",
    port: int | None = None,
    unix: str | None = None,
    timeout: float | None = None,
    callback: Callable[[int, float], None] | None = None,
) -> int:
    """Compute energy, forces and virial for a server until it ends.

    >>> serve(read("water.xyz"), "model.safetensors", unix="water")  # doctest: +SKIP

    Args:
        atoms: elements in the order of the server, which sends none, and which axes are periodic; not changed. Charge
            and spin in ``atoms.info``, for a model that reads them.
        model: model, path or name; several are a committee. Or a calculator.
        address: host name of the server.
        port: its port; None is 31415, i-PI's own.
        unix: the name of its unix socket instead, without the folder and ``ipi_``.
        timeout: seconds to wait for the server between messages; None waits for ever.
        callback: called with the number of evaluations and the energy in eV after each.

    Returns:
        The number of evaluations.

    Raises:
        ConfigError: port and unix socket; nobody listens there; a model that reads more than the protocol has.
        SimulationError: the server sends another number of atoms, no numbers, or nothing for ``timeout``.
        StructureError: as `MLIPCalculator.calculate`; a charge or spin that is missing or contradicts the calculator's.
    """
    if unix is not None and port is not None:
        raise ConfigError("The server has a port or a unix socket: give one of them.")
    calculator = model if isinstance(model, MLIPCalculator) else MLIPCalculator(model)
    stated = stated_inputs(atoms, calculator.model.inputs, calculator.given)
    session = Session(calculator, **{name: int(stated[name]) for name in ("charge", "spin") if name in stated})
    session.check_elements(atoms.numbers.tolist())
    place = f"unix socket /tmp/ipi_{unix}" if unix is not None else f"{address}:{port or DEFAULT_PORT}"
    try:
        client = _Client(session, len(atoms), _connect(address, port or DEFAULT_PORT, unix, timeout))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"No server answers at {place} ({error}): start it first, or give its --port or --unix."
        ) from error
    count = 0
    try:
        for count, _ in enumerate(client.irun(atoms.copy(), use_stress=True), 1):
            if callback is not None:
                callback(count, client.energy)
    except TimeoutError as error:
        raise SimulationError(f"The server at {place} has sent nothing for {timeout} s: it may have died.") from error
    except ConnectionError:
        # A server that ends without a word.
        pass
    finally:
        client.close()
    return count


def _connect(address: str, port: int, unix: str | None, timeout: float | None) -> socket.socket:
    if unix is None:
        return socket.create_connection((address, port), timeout)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(timeout)
        connected.connect(actualunixsocketname(unix))
    except OSError:
        connected.close()
        raise
    return connected


class _Protocol(IPIProtocol):
    """Refuses what ASE would broadcast over all atoms, or stop at with an assertion."""

    def __init__(self, connected: socket.socket, count: int) -> None:
        super().__init__(connected)
        self._count = count

    def recvmsg(self) -> str:
        try:
            message = super().recvmsg()
        except UnicodeDecodeError as error:
            raise SimulationError("The server does not speak i-PI's protocol.") from error
        if message not in _MESSAGES:
            raise SimulationError(f"The server does not speak i-PI's protocol: it sent {message!r}.")
        return message

    def recvposdata(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            cell, inverse, positions = super().recvposdata()
        except AssertionError as error:
            raise SimulationError(
                "The server sent positions or a cell that are not finite: its run has exploded."
            ) from error
        if len(positions) != self._count:
            raise SimulationError(
                f"The server has {len(positions)} atoms, the structure given here {self._count}: give the file that "
                "the server started from."
            )
        return cell, inverse, positions


class _Client(SocketClient):
    """ASE's client, with a session in the place of a calculator: it has a virial for molecules and slabs, too.

    Attributes:
        energy: eV, of the last evaluation.
    """

    def __init__(self, session: Session, count: int, connected: socket.socket) -> None:
        # ASE's own constructor opens a socket, and leaves it open where nobody answers.
        self.comm, self.closed, self.state = world, False, "READY"
        self.bead_index, self.bead_initbytes = 0, b""
        self.protocol = _Protocol(connected, count)
        self.log = self.protocol.log
        self.energy = float("nan")
        self._session = session

    def calculate(self, atoms: Atoms, use_stress: bool) -> tuple[float, np.ndarray, np.ndarray]:
        found = self._session.evaluate(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, use_stress)
        self.energy = found.energy
        virial = np.zeros((3, 3)) if found.virial is None else found.virial
        return found.energy, found.forces, virial
