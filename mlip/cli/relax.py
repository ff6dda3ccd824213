"""``mlip relax``: relax a structure, or many, with a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.kernels import CHOICE_HELP, KernelChoice

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.calculators.ase import MLIPCalculator
    from mlip.simulate.inputs import InputStructure
    from mlip.simulate.relax_result import RelaxationResult, RelaxOptions


def relax(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files that ASE reads (CIF, POSCAR, xyz, traj, db, …), pymatgen JSON, folders, stores, 'pattern*.cif'."
        ),
    ],
    model: Annotated[
        list[Path],
        typer.Option("--model", "-m", help="Model file, or the name of an imported model; several are a committee."),
    ],
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too (periodic directions only).")] = False,
    fix_volume: Annotated[bool, typer.Option("--fix-volume", help="The shape of the cell only, with --cell.")] = False,
    pressure: Annotated[float, typer.Option(help="Target pressure in GPa, with --cell.")] = 0.0,
    keep_symmetry: Annotated[
        bool, typer.Option("--keep-symmetry", help="Refine the symmetry of the input and keep its space group.")
    ] = False,
    refine_symmetry: Annotated[
        bool, typer.Option("--refine-symmetry", help="Refine the symmetry of the input only.")
    ] = False,
    symprec: Annotated[float, typer.Option(help="Å by which atoms may be off their symmetric places.")] = 0.01,
    fmax: Annotated[float, typer.Option(help="Stop when the largest force is below, eV/Å.")] = 0.05,
    steps: Annotated[int, typer.Option(help="Give up after this many steps.")] = 500,
    optimizer: Annotated[
        str,
        typer.Option(
            help="FIRE (robust), LBFGS (fast near a minimum), BFGS, FIRE2, BFGSLineSearch, PreconLBFGS, PreconFIRE."
        ),
    ] = "FIRE",
    frame: Annotated[
        int | None, typer.Option(help="Only this frame of every file; -1 is the last.  [default: all]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: relax_INPUT]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Go on with many structures where a run of the same command stopped.")
    ] = False,
    cif: Annotated[bool, typer.Option("--cif", help="Of many structures: also write every crystal as CIF.")] = False,
    batch_atoms: Annotated[
        int, typer.Option(min=1, help="Of many structures: atoms that are evaluated at once.")
    ] = 1000,
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
    """Relax the positions of structures, or their cells too.

    \b
    mlip relax silicon.cif --model runs/si/model.safetensors --cell --fmax 0.01
    mlip relax 'candidates/*.cif' more.extxyz --model sevennet-0 --cell --output relaxed

    Of one structure it writes trajectory.traj (every step), final.xyz (and final.cif, final.vasp for crystals),
    summary.json and relaxation.png into the output folder, and prints a table.

    Many are relaxed side by side: results.csv, relaxed.xyz, summary.json, summary.png, and relaxed.jsonl, to which
    every structure is added as it ends. What cannot be read or relaxed is reported, and the rest goes on; the exit
    status is 1 in the end if there was any.
    """
    from mlip.models.names import existing_model

    # Before torch is imported, which takes seconds.
    for path in model:
        existing_model(path)

    from mlip.cli.relax_many import default_folder, read_all, run_many
    from mlip.core.errors import ConfigError
    from mlip.simulate.relax_result import RelaxOptions

    options = RelaxOptions(optimizer, fmax, steps, cell, fix_volume, pressure, keep_symmetry, refine_symmetry, symprec)
    if restart and overwrite:
        raise ConfigError("--restart goes on with a run and --overwrite replaces it: give one of them.")
    structures = read_all(inputs, frame)

    from mlip.calculators.ase import MLIPCalculator

    folder = output or default_folder(inputs)
    calculator = MLIPCalculator(
        model, device=device, dtype=dtype, skin=skin, charge=charge, spin=spin, kernels=kernels and kernels.value
    )
    # Into the files of the results, too; what the file states otherwise is an error of the calculator.
    for name, value in calculator.given.items():
        for one in structures:
            if one.atoms is not None:
                one.atoms.info.setdefault(name, value)
    if len(structures) == 1 and not restart:
        _run_one(structures[0], calculator, options, model, folder, overwrite)
    else:
        run_many(structures, calculator, options, model, folder, overwrite, restart, cif, batch_atoms)


def _run_one(
    structure: "InputStructure",
    calculator: "MLIPCalculator",
    options: "RelaxOptions",
    model: list[Path],
    folder: Path,
    overwrite: bool,
) -> None:
    """Relax one structure and write every step of it."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mlip.calculators.committee import named
    from mlip.simulate.journal import remove_journal
    from mlip.simulate.output import claim_folder, write_summary
    from mlip.simulate.plots import plot_relaxation
    from mlip.simulate.relax import RelaxationStep
    from mlip.simulate.relax import relax as run
    from mlip.simulate.relax_output import remove_results
    from mlip.simulate.relax_records import RECORDS
    from mlip.simulate.structures import write_final_structure

    advice = "choose another folder with --output, or replace it with --overwrite."
    for marker in ("trajectory.traj", RECORDS):
        claim_folder(folder, marker, overwrite, advice, "relax")
    if overwrite:
        # At once: if this run fails, nothing of an earlier one may stand beside what it leaves.
        remove_journal(folder, RECORDS)
        remove_results(folder)
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("first step", total=None)

        def report(step: RelaxationStep) -> None:
            text = f"step {step.step}  E {step.energy:.4f} eV  fmax {step.fmax:.4f} eV/Å"
            progress.update(task, description=text)

        result = run(
            structure.atoms, calculator, **asdict(options), trajectory=folder / "trajectory.traj", callback=report
        )
    write_final_structure(folder, result.atoms)
    write_summary(folder / "summary.json", {"structure": structure.name, "model": named(model), **result.as_dict()})
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
    if result.space_groups[0] is not None:
        table.add_row("space group", *("–" if group is None else str(group) for group in result.space_groups))
    table.add_row("converged", "", "[green]yes[/green]" if result.converged else "[red]no[/red]")
    console.print(table)
    for warning in result.warnings:
        console.print(f"[yellow]Warning:[/yellow] {warning}")
    console.print(f"Results are in {folder}", soft_wrap=True)
