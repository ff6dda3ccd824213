"""``mlip data info``: what is in a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli.data.training_words import training_words

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.cli.data.source import Source
    from mlip.data.checks.report import Report
    from mlip.data.datasets.base import Dataset
    from mlip.data.datasets.store import StoreDataset

SAMPLE = 5000
"""Structures that are looked at without --all."""

SMALL = 20_000_000
"""Bytes up to which data are read to the end where nobody knows how many structures they hold."""

LARGE = 20_000
"""Structures from which on a store is the better thing to train from."""

LISTED = 24
"""Elements that are listed with their counts."""


def info(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="File, folder or 'pattern' in a format that is recognised; or data=NAME data.path=… and settings.",
        ),
    ],
    cutoff: Annotated[float, typer.Option(min=0.1, help="For the number of neighbours, Å.")] = 5.0,
    everything: Annotated[
        bool, typer.Option("--all", help=f"Read all structures, not a sample of about {SAMPLE}.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the distributions to this PNG file.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what is in a file, folder or store of data.

    Format, counts, elements, labels with units and ranges.

    \b
    mlip data info my.xyz --plot my.png
    mlip data info data=qh9 data.path=QH9Stable.db

    Large data are sampled, which the output says; the format is recognised by itself.
    """
    from rich.console import Console

    from mlip.cli.data.source import find_source
    from mlip.cli.progress import ProgressBar
    from mlip.data.checks.base import Settings
    from mlip.data.checks.plots import plot_overview
    from mlip.data.checks.run import all_checks, run_checks
    from mlip.data.datasets.store import StoreDataset
    from mlip.data.parts import load_dataset

    source = find_source(words, preview=True)
    console = Console(stderr=json_output)
    dataset = load_dataset(source.config)
    if isinstance(dataset, StoreDataset) and not everything and plot is None:
        _finish(_store_card(source, dataset), json_output, console)
        return
    total = number_of_structures(dataset)
    small = _num_bytes(dataset) <= SMALL if total is None else total <= SAMPLE
    limit = None if everything or small else SAMPLE
    settings = Settings(cutoff, None, limit is None, dataset.units)
    with ProgressBar("reading", console) as progress:
        report = run_checks([dataset], settings, list(all_checks()), limit, progress)
    # A data set of unknown length may have been shorter than the sample.
    seen = report.overview.num_structures
    complete = limit is None or (total is not None and seen >= total)
    card = _card(source, dataset, report, total if not complete else seen, complete)
    if plot is not None:
        plot_overview(plot, report.table, str(source.config.get("path") or source.name))
    _finish(card, json_output, console)
    if plot is not None:
        console.print(f"The picture is in {plot}", soft_wrap=True, highlight=False)


def _finish(card: dict[str, Any], json_output: bool, console: Console) -> None:
    import json

    known = bool({"energy", "hamiltonian"} & set(card["labels"]))
    # Without these there is no model to train.
    words = training_words(card["labels"])
    card["next"] = [
        command + words if command.startswith("mlip train") else command
        for command in card["next"]
        if known or not command.startswith("mlip train")
    ]
    if json_output:
        typer.echo(json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False, default=str))
    else:
        _show(card, console)


def number_of_structures(dataset: Dataset) -> int | None:
    """Return how many structures a data set has, None if that is not known without reading all of it."""
    from mlip.data.datasets.streamed import StreamedDataset

    if not isinstance(dataset, StreamedDataset):
        return len(dataset)
    counts = [chunk.num_samples for chunk in dataset.chunks()]
    return None if None in counts else sum(counts)  # type: ignore[arg-type]


def _num_bytes(dataset: Dataset) -> int:
    """Return about how many bytes there are to read."""
    return sum(chunk.num_bytes for chunk in dataset.chunks())


def _card(source: Source, dataset: Dataset, report: Report, total: int | None, complete: bool) -> dict[str, Any]:
    """Return everything that is shown, as plain values."""
    return {
        "complete": complete,
        "structures in all": total,
        **report.overview.as_dict(report.table),
        "unreadable": report.num_broken,
        "problems": [finding.message for finding in report.findings],
        "cutoff": report.settings.cutoff,
        **_about(source, dataset, total),
    }


def _store_card(source: Source, dataset: StoreDataset) -> dict[str, Any]:
    """Return what a store says of itself, without reading its structures."""
    from mlip.data.checks.overview import PBC, label_unit, size_summary

    known = dataset.statistics
    sizes = size_summary({int(size): count for size, count in known["sizes"].items()})
    ranges = {"energy": known["energy_per_atom"], "stress": known["stress"]}
    kinds: dict[str, int] = {}
    for axes, count in known["pbc"].items():
        name = PBC[axes.count("T")]
        kinds[name] = kinds.get(name, 0) + count
    return {
        "complete": True,
        "structures in all": known["structures"],
        "structures": known["structures"],
        "atoms": known["atoms"],
        "sizes": sizes,
        "elements": {symbol: {"structures": n, "atoms": atoms} for symbol, (n, atoms) in known["elements"].items()},
        "labels": {
            name: {"structures": count, "unit": label_unit(name), "range": ranges.get(name)}
            for name, count in known["labels"].items()
            if count
        },
        "periodic axes": kinds,
        "isolated atoms": dict(sorted(dataset.isolated_atom_energies().items())),
        "neighbours": {"mean": known["num_neighbors"] or 0.0, "most": None, "shortest distance": None},
        "largest force": known["largest_force"],
        "force rms": known["force_rms"],
        "unreadable": 0,
        "problems": [],
        "cutoff": known["cutoff"],
        **_about(source, dataset, known["structures"]),
    }


def _about(source: Source, dataset: Dataset, total: int | None) -> dict[str, Any]:
    """Return what is known of the data set without its structures."""
    recognition = source.recognition
    how = {1: "recognised as a general format", 2: "recognised by its layout", 3: "recognised by its own marks"}
    return {
        "data set": source.name,
        "found": how.get(recognition.certainty, "recognised") if recognition else "named by you",
        "note": recognition.note if recognition else "",
        "assumed": dict(source.assumed),
        "path": source.config.get("path"),
        "units of the file": dict(dataset.units),
        "level of theory": dict(dataset.level_of_theory),
        "licence": dataset.licence,
        "citation": dataset.citation,
        "official splits": list(dataset.official_splits),
        "next": _next(source, total),
    }


def _next(source: Source, total: int | None) -> list[str]:
    """Return the commands that come next, as they can be pasted."""
    import shlex

    # What was assumed is left open: the command then says what there is to choose from.
    choices = (f"data.dataset.{key}=…" for key in source.assumed)
    words = " ".join([*map(shlex.quote, source.words), *choices]) or f"data={source.name}"
    check = f"mlip data check {words}"
    if source.name != "store" and (total is None or total > LARGE):
        return [check, f"mlip data prepare {words} out={source.name}_store"]
    return [check, f"mlip train {words}"]


def _show(card: Mapping[str, Any], console: Console) -> None:
    """Print the card as tables."""
    from rich.text import Text

    about = {
        "data set": f"{card['data set']} ({card['found']})",
        "structures": _structures(card),
        "atoms": f"{card['atoms']}" + _sizes(card["sizes"]),
        "elements": _elements(card["elements"]),
        "compositions": card.get("compositions"),
        "periodic": ", ".join(f"{axes}: {count}" for axes, count in card["periodic axes"].items()),
        "config types": ", ".join(f"{name} {count}" for name, count in card.get("config types", {}).items()),
        "groups": card.get("groups") or "",
        "forces": _forces(card),
        "neighbours": _neighbours(card),
        "isolated atoms": ", ".join(f"{symbol} {energy:.4f} eV" for symbol, energy in card["isolated atoms"].items()),
        "units of the file": ", ".join(f"{name} {unit}" for name, unit in card["units of the file"].items()),
        "level of theory": ", ".join(f"{name}: {value}" for name, value in card["level of theory"].items()),
        "official splits": ", ".join(card["official splits"]),
        "licence": card["licence"],
        "citation": card["citation"],
        "note": card["note"],
        "assumed": _assumed(card["assumed"]),
    }
    _table(str(card["path"] or card["data set"]), about, console)
    _labels(card["labels"], console)
    for problem in card["problems"]:
        console.print(Text(problem, style="red"), soft_wrap=True)
    console.print("Next:")
    for command in card["next"]:
        console.print(Text(f"  {command}", style="cyan"), soft_wrap=True)


def _assumed(settings: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key}={value}" for key, value in settings.items())
    return f"{values}, to look at the data; to train on them or to store them is your choice" if values else ""


def _structures(card: Mapping[str, Any]) -> str:
    if card["complete"]:
        return str(card["structures"])
    total = card["structures in all"]
    of = f"{total}" if total is not None else "an unknown number"
    return f"{of}; all numbers below are of a sample of {card['structures']} (--all reads everything)"


def _sizes(sizes: Mapping[str, int]) -> str:
    return f" ({sizes['smallest']} to {sizes['largest']} a structure, median {sizes['median']})" if sizes else ""


def _elements(elements: Mapping[str, Mapping[str, int]]) -> str:
    if len(elements) > LISTED:
        return f"{len(elements)}: {' '.join(elements)}"
    return ", ".join(f"{symbol} in {counts['structures']}" for symbol, counts in elements.items())


def _forces(card: Mapping[str, Any]) -> str:
    if card.get("largest force") is None:
        return ""
    return f"largest {card['largest force']:.4g} eV/Å, root mean square {card['force rms']:.4g} eV/Å"


def _neighbours(card: Mapping[str, Any]) -> str:
    found = card["neighbours"]
    shortest = found["shortest distance"]
    text = f"{found['mean']:.1f} an atom at {card['cutoff']:g} Å"
    text += f", at most {found['most']}" if found["most"] is not None else ""
    return text + (f"; shortest distance {shortest:.3g} Å" if shortest is not None else "")


def _table(title: str, values: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), show_header=False, title_justify="left", min_width=60)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value not in ("", None):
            table.add_row(name, Text(str(value)))
    console.print(table)


def _labels(labels: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    from rich.table import Table

    table = Table(title="Labels, in the units of mlip", title_justify="left", min_width=60)
    for name in ("label", "structures", "smallest", "largest", "unit"):
        table.add_column(name, justify="left" if name in ("label", "unit") else "right")
    for name, label in labels.items():
        low, high = label["range"] or (None, None)
        numbers = ["" if value is None else f"{value:.5g}" for value in (low, high)]
        table.add_row(name, str(label["structures"]), *numbers, label["unit"])
    console.print(table)
