"""The ``mlip`` command. Modules with heavy imports import them inside their functions: help must be quick."""

import os
import sys
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mlip import __version__
from mlip.cli.analyse import analyse
from mlip.cli.bench import bench
from mlip.cli.committee import committee
from mlip.cli.compare import compare
from mlip.cli.data.app import data
from mlip.cli.defects import defects
from mlip.cli.doctor import doctor
from mlip.cli.drive import drive
from mlip.cli.elastic import elastic
from mlip.cli.eos import eos
from mlip.cli.evaluate import evaluate
from mlip.cli.hamiltonian import hamiltonian
from mlip.cli.hull import hull
from mlip.cli.import_model import import_model
from mlip.cli.info import info
from mlip.cli.kernels import kernels
from mlip.cli.md import md
from mlip.cli.neb import neb
from mlip.cli.phonons import phonons
from mlip.cli.profile import profile
from mlip.cli.relax import relax
from mlip.cli.screen import screen
from mlip.cli.select import select
from mlip.cli.splinify import splinify
from mlip.cli.tensor_products import tensor_products
from mlip.cli.train import train
from mlip.core.errors import MlipError, SimulationInterrupted, TrainingInterrupted
from mlip.core.memory import keep_freed_memory

REPORT = "This is a defect of mlip, not of your input: please report it with the lines above."
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class Commands(TyperGroup):
    """A group that turns errors of the user into one sentence and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except (TrainingInterrupted, SimulationInterrupted) as stop:
            _print(str(stop), "yellow")
            raise typer.Exit(INTERRUPTED) from stop
        except MlipError as error:
            _print(str(error), "red", "Error: ")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stop:
            _print("Stopped by Ctrl-C.", "yellow")
            raise typer.Exit(INTERRUPTED) from stop


def _print(text: str, style: str, prefix: str = "") -> None:
    from rich.console import Console
    from rich.text import Text

    # A Text is printed as it is: brackets in a message are no markup, and long paths are not broken.
    Console(stderr=True).print(Text(prefix + text, style=style), soft_wrap=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlip {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich would take the brackets of loss=[energy,forces] in a help text for markup.
    rich_markup_mode=None,
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Equivariant machine-learning potentials: train on DFT data, evaluate, relax, run molecular dynamics.

    \b
    First steps:
      mlip train experiment=ethanol            minutes, on the bundled data
      mlip train data.path=my.xyz name=my      your own extended XYZ file
      mlip evaluate runs/my/model.safetensors data=test.xyz
      mlip relax structure.cif --model runs/my/model.safetensors

    \b
    In Python, for ASE:
      from mlip import MLIPCalculator
      atoms.calc = MLIPCalculator("runs/my/model.safetensors")
    """
    keep_freed_memory()


for command in (train, compare, evaluate, relax, md, analyse, eos, elastic, phonons, neb, hull, screen):
    app.command()(command)
app.add_typer(defects, name="defects")
for command in (hamiltonian, doctor, info, splinify, committee, select, profile):
    app.command()(command)
app.command("import")(import_model)
app.add_typer(drive, name="drive")
app.add_typer(tensor_products, name="tensor-products")
app.add_typer(bench, name="bench")
app.add_typer(kernels, name="kernels")
app.add_typer(data, name="data")


def _report_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback as usual, and what to do with it."""
    sys.__excepthook__(kind, error, trace)
    if issubclass(kind, Exception):
        _print(REPORT, "red")


def main() -> None:
    """Run the command line; the entry point ``mlip``."""
    # Threads that spin while they wait slow each other down on a machine with other work: with two threads
    # on two busy cores a training step took three to four times as long as with this setting.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.excepthook = _report_defect
    # Calling the app itself would install Typer's own hook.
    typer.main.get_command(app)(prog_name="mlip")
