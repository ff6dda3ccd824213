"""``mlip data prepare``: make a store of any data set, for fast random access at any size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli.data.training_words import training_words

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.data.store.prepare import Progress, Report


LINES_SECONDS = 30.0
"""Seconds between two lines about the progress, in a log."""


def prepare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="data=... out=FOLDER",
            help="The data (a file, or data=NAME data.path=… data.dataset.OPTION=…), out=FOLDER, and settings.",
        ),
    ],
) -> None:
    """Turn data into a store for training: HDF5 shards.

    A training reads them at random, however many structures there are.

    \b
    mlip data prepare my.xyz out=store
    mlip data prepare data=mptrj data.path=MPtrj.json data.dataset.energy=uncorrected out=store workers=8
    mlip data prepare data=extxyz data.path=more.xyz out=store append=true

    \b
    cutoff=5.0         Å at which edges are counted: that of the model to be trained
    workers=8          processes; one for every processor otherwise
    precision=compact  rounds positions, cell, forces and stress; exact otherwise
    on_error=skip      leaves damaged structures out and lists them in rejected.jsonl
    append=true        adds the data to a store that is complete
    graphs=true        keeps the neighbour lists, in several times the space

    Stopped at any moment, the same command goes on. The store is complete when it has a store.json.
    """
    from rich.console import Console

    from mlip.cli.compose import compose, to_plain
    from mlip.cli.data.source import open_data
    from mlip.data.store.prepare import prepare as make

    console = Console()
    about_data = [word for word in words if _is_data(word)]
    settings = to_plain(compose("prepare", [word for word in words if not _is_data(word)]))
    out = Path(str(settings.pop("out")))
    dataset, config = open_data(about_data)
    description = {"dataset": config["dataset"], "words": about_data}
    try:
        with _bar(console) as progress:
            report = make(dataset, description, out, **settings, progress=progress)
    except KeyboardInterrupt:
        console.print(f"Stopped. What is done is kept in {out}; the same command goes on.", highlight=False)
        raise
    _show(report, console)


def _is_data(word: str) -> bool:
    """Whether a word is about the data: ``data…=…``, or a path (which may hold a =) or name alone."""
    return "=" not in word or bool(re.match(r"[~+]*data[.=/]", word)) or Path(word).exists()


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    """Show a bar of bytes with the rate of structures while the store is made; lines where there is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        *(TextColumn("preparing"), BarColumn(), DownloadColumn()),
        *(TextColumn("{task.fields[structures]:,} structures, {task.fields[rate]:,.0f}/s"),),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("preparing", total=None, structures=0, rate=0.0)
        said = 0.0

        def advance(structures: int, done: int, total: int) -> None:
            nonlocal said
            elapsed = bar.tasks[0].elapsed or 1e-9
            rate = structures / elapsed
            bar.update(task, completed=done, total=max(total, done) or None, structures=structures, rate=rate)
            if bar.disable and elapsed - said > LINES_SECONDS:
                said = elapsed
                share = f"{100 * done / total:.0f} % of the files, " if total >= done > 0 else ""
                left = f", about {elapsed * (total - done) / done / 60:.0f} min left" if share else ""
                console.print(f"{share}{structures:,} structures, {rate:,.0f}/s{left}", highlight=False)

        yield advance


def _show(report: Report, console: Console) -> None:
    """Print what is in the store and what comes next."""
    from rich.table import Table

    content, statistics = report.content, report.content["statistics"]
    table = Table(title=f"{report.out}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for name, value in _rows(content, statistics):
        table.add_row(name, value)
    console.print(table)
    if report.made:
        rate = statistics["structures"] / max(report.seconds, 1e-9)
        kept = f", {report.reused} were there" if report.reused else f", {rate:,.0f} structures/s"
        console.print(f"{report.made} shards written in {report.seconds:.1f} s{kept}", highlight=False)
    else:
        console.print("The store was complete already; nothing was written.")
    if content["rejected"]:
        console.print(
            f"{content['rejected']} damaged structures were left out, see {report.out / 'rejected.jsonl'}",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    if {"energy", "hamiltonian"} & set(content["provides"]):
        words = f"data=store data.path={report.out}{training_words(content['provides'])}"
        console.print(f"Next: mlip train {words}", markup=False, highlight=False, soft_wrap=True)


def _rows(content: dict[str, Any], statistics: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the lines of the table."""
    size = sum(size for _, size in content["shards"])
    sizes = [int(key) for key in statistics["sizes"]]
    yield "structures", f"{statistics['structures']:,} of {min(sizes)} to {max(sizes)} atoms"
    yield "atoms", f"{statistics['atoms']:,}"
    yield "size", f"{size / 1e6:,.2f} MB in {len(content['shards'])} shards, {content['options']['precision']}"
    yield "elements", f"{len(statistics['elements'])}: {', '.join(statistics['elements'])}"
    yield (
        "labels",
        ", ".join(
            name if count == statistics["structures"] else f"{name} (of {count:,})"
            for name, count in statistics["labels"].items()
        ),
    )
    yield "periodic", ", ".join(f"{axes}: {count:,}" for axes, count in statistics["pbc"].items())
    yield "neighbours", f"{statistics['num_neighbors']:.1f} per atom at {statistics['cutoff']:g} Å"
    if statistics["energy_per_atom"] is not None:
        low, high = statistics["energy_per_atom"]
        yield "energy", f"{low:.4g} to {high:.4g} eV/atom"
    if statistics["force_rms"] is not None:
        yield "forces", f"RMS {statistics['force_rms']:.4g} eV/Å, largest {statistics['largest_force']:.4g} eV/Å"
    if statistics["stress"] is not None:
        low, high = statistics["stress"]
        yield "stress", f"{low:.4g} to {high:.4g} eV/Å³"
    if content["isolated_atom_energies"]:
        yield "isolated atoms", ", ".join(f"{s} {e:.4f} eV" for s, e in content["isolated_atom_energies"].items())
    fit = statistics["atomic_energies"]
    if fit is not None:
        rank = "" if fit["rank"] == len(fit["energies"]) else f"; {fit['rank']} of {len(fit['energies'])} determined"
        yield "atomic energies", f"least squares, {fit['rmse']:.3g} eV per structure remain{rank}"
    copies = content["duplicates"]
    if copies["same_geometry"]:
        yield "duplicates", f"{copies['same_geometry']:,} geometries occur again, {copies['same']:,} with equal labels"
    yield "licence", content["licence"]
