"""``mlip data convert``."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mlip.data.datasets.base import Dataset
    from mlip.data.sample import Sample


LOOKED_AT = 100
"""Structures that are looked at for labels that nobody asked for."""


class OnError(StrEnum):
    """What to do with a structure that cannot be used."""

    stop = "stop"
    skip = "skip"


def convert(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... OUT",
            help="A file, folder or pattern, or data=NAME data.path=…; last the file to write: .extxyz, .xyz, .aselmdb",
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    on_error: Annotated[OnError, typer.Option(help="Stop at a damaged structure, or leave it out.")] = OnError.stop,
    limit: Annotated[int | None, typer.Option(min=1, help="Write so many structures at most.")] = None,
) -> None:
    """Convert data to extended XYZ or an ASE database.

    \b
    mlip data convert data.aselmdb data.extxyz
    mlip data convert data=vasp data.path=runs data.dataset.energy=free train.aselmdb --on-error skip

    Numbers stay the same to the last bit. Structures are read and written one after the other, so that files may be
    larger than memory. For a store, the form for large training sets, use mlip data prepare.
    """
    from rich.console import Console

    from mlip.cli.data.source import find_source, open_data
    from mlip.data.writers.registry import writer_for

    *source, name = words
    out = Path(name).expanduser()
    _check_out(source, out, overwrite)
    writer = writer_for(out)
    found = find_source(source)
    dataset, _ = open_data(found.words)
    counted = _Counted(dataset, on_error, limit)
    record = {
        "data": found.name,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "level_of_theory": dict(dataset.level_of_theory),
        "units": "eV, Angstrom",
    }
    console = Console(stderr=True)
    left_out = _not_read(dataset, found.config)
    if left_out:
        read = list(found.config["dataset"]["optional_labels"])
        words = ",".join([*read, *left_out])
        console.print(
            f"Warning: the data have {', '.join(left_out)}, not asked for, so not written. To keep: "
            f"'data.dataset.optional_labels=[{words}]'",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    written = writer.write(_with_progress(counted, console), out, record)
    if counted.skipped:
        console.print(f"{counted.skipped} structures were left out, the first: {counted.first_error}", highlight=False)
    console.print(f"{written} structures written to {out}", soft_wrap=True, highlight=False)


def _not_read(dataset: Dataset, config: dict[str, Any]) -> list[str]:
    """Return the labels and inputs that the first structures have and that were not asked for, such as charge."""
    from itertools import islice

    from mlip.core.errors import DataError
    from mlip.data.labels import READABLE
    from mlip.data.parts import load_dataset

    options = config["dataset"]
    if "optional_labels" not in options:
        return []
    asked = {*options["labels"], *options["optional_labels"]}
    found: set[str] = set()
    for field in READABLE:
        if field in asked:
            continue
        try:
            probe = load_dataset({**config, "dataset": {**options, "optional_labels": [field]}})
            items = (item for chunk in islice(probe.chunks(), 1) for item in islice(probe.read(chunk), LOOKED_AT))
            found |= {field for item in items if not isinstance(item, DataError) and field in item.labels}
        except DataError:
            continue  # Whatever is wrong is said where it matters.
    return [field for field in READABLE if field in found]


def _check_out(source: list[str], out: Path, overwrite: bool) -> None:
    """Refuse an output that is missing, a folder, the input, or there already.

    Raises:
        ConfigError: which.
    """
    from mlip.core.errors import ConfigError

    if not source:
        raise ConfigError(f"Two names are needed, the data and the file to write; got only '{out}'.")
    if out.is_dir() or not out.suffix:
        words = " ".join(source)
        raise ConfigError(
            f"'{out}' is no file name that ends with .extxyz, .xyz or .aselmdb. For a store, a folder: "
            f"mlip data prepare {words} out={out}"
        )
    for word in source:
        path = Path(word.partition("data.path=")[2] or word.removeprefix("data=")).expanduser()
        if path.exists() and out.exists() and path.samefile(out):
            raise ConfigError(f"'{out}' is both read and written. Choose another name.")
    if out.exists() and not overwrite:
        raise ConfigError(f"'{out}' is there already. Use --overwrite to replace it, or choose another name.")


class _Counted:
    """The samples of a data set, isolated atoms among them, with a count of those that are left out."""

    def __init__(self, dataset: Dataset, on_error: OnError, limit: int | None) -> None:
        self.dataset = dataset
        self.on_error = on_error
        self.limit = limit
        self.skipped = 0
        self.first_error: Exception | None = None

    def __iter__(self) -> Iterator[Sample]:
        given = 0
        alone = None
        for item in self._items():
            if isinstance(item, Exception):
                if self.on_error is OnError.stop:
                    raise item
                self.skipped += 1
                self.first_error = self.first_error or item
                continue
            if item.source == alone and not item.isolated:
                continue  # An isolated atom that is kept among the samples comes twice.
            alone = item.source if item.isolated else None
            yield item
            given += 1
            if given == self.limit:
                return

    def _items(self) -> Iterator[Any]:
        for chunk in self.dataset.chunks():
            yield from self.dataset.read(chunk)


def _with_progress(samples: _Counted, console: Any) -> Iterator[Sample]:
    """Yield the samples; on a terminal a line says how many there were, and how fast."""
    if not console.is_terminal:
        yield from samples
        return
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Structures a second."""

        def render(self, task: Any) -> Text:
            return Text(f"{task.speed or 0:.0f}/s")

    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} structures"), Rate(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("converting", total=None)
        for sample in samples:
            yield sample
            progress.advance(task)
