"""Label structures in several processes, into one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from mlip.core.errors import DataError, MlipError
from mlip.data.datasets.qh9_record import Record
from mlip.data.labelling.base import Labeller, Labels, SetupFailed
from mlip.data.labelling.label_file import LabelFile
from mlip.data.labelling.structures import Structure
from mlip.data.worker_processes import WorkerLost, apply_all

# What a program of quantum chemistry raises about one structure; other structures may do.
_OF_ONE_STRUCTURE = (
    ArithmeticError, AttributeError, LookupError, MemoryError, MlipError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

Progress = Callable[[int, int], None]
"""Called with the number of structures that are done, and that were to be done."""


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        labelled: structures that it labelled.
        failed: that it could not label.
        known: that the file had, as labelled or failed.
        copies: that came twice in the input.
    """

    labelled: int
    failed: int
    known: int
    copies: int


def checked(structures: Sequence[Structure], labeller: Labeller) -> list[Structure]:
    """Return the structures, with what the labeller refuses marked as refused.

    Each composition is checked once.
    """
    answers: dict[bytes, str] = {}
    found = []
    for structure in structures:
        key = np.sort(structure.numbers).tobytes() + f"{structure.charge} {structure.spin}".encode()
        if not structure.refused and key not in answers:
            try:
                labeller.check_structure(structure)
                answers[key] = ""
            except DataError as error:
                answers[key] = str(error)
        refused = structure.refused or answers[key]
        found.append(replace(structure, refused=refused))
    return found


def choose_layout(structures: Sequence[Structure]) -> str:
    """Return ``dynamic`` if consecutive structures of a file are frames of one molecule, else ``stable``."""
    frames = any(a.file == b.file and np.array_equal(a.numbers, b.numbers) for a, b in pairwise(structures))
    return "dynamic" if frames else "stable"


def label_structures(
    structures: Sequence[Structure],
    labeller: Labeller,
    file: LabelFile,
    jobs: int = 1,
    retry: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Compute what the file does not have yet.

    Args:
        structures: see `checked`.
        labeller: computes.
        file: that the labels are added to; what is there stays.
        jobs: processes, each with one thread; with one the work is done in this process.
        retry: whether structures that have failed before are computed again.
        progress: see `Progress`.

    Raises:
        SetupFailed: the program cannot run; nothing is noted about the structure that it was asked for.
        MlipError: the file cannot be written, or a process was killed. What was computed before is kept.
    """
    plan = file.plan(structures, retry)
    wanted, failed = plan.wanted, 0
    progress(0, len(wanted))
    try:
        work = partial(attempt, labeller)
        tasks = (planned.structure for planned in wanted)
        for done, (number, found) in enumerate(apply_all(work, tasks, min(jobs, len(wanted)), ordered=False), start=1):
            if isinstance(found, SetupFailed):
                raise found
            if isinstance(found, Labels):
                file.store(wanted[number], found)
            else:
                file.fail(wanted[number], found)
                failed += 1
            progress(done, len(wanted))
    except WorkerLost as error:
        if error.number is None:
            raise
        source = wanted[error.number].structure.source
        file.fail(wanted[error.number], "The process that computed it was killed, perhaps for want of memory.")
        raise MlipError(
            f"The process that computed {source} was killed, perhaps for want of memory: try --jobs 1. It is noted as "
            "failed (--retry-failed computes it again); the same command goes on with the others."
        ) from error
    return Report(len(wanted) - failed, failed, plan.known, plan.copies)


def attempt(labeller: Labeller, structure: Structure) -> Labels | str | SetupFailed:
    """Return the labels of a structure, or why there are none; or are none of any."""
    try:
        return labeller.compute(structure)
    except SetupFailed as error:
        # Not raised: that would end the process that computes.
        return error
    except _OF_ONE_STRUCTURE as error:
        kind = "" if isinstance(error, MlipError) else f"{type(error).__name__}: "
        return kind + (" ".join(str(error).split())[:300] or "no reason was given.")


def record_of(labeller: Labeller, layout: str, licence: str) -> Record:
    """Return what is written beside the labels of a labeller."""
    return Record(layout, labeller.level_of_theory, labeller.fields, (labeller.program,), licence)
