"""``mlip md``: molecular dynamics with a model."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.kernels import CHOICE_HELP, KernelChoice

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.simulate.ensembles import Ensemble
    from mlip.simulate.md_loop import Progress
    from mlip.simulate.md_summary import MDSummary


class EnsembleName(StrEnum):
    """What is kept constant."""

    nve = "nve"
    nvt = "nvt"
    npt = "npt"


class ThermostatName(StrEnum):
    """How the temperature is kept in NVT."""

    langevin = "langevin"
    bussi = "bussi"
    nose_hoover = "nose-hoover"


def md(
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads: CIF, POSCAR, xyz, traj, …")],
    model: Annotated[
        list[Path],
        typer.Option("--model", "-m", help="Model file, or the name of an imported model; several are a committee."),
    ],
    ensemble: Annotated[EnsembleName, typer.Option(help="What is kept constant.")] = EnsembleName.nvt,
    temperature: Annotated[float, typer.Option(help="K; with nve of the starting velocities only.")] = 300.0,
    steps: Annotated[int, typer.Option(help="Step to end at, counted from the start of the first run.")] = 10_000,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    thermostat: Annotated[ThermostatName | None, typer.Option(help="For nvt.  [default: langevin]")] = None,
    friction: Annotated[float | None, typer.Option(help="Of Langevin, 1/ps.  [default: 10]")] = None,
    thermostat_time: Annotated[
        float | None, typer.Option(help="Time constant of Bussi, Nosé–Hoover and npt, fs.  [default: 100]")
    ] = None,
    pressure: Annotated[float | None, typer.Option(help="For npt, GPa.  [default: 0]")] = None,
    barostat_time: Annotated[float | None, typer.Option(help="For npt, fs.  [default: 1000]")] = None,
    seed: Annotated[int, typer.Option(help="Of velocities and noise.", min=0)] = 0,
    log_interval: Annotated[int, typer.Option(help="Steps between lines of thermo.csv.")] = 10,
    frame_interval: Annotated[int, typer.Option(help="Steps between frames of the trajectory.")] = 10,
    keep_velocities: Annotated[
        bool, typer.Option("--keep-velocities", help="Start from the velocities in the file.")
    ] = False,
    frame: Annotated[int, typer.Option(help="Frame of a file with several structures; -1 is the last.")] = -1,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: md_STRUCTURE]")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Continue the run in the output folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    charge: Annotated[
        int | None, typer.Option(help="Total charge in e, for a model that reads it; or charge=… in the extxyz file.")
    ] = None,
    spin: Annotated[int | None, typer.Option(help="Multiplicity 2S + 1, likewise.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the model's]")] = None,
    skin: Annotated[float, typer.Option(help="Width in Å by which the neighbour list is reused; 0: never.")] = 0.5,
    kernels: Annotated[KernelChoice | None, typer.Option(help=CHOICE_HELP)] = None,
) -> None:
    """Run molecular dynamics: NVE, NVT or NPT.

    Example: mlip md ethanol.xyz --model runs/ethanol/model.safetensors --temperature 300 --steps 10000

    Writes trajectory.traj (positions, momenta, energies, forces), thermo.csv, final.xyz, summary.json and
    md.png
    into the output folder, and prints a table with the energy drift. A run that was stopped goes on with the
    same command and --restart; a finished one is made longer with --restart and a larger --steps.
    """
    from mlip.core.errors import SimulationError
    from mlip.models.names import existing_model

    if restart and overwrite:
        raise SimulationError("--restart continues a run and --overwrite replaces it: give one of them.")
    options = {
        "friction": friction,
        "time_constant": thermostat_time,
        "pressure": pressure,
        "barostat_time": barostat_time,
    }
    chosen = choose_ensemble(ensemble, thermostat, temperature, options)
    # Before torch is imported, which takes seconds.
    for path in model:
        existing_model(path)

    from mlip.simulate.structures import read_structure, write_final_structure

    atoms = read_structure(structure, frame)

    from rich.console import Console

    from mlip.calculators.ase import MLIPCalculator
    from mlip.calculators.committee import named
    from mlip.simulate.md import MDFiles, run_md
    from mlip.simulate.output import claim_folder, write_summary
    from mlip.simulate.plots import plot_md
    from mlip.simulate.thermo import read_thermo

    calculator = MLIPCalculator(
        model, device=device, dtype=dtype, skin=skin, charge=charge, spin=spin, kernels=kernels and kernels.value
    )
    # Into the files of the results, too; what the file states otherwise is an error of the calculator.
    for name, value in calculator.given.items():
        atoms.info.setdefault(name, value)
    advice = "continue it with --restart, replace it with --overwrite, or choose another folder with --output."
    folder = claim_folder(output or Path(f"md_{structure.stem}"), "trajectory.traj", overwrite or restart, advice)
    files = MDFiles(folder / "trajectory.traj", folder / "thermo.csv", restart)
    console = Console()
    with _progress_bar(console, timestep) as report:
        summary = run_md(
            atoms,
            calculator,
            chosen,
            steps,
            timestep=timestep,
            seed=seed,
            files=files,
            log_interval=log_interval,
            frame_interval=frame_interval,
            keep_velocities=keep_velocities,
            callback=report,
        )
    write_final_structure(folder, summary.atoms)
    write_summary(folder / "summary.json", {"structure": str(structure), "model": named(model), **summary.as_dict()})
    title = f"{summary.atoms.get_chemical_formula()}, {summary.ensemble}"
    plot_md(folder / "md.png", read_thermo(folder / "thermo.csv"), len(summary.atoms), title)
    _show(summary, folder, console)


def choose_ensemble(
    ensemble: EnsembleName,
    thermostat: ThermostatName | None,
    temperature: float,
    options: Mapping[str, float | None],
) -> "Ensemble":
    """Turn the names on the command line into an ensemble.

    Args:
        ensemble: nve, nvt or npt.
        thermostat: for nvt; None is Langevin.
        temperature: K.
        options: further parameters of the ensembles by attribute name; None where the user gave none.

    Raises:
        SimulationError: an option was given that has no effect with this ensemble.
    """
    from mlip.core.errors import SimulationError
    from mlip.simulate import ensembles

    if thermostat is not None and ensemble is not EnsembleName.nvt:
        raise SimulationError(f"--thermostat is for --ensemble nvt, it has no effect with {ensemble}: leave it out.")
    kinds = {
        EnsembleName.nve: ensembles.NVE,
        EnsembleName.npt: ensembles.IsotropicNPT,
        ThermostatName.langevin: ensembles.LangevinNVT,
        ThermostatName.bussi: ensembles.BussiNVT,
        ThermostatName.nose_hoover: ensembles.NoseHooverNVT,
    }
    name = (thermostat or ThermostatName.langevin) if ensemble is EnsembleName.nvt else ensemble
    kind = kinds[name]
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in kind.__dataclass_fields__:
            flag = {"time_constant": "thermostat-time"}.get(option, option).replace("_", "-")
            raise SimulationError(f"--{flag} has no effect with {name}: leave it out.")
    return kind(temperature=temperature, **given)


@contextmanager
def _progress_bar(console: "Console", timestep: float) -> "Iterator[Callable[[Progress], None]]":
    """Show a bar with time left and speed; yields what is to be called after every step."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("first step", total=None)
        first: list[tuple[int, float]] = []

        def report(state: "Progress") -> None:
            now = time.perf_counter()
            if not first:
                first.append((state.step, now))
            done, seconds = state.step - first[0][0], now - first[0][1]
            speed = f"{done * timestep * 1e-6 / seconds * 86400:.3g} ns/day" if done else ""
            text = f"{state.temperature:.0f} K  {state.potential:.3f} eV  {speed}"
            bar.update(task, completed=state.step, total=state.total, description=text)

        yield report


def _show(summary: "MDSummary", folder: Path, console: "Console") -> None:
    """Print the table of an MD run."""
    from rich.table import Table

    table = Table(title=f"{summary.atoms.get_chemical_formula()}, {summary.ensemble}")
    table.add_column("")
    table.add_column("", justify="right")
    length = (summary.last_step - summary.first_step) * summary.timestep / 1000
    table.add_row("steps", f"{summary.first_step} – {summary.last_step} ({length:g} ps)")
    table.add_row("temperature / K", f"{summary.temperature_mean:.1f} ± {summary.temperature_std:.1f}")
    if summary.pressure_mean is not None:
        table.add_row("mean pressure / GPa", f"{summary.pressure_mean:.3f}")
        table.add_row("mean volume / Å³", f"{summary.volume_mean:.3f}")
    if summary.energy_std_mean is not None and summary.forces_std_max is not None:
        table.add_row("mean energy spread / eV", f"{summary.energy_std_mean:.4f}")
        table.add_row("largest force spread / eV/Å", f"{summary.forces_std_max:.4f}")
    drift = "–" if summary.drift is None else f"{summary.drift:.4g}"
    table.add_row("energy drift / meV/atom/ps", drift)
    table.add_row("  drift of", summary.drift_of)
    table.add_row("speed / ns/day", f"{summary.ns_per_day:.3g}")
    console.print(table)
    for note in summary.notes:
        console.print(f"[yellow]Note:[/yellow] {note}")
    console.print(f"Results are in {folder}", soft_wrap=True)
