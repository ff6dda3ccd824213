"""What the commands of properties have in common: options, the model, the output folder, the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.calculators.ase import MLIPCalculator

Structure = Annotated[Path, typer.Argument(help="Any file that ASE reads: CIF, POSCAR, xyz, traj, …")]
Models = Annotated[
    list[Path],
    typer.Option("--model", "-m", help="Model file, or the name of an imported model; several are a committee."),
]
Frame = Annotated[int, typer.Option(help="Frame of a file with several structures; -1 is the last.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the results.  [default: PROPERTY_STRUCTURE]")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")]
Relax = Annotated[bool, typer.Option("--relax", help="Relax positions and cell first.")]
Fmax = Annotated[float, typer.Option(help="Relax until the largest force is below, eV/Å.")]
Steps = Annotated[int, typer.Option(help="Give up a relaxation after this many steps.")]
Charge = Annotated[int | None, typer.Option(help="Total charge in e, for a model that reads it.")]
Spin = Annotated[int | None, typer.Option(help="Multiplicity 2S + 1, likewise.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option(help="float64, or float32: half the time, too coarse for small differences.")]


def check_models(models: Sequence[Path]) -> None:
    """Refuse a model that is not there before torch is imported, which takes seconds."""
    from mlip.models.names import existing_model

    for path in models:
        existing_model(path)


def claim(output: Path | None, default: str, marker: str, overwrite: bool) -> Path:
    """Return the folder of the results, which must not hold those of an earlier run."""
    from mlip.simulate.output import claim_folder

    advice = "choose another folder with --output, or replace it with --overwrite."
    return claim_folder(output or Path(default), marker, overwrite, advice)


def open_calculator(
    models: Sequence[Path], device: str, dtype: str, charge: int | None, spin: int | None, atoms: Sequence[Atoms]
) -> MLIPCalculator:
    """Load the model; structures that state no charge and spin get those given."""
    from mlip.calculators.ase import MLIPCalculator

    calculator = MLIPCalculator(models, device=device, dtype=dtype, charge=charge, spin=spin)
    for structure in atoms:
        for name, value in calculator.given.items():
            structure.info.setdefault(name, value)
    return calculator


def state(structures: Sequence[Atoms], calculator: MLIPCalculator, **given: Sequence[int] | None) -> None:
    """Write charges or multiplicities into the ``info`` of structures.

    Args:
        structures: of which each gets its own.
        calculator: of the model that is to read them.
        given: by name, a value for each structure; None for what is not given.

    Raises:
        ConfigError: the model does not read them.
        StructureError: a file says something else.
    """
    from mlip.calculators.structure_checks import given_inputs
    from mlip.core.errors import StructureError

    for name, values in given.items():
        if values is None:
            continue
        given_inputs(calculator.model, **{name: values[0]})
        for atoms, value in zip(structures, values, strict=True):
            if atoms.info.setdefault(name, value) != value:
                raise StructureError(
                    f"{atoms.get_chemical_formula()} says {name} {atoms.info[name]} in its file, and --{name} {value}: "
                    "give one of them."
                )


def record(folder: Path, name: str, models: Sequence[Path], values: Mapping[str, Any], **more: object) -> None:
    """Write the numbers of a result as JSON, with the model and the structures they belong to."""
    from mlip.calculators.committee import named
    from mlip.simulate.output import write_summary

    write_summary(folder / name, {**{key: str(value) for key, value in more.items()}, "model": named(models), **values})


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is of names."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, show_header=any(header))
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def show(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], warnings: Sequence[str], folder: Path
) -> None:
    """Print a table, the warnings and where the files are."""
    from rich.console import Console

    table(title, header, rows)
    console = Console()
    for warning in warnings:
        console.print(f"[yellow]Warning:[/yellow] {warning}", soft_wrap=True)
    console.print(f"Results are in {folder}", soft_wrap=True)
