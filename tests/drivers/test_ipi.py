"""i-PI's protocol: what arrives at a server is ASE's; i-PI itself conserves energy with it; bad servers are refused."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app
from mlip.core.errors import ConfigError, MlipError, SimulationError, StructureError
from mlip.core.units import BOHR, HARTREE
from mlip.drivers.ipi import serve
from mlip.models.model_file import save_model
from tests.components import compose_model, random_model, repository_root
from tests.drivers.test_session import Charged
from tests.simulate.pair_model import PairModel


def crystal() -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.185, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.02, 0], [0.1, 1.02, 0], [-0.05, 0.08, 0.98]], scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def name(folder: Path) -> str:
    """A name of a unix socket that no other test has."""
    return f"mlip_{os.getpid()}_{folder.name}"


class Client(threading.Thread):
    """A client beside the server of the test."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self.arguments, self.options = arguments, options
        self.count, self.error = None, None

    def run(self) -> None:
        try:
            self.count = serve(*self.arguments, **self.options)
        except MlipError as error:
            self.error = error


def test_a_server_gets_ases_numbers(tmp_path: Path) -> None:
    atoms, seen = crystal(), []
    with SocketIOCalculator(unixsocket=name(tmp_path), timeout=20) as server:
        client = Client(crystal(), PairModel(), unix=name(tmp_path), callback=lambda *found: seen.append(found))
        client.start()
        atoms.calc = server
        for _ in range(3):
            expected = atoms.copy()
            expected.calc = MLIPCalculator(PairModel())
            assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-12)
            assert np.abs(atoms.get_forces() - expected.get_forces()).max() < 1e-12
            assert np.abs(atoms.get_stress() - expected.get_stress()).max() < 1e-13
            atoms.rattle(0.05, seed=4)
            atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
    client.join(20)
    assert client.count == 3
    assert [count for count, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == expected.get_potential_energy()


def test_another_number_of_atoms_is_refused(tmp_path: Path) -> None:
    """ASE's client would give all atoms the position of a single one."""
    with SocketIOCalculator(unixsocket=name(tmp_path), timeout=20) as server:
        client = Client(crystal(), PairModel(), unix=name(tmp_path))
        client.start()
        with pytest.raises(OSError):
            server.calculate(Atoms("Cu", cell=[5, 5, 5], pbc=True))
        client.join(20)
    assert isinstance(client.error, SimulationError)
    assert re.search("has 1 atoms, the structure given here 4", str(client.error))


@pytest.mark.parametrize(
    ("sent", "message"),
    [(b"GET / HTTP/1.1", "does not speak"), (b"\xff" * 12, "does not speak"), (b"", "sent nothing")],
)
def test_other_servers_are_refused(sent: bytes, message: str) -> None:
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
        client = Client(crystal(), PairModel(), port=port, timeout=0.3)
        client.start()
        connection, _ = listener.accept()
        with connection:
            connection.sendall(sent)
            client.join(20)
    assert isinstance(client.error, SimulationError)
    assert message in str(client.error)


def test_a_server_that_goes_away_ends_the_client() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        client = Client(crystal(), PairModel(), port=listener.getsockname()[1])
        client.start()
        listener.accept()[0].close()
        client.join(20)
    assert client.error is None
    assert client.count == 0


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No server answers"):
        serve(crystal(), PairModel(), unix=name(tmp_path))
    with pytest.raises(ConfigError, match="No server answers"):
        serve(crystal(), PairModel(), port=1)
    with pytest.raises(ConfigError, match="give one of them"):
        serve(crystal(), PairModel(), port=31415, unix="x")
    with pytest.raises(StructureError, match="trained with the total charge"):
        serve(crystal(), Charged(), unix="x")
    charged = crystal()
    charged.info["charge"] = 1
    with pytest.raises(ConfigError, match="No server answers"):
        serve(charged, Charged(), unix=name(tmp_path))
    with pytest.raises(StructureError, match="says charge 1, the calculation was asked for with charge 0"):
        serve(charged, MLIPCalculator(Charged(), charge=0), unix=name(tmp_path))


def test_the_command_refuses_what_is_wrong(tmp_path: Path) -> None:
    write(tmp_path / "methane.xyz", molecule("CH4"))
    save_model(tmp_path / "model.safetensors", random_model(compose_model("nequip", "model.num_layers=1")))
    start = ["drive", "ipi", str(tmp_path / "methane.xyz"), "--model", str(tmp_path / "model.safetensors")]
    for options, message in (
        (["--unix", name(tmp_path)], "No server answers"),
        (["--unix", "x", "--port", "3000"], "give one of them"),
        (["--timeout", "0"], "more than 0"),
    ):
        result = CliRunner().invoke(app, [*start, *options])
        assert result.exit_code == 1
        assert message in result.stderr.replace("\n", " ")


INPUT = """<simulation verbosity='low'>
  <output prefix='out'>
    <properties stride='1' filename='p'> [ step, conserved{{electronvolt}}, potential{{electronvolt}},
      kinetic_md{{electronvolt}}, virial_md ] </properties>
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>1</seed></prng>
  <ffsocket mode='unix' name='model' pbc='false'><address>{socket}</address><latency>1e-4</latency></ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='xyz'> start.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces><force forcefield='model'/></forces>
    <motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'> 0.5 </timestep></dynamics></motion>
    <ensemble><temperature units='kelvin'> 300 </temperature></ensemble>
  </system>
</simulation>
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ipi") is None, reason="the extra 'ipi' is not installed")
def test_i_pi_runs_with_the_command(tmp_path: Path) -> None:
    atoms = bulk("C", "fcc", a=3.0, cubic=True)
    atoms.rattle(0.02, seed=1)
    save_model(tmp_path / "model.safetensors", random_model(compose_model("nequip", "model.num_layers=1"), size=0.1))
    write(tmp_path / "start.extxyz", atoms)
    cell = "# CELL(abcABC): 3.0 3.0 3.0 90 90 90 positions{angstrom} cell{angstrom}"
    rows = [f"C {x:.10f} {y:.10f} {z:.10f}" for x, y, z in atoms.positions]
    (tmp_path / "start.xyz").write_text("\n".join([str(len(atoms)), cell, *rows, ""]))
    (tmp_path / "input.xml").write_text(INPUT.format(steps=20, socket=name(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(repository_root())}
    options = {
        "cwd": tmp_path,
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    server = subprocess.Popen([sys.executable, Path(sys.executable).with_name("i-pi"), "input.xml"], **options)
    try:
        place = Path(f"/tmp/ipi_{name(tmp_path)}")
        for _ in range(300):
            if place.exists() or server.poll() is not None:
                break
            threading.Event().wait(0.1)
        command = [
            "-m",
            "mlip.cli",
            "drive",
            "ipi",
            "start.extxyz",
            "-m",
            "model.safetensors",
            "--unix",
            name(tmp_path),
        ]
        client = subprocess.run([sys.executable, *command], **options, timeout=120, check=False)
        printed = server.communicate(timeout=60)[0]
    finally:
        server.kill()
    assert client.returncode == 0, client.stdout + printed
    assert "has ended after 2" in client.stdout
    rows = np.loadtxt(tmp_path / "out.p")
    atoms.calc = MLIPCalculator(tmp_path / "model.safetensors", dtype="float64")
    assert rows[0, 2] == pytest.approx(atoms.get_potential_energy(), rel=2e-7)  # i-PI has its own Hartree
    assert np.ptp(rows[:, 1]) < 0.02 * rows[:, 3].mean()
    assert rows[0, 4:] == pytest.approx(
        -atoms.get_stress()[[0, 1, 2, 5, 4, 3]] / (HARTREE / BOHR**3), rel=1e-6, abs=1e-9
    )
