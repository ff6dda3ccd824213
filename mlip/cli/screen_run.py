"""What ``mlip screen`` does when its options are understood: reading, progress, results, what is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mlip.cli.relax_many import SHOWN, read_all

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.simulate.inputs import InputStructure
    from mlip.simulate.journal import Journal
    from mlip.simulate.screening.executors import Executor
    from mlip.simulate.screening.model import ModelFiles
    from mlip.simulate.screening.record import ScreenRecord
    from mlip.simulate.screening.screen import Progress
    from mlip.simulate.screening.task import ScreeningTask


def run_screening(
    inputs: Sequence[str],
    model: Sequence[Path],
    task_name: str,
    options: Mapping[str, Any],
    executor: Executor,
    *,
    settings: Mapping[str, Any],
    dtype: str | None,
    frame: int | None,
    folder: Path,
    overwrite: bool,
    restart: bool,
    batch_atoms: int,
    tries: int,
    timeout: float | None,
) -> None:
    """Screen what the user names.

    Args:
        inputs, frame: see :func:`mlip.cli.relax_many.read_all`.
        model: paths or names.
        task_name, options: of the task.
        executor: of the workers.
        settings: of the calculator; ``dtype`` apart, since it has a default of the task.
        folder: of the results.
        overwrite, restart: what to do with earlier results.
        batch_atoms, tries, timeout: see :func:`mlip.simulate.screening.screen.screen`.

    Raises:
        MlipError: anything that the user can mend; stopped by the user.
        typer.Exit: 1, after all, if a structure is not done.
    """
    from rich.console import Console

    from mlip.core.errors import MlipError
    from mlip.simulate.journal import Journal, fingerprint
    from mlip.simulate.output import claim_folder
    from mlip.simulate.screening.model import ModelFiles
    from mlip.simulate.screening.record import JOURNAL
    from mlip.simulate.screening.report import remove_results
    from mlip.simulate.screening.screen import require_limits, screen
    from mlip.simulate.screening.tasks.registry import find_task

    task = find_task(task_name).of(options)
    task.check()
    require_limits(batch_atoms, tries, timeout)
    executor.check()
    advice = "go on with --restart, choose another folder with --output, or replace it with --overwrite."
    for marker in (JOURNAL.file, "results.h5"):
        claim_folder(folder, marker, overwrite or restart, advice, "screen")
    structures = read_all(inputs, frame)
    source, about = _prepare(structures, ModelFiles.of(model, dtype=dtype or type(task).dtype, **settings), task, model)
    prints = fingerprint(structures, {"task": task.name, **task.options()}, f"{source.digest} {source.dtype}")
    console = Console()
    folder_made = not folder.exists()
    with Journal(folder, JOURNAL, prints, restart) as journal:
        if overwrite:
            remove_results(folder)
        if journal.done:
            console.print(f"{len(journal.done)} of {len(structures)} structures are done already.", highlight=False)
        work = partial(
            screen, structures, task, source, executor, journal, batch_atoms=batch_atoms, tries=tries, timeout=timeout
        )
        write = partial(_write, folder, structures, journal, task, about)
        try:
            records = _work(work, write, task.name, console)
        except MlipError:
            _forget(journal, folder, folder_made)
            raise
    if _show(records, folder, console):
        raise typer.Exit(1)


def _forget(journal: Journal, folder: Path, made: bool) -> None:
    """Take a journal of nothing away, unless the user has stopped the run: the command can be repeated as it should
    be."""
    from mlip.simulate.screening.store import STORE

    if journal.done or (folder / STORE).exists() or not journal.path.is_file():
        return
    journal.path.unlink()
    if made:
        with suppress(OSError):
            folder.rmdir()


def _work(
    work: Callable[..., Progress],
    write: Callable[[float, int], list[ScreenRecord]],
    title: str,
    console: Console,
) -> list[ScreenRecord]:
    """Screen with a progress bar, and write what is done, after Ctrl-C as well.

    Raises:
        SimulationInterrupted: stopped by the user.
    """
    from mlip.core.errors import SimulationInterrupted

    started, deaths = time.monotonic(), 0
    try:
        with _progress(console, title) as show:

            def report(progress: Progress) -> None:
                nonlocal deaths
                deaths = progress.deaths
                show(progress)

            work(progress=report)
    except KeyboardInterrupt as stop:
        done = len(write(time.monotonic() - started, deaths))
        raise SimulationInterrupted(
            f"Stopped by the user: the results of {done} structures are written. Go on with --restart."
        ) from stop
    return write(time.monotonic() - started, deaths)


def _write(
    folder: Path,
    structures: Sequence[InputStructure],
    journal: Journal[ScreenRecord],
    task: ScreeningTask,
    about: Mapping[str, Any],
    seconds: float,
    deaths: int,
) -> list[ScreenRecord]:
    """Write and return what is done."""
    from mlip.simulate.screening.report import write_results
    from mlip.simulate.screening.screen import all_records

    records = all_records(structures, journal)
    write_results(folder, records, task, about, {"seconds": seconds, "worker_deaths": deaths})
    return records


def _prepare(
    structures: Sequence[InputStructure], source: ModelFiles, task: ScreeningTask, model: Sequence[Path]
) -> tuple[ModelFiles, dict[str, Any]]:
    """Open the model once here, where an error is one sentence, and note what the results belong to."""
    from mlip import __version__
    from mlip.calculators.committee import named

    # The device may be one that only the workers have.
    calculator = replace(source, device="cpu").open()
    dtype = str(calculator.model.dtype).removeprefix("torch.")
    for name, value in calculator.given.items():
        for one in structures:
            if one.atoms is not None:
                one.atoms.info.setdefault(name, value)
    about = {
        "task": task.name, "options": task.options(), "model": named(list(model)), "model_sha256": source.digest,
        "dtype": dtype, "mlip_version": __version__,
    }  # fmt: skip
    return replace(source, dtype=dtype), about


@contextmanager
def _progress(console: Console, title: str) -> Iterator[Callable[[Progress], None]]:
    """Show a bar with rate, time left and workers on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[workers]}"),
    )  # fmt: skip
    hidden = not console.is_terminal or console.quiet
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        line = bar.add_task(title, total=None, rate="", workers="starting workers")
        began: list[float] = []

        def show(now: Any) -> None:
            if not began and now.workers:
                began.append(time.monotonic())
            rate = 60 * now.done / max(time.monotonic() - began[0], 1e-9) if began and now.done else 0
            died = f", {now.deaths} died" if now.deaths else ""
            bar.update(
                line, total=now.total, completed=now.done, rate=f"{rate:.3g} structures/min" if rate else "",
                workers=f"{now.workers} workers{died}",
            )  # fmt: skip

        yield show


def _show(records: Sequence[ScreenRecord], folder: Path, console: Console) -> int:
    """Print counts and what is not done; return how many that are."""
    from rich.table import Table
    from rich.text import Text

    from mlip.simulate.screening.record import DONE, STATUSES

    table = Table(title=f"{len(records)} structures", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for status in STATUSES:
        table.add_row(status, str(sum(record.status == status for record in records)))
    table.add_row("with warnings", str(sum(bool(record.warnings) for record in records)))
    console.print(table)
    bad = [record for record in records if record.status != DONE]
    for record in bad[:SHOWN]:
        label = f"{record.status.capitalize()}: "
        console.print(
            Text(label, style="red") + Text(f"{record.name}: {record.error}", style="default"), soft_wrap=True
        )
    if len(bad) > SHOWN:
        console.print(f"… and {len(bad) - SHOWN} more, see results.csv.", highlight=False)
    console.print(f"Results are in {folder}", soft_wrap=True, highlight=False)
    return len(bad)
