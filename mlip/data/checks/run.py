"""Run all checks over the files of a data set."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.data import checks as package
from mlip.data.checks.base import EXAMPLES, Check, Finding, Settings, worse_first
from mlip.data.checks.frame import Frame
from mlip.data.checks.overview import Overview
from mlip.data.checks.report import Report
from mlip.data.checks.table import FrameTable
from mlip.data.datasets.base import Chunk, Dataset, Progress
from mlip.data.datasets.streamed import StreamedDataset, add_isolated
from mlip.data.sample import Sample

SPREAD = 16
"""Chunks over which a limited number of structures is spread."""


def all_checks() -> dict[str, type[Check]]:
    """Return every check by name."""
    found = {}
    for module in sorted(info.name for info in iter_modules(package.__path__)):
        for value in vars(import_module(f"{package.__name__}.{module}")).values():
            if inspect.isclass(value) and issubclass(value, Check) and not inspect.isabstract(value):
                found[value.name] = value
    return found


def run_checks(
    parts: Sequence[Dataset | None],
    settings: Settings,
    skip: Sequence[str] = (),
    limit: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read the data once and collect what the checks find.

    Args:
        parts: data sets of ``path``, ``valid_path`` and ``test_path``; None for one that is not there.
        settings: what checks may ask for.
        skip: names of checks that are left out.
        limit: structures to look at, spread over the data; None for all.
        progress: called now and then.

    Raises:
        ConfigError: an unknown check.
    """
    known = all_checks()
    for name in skip:
        if name not in known:
            raise ConfigError(f"There is no check '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    checks = [kind(settings) for name, kind in known.items() if name not in skip]
    table, overview, broken = FrameTable(), Overview(), _Broken()
    isolated: dict[str, tuple[float, str]] = {}
    present = [(number, part) for number, part in enumerate(parts) if part is not None]
    for done, (number, dataset) in enumerate(present):
        count = 0
        for share, item in read_some(dataset, limit):
            if progress is not None:
                progress((done + share) / len(present), table.num_seen)
            try:
                if isinstance(item, Sample) and item.isolated:
                    add_isolated(isolated, item)
                    continue
            except DataError as error:
                item = error
            if isinstance(item, DataError):
                broken.add(item)
                continue
            frame = Frame(item, number, count, settings.cutoff)
            count += 1
            table.add(frame)
            overview.update(frame)
            for check in checks:
                check.update(frame)
        # A data set that is read in a stream has shown its isolated atoms; others know theirs.
        if not isolated and not isinstance(dataset, StreamedDataset):
            isolated = {symbol: (energy, "") for symbol, energy in dataset.isolated_atom_energies().items()}
    table.isolated = {symbol: energy for symbol, (energy, _) in isolated.items()}
    findings = [*broken.findings(table.num_seen)]
    if findings and not table.num_seen:
        # That there is nothing left to check is no further mistake.
        checks = []
    findings += [finding for check in checks for finding in check.findings(table)]
    passed = [text for check in checks if (text := check.passed())]
    return Report(worse_first(findings), passed, table, overview, settings, broken.count)


def read_some(dataset: Dataset, limit: int | None = None) -> Iterator[tuple[float, Sample | DataError]]:
    """Yield (share done, sample or error) of a data set.

    Args:
        dataset: to be read, chunk by chunk.
        limit: about as many samples, spread evenly over the chunks; None for all.
    """
    try:
        chunks = list(dataset.chunks())
    except DataError as error:
        yield 1.0, error
        return
    each: int | None = None
    if limit is not None and sum(chunk.num_samples or limit for chunk in chunks) > limit:
        step = max(1, -(-len(chunks) // SPREAD))
        chunks = chunks[::step]
        each = -(-limit // len(chunks))
    sizes = [float(chunk.num_bytes or chunk.num_samples or 1) for chunk in chunks]
    total, before = sum(sizes) or 1.0, 0.0
    for chunk, size in zip(chunks, sizes):
        expected = min(chunk.num_samples or each or 2000, each or chunk.num_samples or 2000)
        for number, item in enumerate(_read(dataset, chunk)):
            if number == each:
                break
            yield (before + size * min(1.0, number / expected)) / total, item
        before += size


def _read(dataset: Dataset, chunk: Chunk) -> Iterator[Sample | DataError]:
    """Read a chunk; what stops the reading is the last item."""
    try:
        yield from dataset.read(chunk)
    except DataError as error:
        yield error


class _Broken:
    """Samples that could not be read."""

    def __init__(self) -> None:
        self.count = 0
        self._messages: list[str] = []

    def add(self, error: DataError) -> None:
        self.count += 1
        if len(self._messages) < EXAMPLES:
            self._messages.append(str(error))

    def findings(self, others: int) -> Iterator[Finding]:
        if self.count:
            yield Finding(
                "error",
                "reading",
                f"{self.count} of {self.count + others} structures cannot be read: {self._messages[0]}",
                "Repair or remove them, or correct the configuration (keys, units).",
                self.count,
                self._messages,
            )


def unreadable(error: DataError, settings: Settings) -> Report:
    """Return the report on data that cannot be opened at all."""
    text = str(error)
    finding = Finding("error", "reading", text, "Correct what is named and run the check again.", 1, ())
    return Report([finding], [], FrameTable(), Overview(), settings, 1)
