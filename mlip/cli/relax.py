"""``mlip relax``: relax a structure with a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.kernels import CHOICE_HELP, KernelChoice

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.simulate.relax import RelaxationResult


def relax(
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads: CIF, POSCAR, xyz, traj, …")],
    model: Annotated[
        list[Path],
        typer.Option("--model", "-m", help="Model file, or the name of an imported model; several are a committee."),
    ],
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too (periodic directions only).")] = False,
    pressure: Annotated[float, typer.Option(help="Target pressure in GPa, with --cell.")] = 0.0,
    fmax: Annotated[float, typer.Option(help="Stop when the largest force is below, eV/Å.")] = 0.05,
    steps: Annotated[int, typer.Option(help="Give up after this many steps.")] = 500,
    optimizer: Annotated[str, typer.Option(help="FIRE (robust), LBFGS (fast near a minimum) or BFGS.")] = "FIRE",
    frame: Annotated[int, typer.Option(help="Frame of a file with several structures; -1 is the last.")] = -1,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: relax_STRUCTURE]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
    charge: Annotated[
        int | None, typer.Option(help="Total charge in e, for a model that reads it; or charge=… in the extxyz file.")
    ] = None,
    spin: Annotated[int | None, typer.Option(help="Multiplicity 2S + 1, likewise.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or float64; use float64 for fmax below 1e-3.  [default: the model's]"),
    ] = None,
    skin: Annotated[float, typer.Option(help="Width in Å by which the neighbour list is reused; 0: never.")] = 0.5,
    kernels: Annotated[KernelChoice | None, typer.Option(help=CHOICE_HELP)] = None,
) -> None:
    """Relax the positions of a structure, or its cell too.

    Example: mlip relax silicon.cif --model runs/si/model.safetensors --cell --fmax 0.01

    Writes trajectory.traj (every step), final.xyz (and final.cif, final.vasp for crystals), summary.json and
    relaxation.png into the output folder, and prints a table.
    """
    from mlip.models.names import existing_model

    # Before torch is imported, which takes seconds.
    for path in model:
        existing_model(path)

    from mlip.simulate.structures import read_structure, write_final_structure

    atoms = read_structure(structure, frame)

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mlip.calculators.ase import MLIPCalculator
    from mlip.calculators.committee import named
    from mlip.simulate.output import claim_folder, write_summary
    from mlip.simulate.plots import plot_relaxation
    from mlip.simulate.relax import RelaxationStep
    from mlip.simulate.relax import relax as run

    calculator = MLIPCalculator(
        model, device=device, dtype=dtype, skin=skin, charge=charge, spin=spin, kernels=kernels and kernels.value
    )
    # Into the files of the results, too; what the file states otherwise is an error of the calculator.
    for name, value in calculator.given.items():
        atoms.info.setdefault(name, value)
    folder = claim_folder(
        output or Path(f"relax_{structure.stem}"),
        "trajectory.traj",
        overwrite,
        "choose another folder with --output, or replace it with --overwrite.",
    )
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("first step", total=None)

        def report(step: RelaxationStep) -> None:
            text = f"step {step.step}  E {step.energy:.4f} eV  fmax {step.fmax:.4f} eV/Å"
            progress.update(task, description=text)

        result = run(
            atoms,
            calculator,
            optimizer=optimizer,
            fmax=fmax,
            max_steps=steps,
            relax_cell=cell,
            pressure=pressure,
            trajectory=folder / "trajectory.traj",
            callback=report,
        )
    write_final_structure(folder, result.atoms)
    write_summary(folder / "summary.json", {"structure": str(structure), "model": named(model), **result.as_dict()})
    plot_relaxation(folder / "relaxation.png", result)
    _show(result, folder, console)


def _show(result: "RelaxationResult", folder: Path, console: "Console") -> None:
    """Print the table of a relaxation."""
    from rich.table import Table

    from mlip.core.units import GPA

    before, after = result.before, result.after
    table = Table(title=f"{result.atoms.get_chemical_formula()}, {result.optimizer}, {result.steps} steps")
    for name in ("", "start", "final"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("energy / eV", f"{before.energy:.6f}", f"{after.energy:.6f}")
    table.add_row("energy change / meV/atom", "", f"{1000 * (after.energy - before.energy) / len(result.atoms):.3f}")
    table.add_row("largest force / eV/Å", f"{before.fmax:.5f}", f"{after.fmax:.5f}")
    if before.stress_max is not None and after.stress_max is not None:
        table.add_row("largest stress / GPa", f"{before.stress_max / GPA:.4f}", f"{after.stress_max / GPA:.4f}")
    if before.energy_std is not None and after.energy_std is not None:
        table.add_row("energy spread / eV", f"{before.energy_std:.4f}", f"{after.energy_std:.4f}")
    if before.forces_std is not None and after.forces_std is not None:
        table.add_row("largest force spread / eV/Å", f"{before.forces_std:.4f}", f"{after.forces_std:.4f}")
    if before.volume is not None and after.volume is not None:
        change = f"{after.volume:.3f} ({100 * (result.volume_change or 0):+.2f} %)"
        table.add_row("volume / Å³", f"{before.volume:.3f}", change)
    table.add_row("converged", "", "[green]yes[/green]" if result.converged else "[red]no[/red]")
    console.print(table)
    for warning in result.warnings:
        console.print(f"[yellow]Warning:[/yellow] {warning}")
    console.print(f"Results are in {folder}", soft_wrap=True)
