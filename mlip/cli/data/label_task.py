"""What ``mlip data label`` was asked for: checked, done, and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlip.cli.data.training_words import training_words
from mlip.core.errors import ConfigError, MlipError, StructureError, did_you_mean
from mlip.data.labelling.base import Labeller, SetupFailed
from mlip.data.labelling.label_file import UNSTATED, LabelFile
from mlip.data.labelling.run import Progress, Report, choose_layout, label_structures, record_of
from mlip.data.labelling.structures import Structure, Takes, structure
from mlip.data.writers.registry import WRITERS, writer_for
from mlip.simulate.contacts import OVERLAP, closest_contact
from mlip.simulate.inputs import read_inputs

if TYPE_CHECKING:
    from rich.console import Console

DATABASE = ".db"

LINES_SECONDS = 60.0
"""Seconds between two lines about the progress, in a log."""

MOST_ROWS = 10
"""Failures that are listed; the file has all."""

FEW_MOLECULES = 10
"""Whole molecules cannot be divided into parts for training and testing below this number."""


@dataclass(frozen=True)
class Outcome:
    """What there is to tell.

    Attributes:
        report: of this run.
        target: the file that was written.
        fields: what was computed.
        counts: structures of the file by state.
        molecules: different ones.
        failures: source and reason, of the whole file.
    """

    report: Report
    target: Path
    fields: tuple[str, ...]
    counts: Mapping[str, int]
    molecules: int
    failures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class LabelTask:
    """A list of structures and where their labels go.

    Attributes:
        structures: checked.
        labeller: computes.
        target: the file that the user wants.
        work: the database, the same one where Hamiltonians are wanted.
        layout: of QH9 that the user wants, None for that of the file, or that suits the structures.
        jobs: processes.
        retry: whether what has failed is computed again.
        licence: None if nobody has named one.
    """

    structures: Sequence[Structure]
    labeller: Labeller
    target: Path
    work: Path
    layout: str | None
    jobs: int
    retry: bool
    licence: str | None

    def run(self, progress: Progress) -> Outcome:
        """Compute what is missing; files are usable however this ends.

        Raises:
            MlipError: see `LabelFile` and `label_structures`; or nothing could be computed.
        """
        layout = self.layout or choose_layout(self.structures)
        record = record_of(self.labeller, layout if self.work == self.target else "none", self.licence or UNSTATED)
        there = self.work.exists()
        with LabelFile(self.work, record, keep_layout=self.layout is None) as file:
            try:
                report = label_structures(self.structures, self.labeller, file, self.jobs, self.retry, progress)
            except SetupFailed:
                if not there and not file.counts()["labelled"]:
                    self.work.unlink(missing_ok=True)
                raise
            finally:
                self._export(file)
            counts, failures = file.counts(), file.failures()
            if not counts["labelled"]:
                where, reason = failures[0]
                again = "" if reason.endswith((".", "'")) else "."
                raise MlipError(
                    f"None of the structures could be computed; {where}: {reason}{again} --retry-failed computes them "
                    "again."
                )
            fields = self.labeller.fields
            return Outcome(report, self.target, fields, counts, file.num_molecules(), failures)

    def _export(self, file: LabelFile) -> None:
        if self.work == self.target or not file.counts()["labelled"]:
            return
        record = {
            "data": "mlip data label",
            "licence": file.record.licence,
            "citation": f"computed with {', '.join(file.record.programs)}",
            "level_of_theory": dict(file.record.level_of_theory),
            "programs": ", ".join(file.record.programs),
            "units": "eV, eV/Angstrom, eV/Angstrom^3",
        }
        writer_for(self.target).write(file.samples(), self.target, record)


def files(out: Path | None, structures: Sequence[Path], matrices: bool = True) -> tuple[Path, Path]:
    """Return the file to write, and the database that what is computed is kept in.

    Args:
        out: what the user has named.
        structures: files that are read.
        matrices: whether the method has any, which a .db is for.

    Raises:
        ConfigError: an ending that says no format, a file that is read, or that this command has not made.
    """
    target = (out or Path(f"{structures[0].stem}_labels{DATABASE if matrices else '.extxyz'}")).expanduser()
    if target.suffix == DATABASE and not matrices:
        raise ConfigError("A .db holds Hamiltonians, which only --method pyscf computes: choose an --out .extxyz.")
    known = [DATABASE, *(suffix for writer in WRITERS for suffix in writer.suffixes)]
    if target.suffix not in known or target.is_dir():
        raise ConfigError(
            f"--out must end with {', '.join(known)}, got '{target}'.{did_you_mean(target.suffix, known)} For a store: "
            "label into a .db, then mlip data prepare FILE.db out=FOLDER."
        )
    if any(path.exists() and target.exists() and path.samefile(target) for path in structures):
        raise ConfigError(f"'{target}' is both read and written. Choose another --out.")
    work = target if target.suffix == DATABASE else target.with_name(target.name + DATABASE)
    if target != work and target.exists() and not work.exists():
        raise ConfigError(f"'{target}' is there already, and was not made by this command. Choose another --out.")
    return target, work


def read(
    paths: Sequence[Path], any_distance: bool, takes: Takes, given: Mapping[str, int | None], skip: bool
) -> tuple[list[Structure], list[str]]:
    """Read all structures of some files, see `structure`.

    Args:
        paths: of the files.
        any_distance, takes, given: see `structure`; where anything is taken, overlapping atoms are refused here.
        skip: whether what cannot be read is left out.

    Returns:
        The structures, and what is wrong with each that cannot be read.

    Raises:
        StructureError: something cannot be read, and is not left out; or nothing can.
    """
    names = Counter(path.name for path in paths)
    found, unread = [], []
    for path in paths:
        # Frames of different files must not look like those of one.
        name = path.name if names[path.name] == 1 else str(path)
        for frame, one in enumerate(read_inputs([path])):
            if one.atoms is None:
                unread.append(one.error)
                continue
            made = structure(one.atoms, name, frame, any_distance, takes, given)
            if takes is Takes.anything and not (any_distance or made.refused):
                overlap = closest_contact(one.atoms, OVERLAP)
                if overlap is not None:
                    made = replace(made, refused=f"It has overlapping atoms: {overlap.describe(one.atoms)}.")
            found.append(made)
    if unread and not (skip and found):
        more = " --on-error skip leaves it out." if found else ""
        raise StructureError(unread[0] + more)
    return found, unread


def refuse(structures: Sequence[Structure], skip: bool) -> None:
    """Say what is wrong with the first structure that cannot be computed.

    Args:
        structures: checked.
        skip: whether such structures are left out, as long as there are others.

    Raises:
        StructureError: why.
    """
    refused = [found for found in structures if found.refused]
    if not refused or (skip and len(refused) < len(structures)):
        return
    first = f"{refused[0].source}: {refused[0].refused}"
    if len(refused) == len(structures):
        raise StructureError(first + (f" None of the {len(refused)} structures is usable." if len(refused) > 1 else ""))
    raise StructureError(
        f"{first} ({len(refused)} of {len(structures)} structures cannot be computed; --on-error skip leaves them out.)"
    )


@contextmanager
def bar(console: Console) -> Iterator[Progress]:
    """Show a bar while structures are computed; a line now and then where there is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("computing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # The time left goes by the last quarter of an hour: one calculation may take minutes.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, speed_estimate_period=900
    ) as progress:
        task = progress.add_task("computing", total=None)
        said = 0.0

        def advance(done: int, total: int) -> None:
            nonlocal said
            progress.update(task, completed=done, total=total)
            elapsed = progress.tasks[0].elapsed or 0.0
            if progress.disable and done and elapsed - said > LINES_SECONDS:
                said = elapsed
                left = elapsed * (total - done) / done / 60
                console.print(f"{done} of {total} computed, about {left:.0f} min left", highlight=False)

        yield advance


def show(outcome: Outcome, console: Console) -> None:
    """Print what was done, what failed, and what comes next."""
    report, counts, target = outcome.report, outcome.counts, outcome.target
    said = [f"{report.labelled} computed"]
    said += [f"{report.known} were there"] if report.known else []
    said += [f"{report.copies} came twice"] if report.copies else []
    console.print(f"{', '.join(said)}; {counts['labelled']} labelled in {target}", highlight=False, soft_wrap=True)
    if counts["waiting"]:
        console.print(f"{counts['waiting']} of an earlier command are not computed yet: repeat it.", highlight=False)
    if outcome.failures:
        console.print(f"{len(outcome.failures)} could not be computed:", style="yellow", highlight=False)
        for source, reason in outcome.failures[:MOST_ROWS]:
            console.print(f"  {source}: {reason}", markup=False, highlight=False, soft_wrap=True)
        if len(outcome.failures) > MOST_ROWS:
            console.print("  …, all in the table mlip_structures of the database.")
    if target.suffix == DATABASE:
        by = " data.split.by=random" if outcome.molecules < FEW_MOLECULES else ""
        words = f"data=qh9 data.path={target}{by} {training_words(['hamiltonian']).strip()}"
    else:
        words = ("data=ase_db " if target.suffix == ".aselmdb" else "") + f"data.path={target}"
        words += "" if "forces" in outcome.fields else " 'data.dataset.labels=[energy]' 'loss=[energy]'"
    console.print(f"Next: mlip train {words}", markup=False, highlight=False, soft_wrap=True)
