"""``mlip relax`` of many structures: reading, progress, records, results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from mlip.calculators.ase import MLIPCalculator
    from mlip.core.errors import MlipError
    from mlip.data.sample import Sample
    from mlip.simulate.inputs import InputStructure
    from mlip.simulate.relax_many import Relaxed
    from mlip.simulate.relax_records import Record, Records
    from mlip.simulate.relax_result import RelaxOptions
    from mlip.simulate.relax_table import RelaxedRow

SHOWN = 10
"""Failures and warnings that are printed; the table has all."""


def read_all(words: Sequence[str], frame: int | None) -> list[InputStructure]:
    """Read what the user names.

    Raises:
        StructureError: nothing of it is a structure.
    """
    from rich.console import Console

    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import StructureError
    from mlip.simulate.inputs import find_inputs, read_inputs

    paths, found = find_inputs(words), []
    with ProgressBar("reading", Console(stderr=True)) as progress:
        for done, path in enumerate(paths):
            found += read_inputs([path], frame, _other_formats)
            progress(done / len(paths), len(found))
    if not any(one.atoms is not None for one in found):
        first = found[0].error
        raise StructureError(first if len(found) == 1 else f"None of {len(found)} structures can be used: {first}")
    return found


def default_folder(words: Sequence[str], command: str = "relax") -> Path:
    """Return ``relax_INPUT`` after the only input, ``relax_structures`` after several."""
    name = Path(words[0].rstrip("/").translate({ord(sign): None for sign in "*?[]"})).stem if len(words) == 1 else ""
    return Path(f"{command}_{name.strip('._') or 'structures'}")


def run_many(
    structures: Sequence[InputStructure],
    calculator: MLIPCalculator,
    options: RelaxOptions,
    model: Sequence[Path],
    folder: Path,
    overwrite: bool,
    restart: bool,
    cif: bool,
    batch_atoms: int,
) -> None:
    """Relax structures side by side, each recorded as it ends.

    Raises:
        SimulationError: the folder holds results, or others than a restart needs.
        SimulationInterrupted: stopped by the user.
        typer.Exit: 1, after all, if one could not be read or relaxed.
    """
    from dataclasses import asdict

    from rich.console import Console

    from mlip.calculators.committee import named
    from mlip.core.errors import SimulationInterrupted
    from mlip.simulate.journal import hash_of_models
    from mlip.simulate.output import claim_folder
    from mlip.simulate.relax_output import remove_results, write_results
    from mlip.simulate.relax_records import RECORDS, Records, fingerprint

    advice = "go on with --restart, choose another folder with --output, or replace it with --overwrite."
    for marker in (RECORDS, "trajectory.traj"):
        claim_folder(folder, marker, overwrite or restart, advice, "relax")
    console = Console()
    dtype = str(calculator.model.dtype).removeprefix("torch.")
    prints = fingerprint(structures, options, f"{hash_of_models(model)} {dtype}")
    about = {"model": named(list(model)), "dtype": dtype, "options": asdict(options)}
    with Records(folder, prints, restart) as records:
        if overwrite:
            remove_results(folder, but=[RECORDS])
        if records.done:
            console.print(f"{len(records.done)} of {len(structures)} structures are done already.", highlight=False)
        started = time.monotonic()
        try:
            _relax(structures, calculator, options, records, batch_atoms, console)
        except KeyboardInterrupt as stop:
            write_results(folder, _all(structures, records), about, cif)
            raise SimulationInterrupted(
                f"Stopped by the user: {len(records.done)} structures are done, results are in '{folder}'. Go on with "
                "--restart."
            ) from stop
        about["seconds"] = time.monotonic() - started
        everything = _all(structures, records)
        write_results(folder, everything, about, cif)
    failed = _show([record.row for record in everything], folder, console)
    if failed:
        raise typer.Exit(1)


def _relax(
    structures: Sequence[InputStructure],
    calculator: MLIPCalculator,
    options: RelaxOptions,
    records: Records,
    batch_atoms: int,
    console: Console,
) -> None:
    """Relax what is not done, and record it."""
    from mlip.simulate.relax_many import relax_many
    from mlip.simulate.relax_records import Record
    from mlip.simulate.relax_table import row_of
    from mlip.simulate.together import MAX_ATOMS, MAX_EDGES

    left = [k for k, one in enumerate(structures) if one.atoms is not None and k not in records.done]
    found: Iterator[Relaxed] = relax_many(
        (structures[k].atoms for k in left),
        calculator,
        options,
        max_atoms=batch_atoms,
        max_edges=max(1, batch_atoms * MAX_EDGES // MAX_ATOMS),
    )
    with _progress(console) as progress:
        task = progress.add_task("relaxing", total=len(left), rate="")
        started = time.monotonic()
        for count, relaxed in enumerate(found, start=1):
            number = left[relaxed.number]
            one = structures[number]
            row = row_of(relaxed, one.name, one.atoms, number)
            records.add(Record(row, None if relaxed.result is None else relaxed.result.atoms))
            rate = 60 * count / max(time.monotonic() - started, 1e-9)
            progress.update(task, completed=count, rate=f"{rate:.3g} structures/min")


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal or console.quiet)


def _all(structures: Sequence[InputStructure], records: Records) -> list[Record]:
    """Return the records of what is done, and of what could not be read, in the order of the input."""
    from mlip.simulate.relax_records import Record
    from mlip.simulate.relax_table import RelaxedRow

    unread = {
        number: Record(RelaxedRow(number, one.name, "failed", error=one.error), None)
        for number, one in enumerate(structures)
        if one.atoms is None
    }
    found = unread | records.done
    return [found[number] for number in sorted(found)]


def _show(rows: Sequence[RelaxedRow], folder: Path, console: Console) -> int:
    """Print counts and what went wrong; return how many failed."""
    from rich.table import Table
    from rich.text import Text

    from mlip.simulate.relax_table import counts

    found = counts(rows)
    table = Table(title=f"{found['structures']} structures", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for name in ("converged", "not_converged", "failed", "with_warnings", "space_group_changed"):
        table.add_row(name.replace("_", " "), str(found[name]))
    for name, label, factor, form in (
        ("median_steps", "median steps", 1, ".0f"),
        ("median_energy_gain_eV_per_atom", "median energy gained / meV/atom", 1000, ".3g"),
        ("median_volume_change", "median change of volume / %", 100, "+.2f"),
    ):
        if found[name] is not None:
            table.add_row(label, format(factor * found[name], form))
    console.print(table)
    for kind, style, texts in (
        ("Failed", "red", [f"{row.name}: {row.error}" for row in rows if row.error]),
        ("Warning", "yellow", [f"{row.name}: {row.warnings}" for row in rows if row.warnings]),
    ):
        for text in texts[:SHOWN]:
            console.print(Text(f"{kind}: ", style=style) + Text(text, style="default"), soft_wrap=True)
        if len(texts) > SHOWN:
            console.print(f"… and {len(texts) - SHOWN} more, see results.csv.", highlight=False)
    console.print(f"Results are in {folder}", soft_wrap=True, highlight=False)
    return found["failed"]


def _other_formats(path: Path) -> Iterator[Sample | MlipError]:
    """Read a file with the data set class that recognises it, as ``mlip evaluate`` would."""
    from mlip.cli.data.source import find_source
    from mlip.data.parts import load_dataset

    config: dict[str, Any] = find_source([f"data={path}"], preview=True).config
    dataset = load_dataset(config)
    for chunk in dataset.chunks():
        yield from dataset.read(chunk)
