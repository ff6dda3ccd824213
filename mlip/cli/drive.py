"""``mlip drive``: a model as the engine of another program."""

from pathlib import Path
from typing import Annotated

import typer

from mlip.cli import properties as common

drive = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Give energies and forces to another program (i-PI)."
)


@drive.callback()
def root() -> None:
    """Give energies and forces to another program (i-PI).

    LAMMPS, OpenMM and torch-sim are driven from Python, see docs/drivers.md.
    """


@drive.command()
def ipi(
    structure: Annotated[
        Path, typer.Argument(help="The structure the server started from: elements in its order, pbc.")
    ],
    model: common.Models,
    address: Annotated[str, typer.Option(help="Host name of the server.")] = "localhost",
    port: Annotated[int | None, typer.Option(help="Its port.  [default: 31415]", min=1, max=65535)] = None,
    unix: Annotated[
        str | None, typer.Option(help="Name of its unix socket instead, as in the input of i-PI: without /tmp/ipi_.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait for a message of the server.  [default: for ever]")
    ] = None,
    frame: common.Frame = -1,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the model's]")] = None,
) -> None:
    """Compute forces for i-PI, or another server of its protocol, until it ends.

    Example: mlip drive ipi water.xyz --model runs/water/model.safetensors --unix water
    """
    from mlip.core.errors import ConfigError

    if timeout is not None and not timeout > 0:
        raise ConfigError(f"--timeout must be more than 0 seconds, got {timeout}.")
    common.check_models(model)

    from mlip.simulate.structures import read_structure

    atoms = read_structure(structure, frame)

    from mlip.calculators.ase import MLIPCalculator
    from mlip.drivers.ipi import serve

    calculator = MLIPCalculator(model, device=device, dtype=dtype, charge=charge, spin=spin)
    count = serve(atoms, calculator, address=address, port=port, unix=unix, timeout=timeout)
    typer.echo(f"The server has ended after {count} evaluations.")
