"""``mlip select``: the structures that a committee is least sure of, out of those that are there."""

from pathlib import Path
from typing import Annotated

import typer


def select(
    frames: Annotated[list[Path], typer.Argument(help="Structures, in any files that ASE reads: traj, extxyz, …")],
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            "-m",
            "--committee",
            help="Model file; repeat for a committee.  [default: the spreads that MD has left in a trajectory]",
        ),
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", help="Structures to keep, at most.", min=1)] = 20,
    spacing: Annotated[float, typer.Option(help="fs between two of one run, at least.")] = 50.0,
    distance: Annotated[
        float, typer.Option(help="Å by which neighbours of the most uncertain atom differ, at least; 0: any.")
    ] = 0.1,
    above: Annotated[float, typer.Option(help="Only with a spread of a force above, eV/Å.")] = 0.0,
    below: Annotated[float, typer.Option(help="And below: what has exploded is no use.")] = 10.0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Extended XYZ.")] = Path("selected.extxyz"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
) -> None:
    """Choose the structures that are worth a label.

    \b
    mlip select md_ethanol/trajectory.traj -n 20
    mlip select lammps.extxyz --committee a.safetensors --committee b.safetensors --above 0.1

    The file has structures and their uncertainty, and no energies or forces: mlip data label computes these.
    mlip md --select does the same while it runs. What cannot be read is left out, and the exit status is 1.
    """
    from mlip.core.errors import SimulationError, StructureError
    from mlip.models.names import existing_model

    if output.exists() and not overwrite:
        raise SimulationError(f"'{output}' is there already: choose another --output, or replace it with --overwrite.")
    for path in model or []:
        existing_model(path)

    from mlip.simulate.inputs import read_inputs
    from mlip.simulate.select_frames import select_frames
    from mlip.simulate.selection import SelectOptions, write_selected

    options = SelectOptions(number, spacing, distance, above, below)
    calculator = None
    if model:
        from mlip.calculators.ase import MLIPCalculator

        calculator = MLIPCalculator(model, device=device)
    read = list(read_inputs(frames))
    found = [one for one in read if one.atoms is not None]
    problems = [one.error for one in read if one.atoms is None]
    if not found:
        raise StructureError(problems[0])
    chosen = select_frames(
        [one.atoms for one in found], options, calculator, [one.name for one in found], problems.append,
        # Replicas of one run, too, have a file each.
        [one.name.rpartition("#")[0] or one.name for one in found],
    )  # fmt: skip
    for problem in problems:
        typer.echo(f"Left out: {problem}", err=True)
    if not chosen:
        raise SimulationError(f"None of the {len(found)} structures was worth labelling; nothing was written.")
    write_selected(output, chosen)
    first, last = chosen[0].uncertainty, chosen[-1].uncertainty
    typer.echo(
        f"{len(chosen)} of {len(found)} structures, uncertain by {first:.3g} to {last:.3g} eV/Å, are in {output}"
    )
    if problems:
        raise typer.Exit(1)
