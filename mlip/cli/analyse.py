"""``mlip analyse``: what the trajectory of an MD run tells."""

from pathlib import Path
from typing import Annotated

import typer

from mlip.cli.md import FormatName


def analyse(
    run: Annotated[Path, typer.Argument(help="Folder of mlip md, or a trajectory that ASE reads.")],
    skip: Annotated[float, typer.Option(help="Time at the start that is left out, fs.", min=0)] = 0.0,
    r_max: Annotated[
        float | None, typer.Option(help="Of radial distributions, Å.  [default: half the height of the cell]")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="fs between frames, for trajectories that do not state their times.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: RUN/analysis]")] = None,
    export: Annotated[
        list[FormatName] | None,
        typer.Option("--export", help="Also write trajectory.xyz (extxyz) or .h5 (h5md); of runs that go on, too."),
    ] = None,
) -> None:
    """Analyse a simulation: drift, diffusion, spectra.

    Example: mlip analyse md_ethanol --skip 1000

    Writes analysis.json and, as CSV and PNG, temperature and its distribution, rdf, msd, vacf, spectrum,
    bond_deviation and bonds; what is there from an earlier analysis is replaced.
    """
    from rich.console import Console
    from rich.table import Table

    from mlip.core.errors import ConfigError
    from mlip.simulate.analysis.report import analyse as examine
    from mlip.simulate.analysis.report import write_analysis
    from mlip.simulate.export import SUFFIXES, export_trajectory

    for name, value in (("r-max", r_max), ("interval", interval)):
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} must be a positive number, got {value}.")
    found = examine(run, skip, r_max, interval)
    folder = output or (run / "analysis" if run.is_dir() else run.with_name(f"{run.stem}_analysis"))
    write_analysis(folder, found)
    for one in export or []:
        source = run / "trajectory.traj" if run.is_dir() else run
        export_trajectory(source, folder / f"trajectory.{SUFFIXES[one.value]}")
    console = Console()
    table = Table(title=f"{run}: {len(found.motion.time)} frames, every {found.motion.interval:g} fs")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in found.as_dict().items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4g}")
    for symbol, one in found.as_dict()["diffusion_cm2_per_s"].items():
        error = "" if one["error"] is None else f" ± {one['error']:.1e}"
        table.add_row(f"diffusion of {symbol} / cm²/s", f"{one['value']:.3e}{error}")
    console.print(table)
    for note in found.notes:
        console.print(f"[yellow]Note:[/yellow] {note}")
    console.print(f"Results are in {folder}", soft_wrap=True)
