"""What ``mlip md`` shows and writes: progress, tables, files of one run or of several."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.calculators.ase import MLIPCalculator
    from mlip.simulate.ensembles import Ensemble
    from mlip.simulate.md_loop import Progress
    from mlip.simulate.md_summary import MDSummary


@dataclass(frozen=True)
class Command:
    """What the user asked for.

    Attributes:
        atoms: to start from.
        calculator: of the model.
        ensemble: to be sampled.
        steps: to end at.
        folder: for the results.
        restart: whether to continue what is there.
        labels: to head the summary.
        formats: further ones for the trajectory.
        options: of `run_md`.
    """

    atoms: "Atoms"
    calculator: "MLIPCalculator"
    ensemble: "Ensemble"
    steps: int
    folder: Path
    restart: bool
    labels: Mapping[str, Any]
    formats: Sequence[str]
    options: Mapping[str, Any]


def claim_runs(folder: Path, replicas: int, restart: bool, overwrite: bool) -> None:
    """Make sure that a folder has no runs that nobody asked to continue or to replace.

    Raises:
        SimulationError: it has, or another number of replicas than are to be continued.
    """
    from mlip.core.errors import SimulationError
    from mlip.simulate.md_replicas import other_number
    from mlip.simulate.output import claim_folder

    other = "replica_*/trajectory.traj" if replicas == 1 else "trajectory.traj"
    if any(folder.glob(other)):
        kind, wanted = ("replicas", "one run") if replicas == 1 else ("one run", f"{replicas} replicas")
        raise SimulationError(f"'{folder}' has {kind}, not {wanted}: choose another folder with --output.")
    advice = "continue it with --restart, replace it with --overwrite, or choose another folder with --output."
    marker = "trajectory.traj" if replicas == 1 else "replica_*/trajectory.traj"
    for there in [marker, *(str(path.relative_to(folder)) for path in sorted(folder.glob(marker)))]:
        claim_folder(folder, there, overwrite or restart, advice, "md")
    if restart and replicas > 1 and leftovers(folder, replicas):
        raise other_number(folder, len(_begun(folder)), replicas)


def leftovers(folder: Path, replicas: int) -> list[Path]:
    """Return the folders of replicas that are none of so many."""
    from mlip.simulate.md_replicas import replicas_in

    wanted = {replica.folder for replica in replicas_in(folder, replicas, 0)}
    return [path for path in _begun(folder) if path not in wanted]


def _begun(folder: Path) -> list[Path]:
    from mlip.simulate.md_folder import has_run

    return [path for path in sorted(folder.glob("replica_*")) if has_run(path)]


def refuse_finished(folder: Path, replicas: int, steps: int, formats: Sequence[str]) -> None:
    """Refuse to continue runs of which nothing is left to compute or to write.

    One that was killed after its last step still has results to be written, and is let through.

    Args:
        folder: of the run.
        replicas: how many runs it should have.
        steps: to end at.
        formats: further ones for the trajectory.

    Raises:
        SimulationError: says to ask for more steps.
    """
    import json

    from mlip.core.errors import SimulationError
    from mlip.simulate.export import SUFFIXES
    from mlip.simulate.md_checkpoint import read_checkpoint
    from mlip.simulate.md_folder import CHECKPOINT

    runs = [folder] if replicas == 1 else sorted(folder.glob("replica_*"))
    names = ["summary.json", *(f"trajectory.{SUFFIXES[name]}" for name in formats)]
    wanted = [folder / names[0], *(run / name for run in runs for name in names)]
    if len(runs) < replicas or not all(path.is_file() for path in wanted):
        return
    try:
        last = min(int(json.loads((run / "summary.json").read_text(encoding="utf-8"))["last_step"]) for run in runs)
    except (ValueError, LookupError, TypeError):
        return  # Not a summary of ours: it is written anew.
    # The summary may be that of an earlier run.
    paths = [run / CHECKPOINT for run in runs]
    last = min([last, *(read_checkpoint(path).step for path in paths if path.is_file())])
    if last >= steps:
        raise SimulationError(
            f"The run in '{folder}' is already at step {last} and was asked to end at step {steps}: ask for more steps "
            "to continue it."
        )


def run_one(command: Command, seed: int) -> None:
    """Run once, write everything and print a table.

    Raises:
        SimulationError: see `run_md`.
    """
    from mlip.simulate.md import run_md
    from mlip.simulate.md_folder import CHECKPOINT, THERMO, TRAJECTORY, clear_results
    from mlip.simulate.md_start import MDFiles
    from mlip.simulate.selection import SELECTED

    console, folder, said = Console(), command.folder, []
    notify = _notifier(console, said)
    files = MDFiles(
        folder / TRAJECTORY,
        folder / THERMO,
        command.restart,
        folder / CHECKPOINT,
        selected=folder / SELECTED,
        clear=lambda: clear_results(folder),
    )
    with _progress_bar(console, command.options["timestep"], 1) as report:
        summary = run_md(
            command.atoms,
            command.calculator,
            command.ensemble,
            command.steps,
            seed=seed,
            files=files,
            callback=lambda state: report(0, state),
            notify=notify,
            **command.options,
        )
    _write(command, folder, summary)
    _show(summary, folder, console, said)
    _say_selected(command, console)


def run_several(command: Command, number: int, seed: int) -> None:
    """Run replicas, write everything of each one and print what they agree on.

    Raises:
        SimulationInterrupted: the user pressed Ctrl-C.
        Exit: a replica failed; the others went on.
    """
    from dataclasses import asdict

    from rich.table import Table

    from mlip.core.errors import SimulationInterrupted
    from mlip.simulate.md_replicas import ReplicaAverages, replicas_in, run_replicas
    from mlip.simulate.output import write_summary
    from mlip.simulate.select_frames import merge_selections
    from mlip.simulate.selection import SELECTED

    console = Console()
    notify = _notifier(console, [])
    replicas = replicas_in(command.folder, number, seed)
    try:
        with _progress_bar(console, command.options["timestep"], number) as report:
            outcomes = run_replicas(
                command.atoms,
                command.calculator,
                command.ensemble,
                command.steps,
                replicas,
                restart=command.restart,
                callback=report,
                leftovers=[*leftovers(command.folder, number), command.folder],
                notify=notify,
                **command.options,
            )
    except KeyboardInterrupt as stop:
        raise SimulationInterrupted(
            f"MD of {number} replicas was stopped by the user; their files are in '{command.folder}'. Go on with "
            "--restart, from the last checkpoint."
        ) from stop
    done = [outcome for outcome in outcomes if outcome.value is not None]
    failed = {replicas[outcome.number].folder.name: str(outcome.error) for outcome in outcomes if outcome.error}
    for outcome in done:
        _write(command, replicas[outcome.number].folder, outcome.value)
    table = Table(title=f"{len(done)} replicas of {command.atoms.get_chemical_formula()}, {command.ensemble.name}")
    for name in ("replica", "seed", "T / K", "± / K", "drift / meV/atom/ps"):
        table.add_column(name, justify="right")
    for outcome in done:
        one, replica = outcome.value, replicas[outcome.number]
        drift = "–" if one.drift is None else f"{one.drift:.4g}"
        spread = f"{one.temperature_std:.1f}"
        table.add_row(replica.folder.name, str(replica.seed), f"{one.temperature_mean:.1f}", spread, drift)
    console.print(table)
    if command.options["select"]:
        files = [replica.folder / SELECTED for replica in replicas]
        merge_selections(command.folder, files, command.options["select"])
    averages = asdict(ReplicaAverages.of([outcome.value for outcome in done])) if done else {}
    values = {**command.labels, "replicas": number, "averages_and_errors": averages, "failed": failed}
    write_summary(command.folder / "summary.json", values)
    console.print(f"Results are in {command.folder}", soft_wrap=True)
    _say_selected(command, console)
    for name, error in failed.items():
        console.print(f"[red]{name}:[/red]", error, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _notifier(console: Console, said: list[str]) -> Callable[[str], None]:
    """Return what prints a note at once, but not what has been said: replicas have the same to say."""

    def notify(note: str) -> None:
        if note not in said:
            said.append(note)
            console.print(f"[yellow]Note:[/yellow] {note}", soft_wrap=True)

    return notify


def _say_selected(command: Command, console: Console) -> None:
    from mlip.simulate.selection import SELECTED

    path = command.folder / SELECTED
    if command.options["select"]:
        found = f"Structures to label are in {path}" if path.is_file() else "No structure was worth labelling."
        console.print(found, soft_wrap=True)


def _write(command: Command, folder: Path, summary: "MDSummary") -> None:
    from mlip.simulate.export import SUFFIXES, export_trajectory
    from mlip.simulate.output import write_summary
    from mlip.simulate.plots import plot_md
    from mlip.simulate.structures import write_final_structure
    from mlip.simulate.thermo import read_thermo

    write_final_structure(folder, summary.atoms)
    write_summary(folder / "summary.json", {**command.labels, **summary.as_dict()})
    title = f"{summary.atoms.get_chemical_formula()}, {summary.ensemble}"
    plot_md(folder / "md.png", read_thermo(folder / "thermo.csv"), len(summary.atoms), title)
    for name in command.formats:
        export_trajectory(folder / "trajectory.traj", folder / f"trajectory.{SUFFIXES[name]}")


@contextmanager
def _progress_bar(console: Console, timestep: float, number: int) -> "Iterator[Callable[[int, Progress], None]]":
    """Show a bar with time left and speed; yields what is to be called with a replica after every step of it."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("first step", total=None)
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        began = time.perf_counter()

        def report(which: int, state: "Progress") -> None:
            first.setdefault(which, state.step)
            last[which] = state.step
            done, seconds = sum(last.values()) - sum(first.values()), time.perf_counter() - began
            speed = f"{done * timestep * 1e-6 / seconds * 86400:.3g} ns/day" if done else ""
            text = f"{state.temperature:.0f} K  {state.potential:.3f} eV  {speed}"
            bar.update(task, completed=sum(last.values()), total=state.total * number, description=text)

        yield report


def _show(summary: "MDSummary", folder: Path, console: Console, said: Sequence[str]) -> None:
    """Print the table of an MD run, and the notes that were not printed before."""
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
    table.add_row("speed / ns/day", f"{summary.ns_per_day:.3g}" if summary.ns_per_day else "–")
    console.print(table)
    for note in (note for note in summary.notes if note not in said):
        console.print(f"[yellow]Note:[/yellow] {note}")
    console.print(f"Results are in {folder}", soft_wrap=True)
