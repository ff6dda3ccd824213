"""Turn a data set into a store, in parallel, so that it can be stopped at any moment and gone on with."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlip.core.errors import ConfigError, DataError, MlipError
from mlip.data.datasets.base import Dataset
from mlip.data.datasets.streamed import SAME_ENERGY
from mlip.data.labels import merge_keys
from mlip.data.store.catalogue import check_append, complete, read_store, unfinished, whole
from mlip.data.store.plan import (
    PLAN,
    check_unchanged,
    command,
    describe_source,
    differences,
    grouped,
    plan_hash,
    read_json,
    shard_name,
    write_json,
)
from mlip.data.store.pool import perform_all
from mlip.data.store.precision import rounding
from mlip.data.store.summary import Summary
from mlip.data.store.work import Outcome, Settings, Task, cut_differently

Progress = Callable[[int, int, int], None]
"""Called with (structures done, bytes of the source done, bytes of the source in all or 0)."""


@dataclass(frozen=True)
class Report:
    """What `prepare` has done.

    Attributes:
        out: folder of the store.
        content: of store.json.
        made, reused: shards that were written now, and that were there.
        seconds: it took.
    """

    out: Path
    content: dict[str, Any]
    made: int
    reused: int
    seconds: float


def prepare(
    dataset: Dataset,
    source_description: Mapping[str, Any],
    out: Path,
    *,
    cutoff: float = 5.0,
    precision: str = "exact",
    workers: int | None = None,
    on_error: str = "stop",
    append: bool = False,
    graphs: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Make a store of a data set, go on with one that was interrupted, or add to one.

    Args:
        dataset: the source.
        source_description: ``dataset``: its configuration (what it is recognised by later), and ``words`` of the
            command line that gave it, for messages.
        out: folder of the store.
        cutoff: Å, at which edges are counted.
        precision: ``exact``, or ``compact``, which rounds (see `mlip.data.store.precision`).
        workers: processes; None takes one for every processor.
        on_error: ``stop`` at a damaged sample, or ``skip`` and record it in rejected.jsonl.
        append: add the data set to a store that is complete.
        graphs: keep the neighbour lists at the cutoff.
        progress: called after every shard.

    Raises:
        ConfigError: an option that makes no sense.
        DataError: a damaged sample; a folder that holds another store, or these data already.
        MlipError: the folder cannot be written to, or another process is at it.
    """
    started = time.monotonic()
    rounding(precision)
    if on_error not in ("stop", "skip"):
        raise ConfigError(f"on_error must be stop or skip, got {on_error!r}.")
    if not (isinstance(cutoff, int | float) and 0 < cutoff < float("inf")):
        raise ConfigError(f"cutoff must be a positive length in Å, got {cutoff!r}.")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}.")
    out = Path(out).expanduser()
    plan = {
        "source": describe_source(dataset, source_description, out),
        "options": {"cutoff": float(cutoff), "precision": precision, "graphs": bool(graphs)},
    }
    with _locked(out):
        store = read_store(out)
        first, known = _settle(out, plan, store, append)
        if known and store is not None and whole(out, store):
            (out / PLAN).unlink(missing_ok=True)
            return Report(out, store, 0, len(store["shards"]), time.monotonic() - started)
        for stale in (file for name in ("shard", "plan", "store", "rejected") for file in out.glob(f".{name}-*")):
            stale.unlink(missing_ok=True)
        settings = Settings(
            out=out.resolve(),
            plan=plan_hash(plan["source"], plan["options"]),
            cutoff=float(cutoff),
            precision=precision,
            graphs=bool(graphs),
            skip=on_error == "skip",
        )
        outcomes = _Outcomes(settings, progress, sum(size for _, size, _ in plan["source"]["files"]))
        tasks = _tasks(dataset, settings, store, first, known)
        processes = workers or num_processors()
        try:
            for outcome in perform_all(dataset, settings, tasks, processes):
                outcomes.add(outcome)
        except MlipError:
            if known is None and len(list(out.glob("shard-*.h5"))) == first:
                # Nothing was made: the corrected command is free to have other settings.
                (out / PLAN).unlink(missing_ok=True)
            raise
        dataset.check_labels(outcomes.found)
        content = outcomes.content(plan, store, first, known)
        try:
            check_unchanged(plan["source"])
            complete(out, content, outcomes.rejected, first if known is None else 0)
        except DataError:
            # No command goes on from here.
            (out / PLAN).unlink(missing_ok=True)
            raise
        return Report(out, read_store(out) or {}, outcomes.made, outcomes.reused, time.monotonic() - started)


def _settle(out: Path, plan: dict[str, Any], store: dict[str, Any] | None, append: bool) -> tuple[int, int | None]:
    """Decide what is to be done, and write the plan.

    Returns:
        The number of the source's first shard, and that of its source where the store has it already.

    Raises:
        DataError: what is there does not fit to what is asked for.
    """
    pending = read_json(out / PLAN)
    sources = [] if store is None else store["sources"]
    plans = [{"source": source, "options": store["options"]} for source in sources]
    if pending is not None and not unfinished(pending, store):
        # Killed between the last two steps of a preparation.
        pending = None
    if pending is not None:
        changes = differences(pending, plan)
        if changes:
            giving_up = f"deleting '{out / PLAN}'" if sources else "deleting the folder"
            raise DataError(
                f"'{out}' holds an unfinished preparation with other settings: {'; '.join(changes)}. Go on with: "
                f"{command(pending['source'], out, pending['options'], bool(sources))} — or give it up by {giving_up}, "
                "or choose another out=…."
            )
    same = next((number for number, each in enumerate(plans) if not differences(each, plan)), None)
    if same is not None:
        if append:
            raise DataError(f"'{out}' holds these data already: nothing was added.")
        return sources[same]["first_shard"], same
    first = 0 if store is None else len(store["shards"])
    if store is not None:
        if pending is None and not append:
            raise DataError(
                f"'{out}' holds a store with other settings: {'; '.join(differences(plans[-1], plan))}. Choose another "
                "out=…, or add to it with append=true."
            )
        check_append(out, store, plan)
    write_json(out / PLAN, plan)
    return first, None


def _tasks(
    dataset: Dataset, settings: Settings, store: dict[str, Any] | None, first: int, known: int | None
) -> Iterator[Task]:
    """Yield a task for every shard; those of other sources are only looked through.

    Raises:
        DataError: the source is in the store, and is now cut into other shards.
    """
    yield from (Task(number, ()) for number in range(first))
    last = first - 1
    end = None if store is None or known is None else first + store["sources"][known]["num_shards"]
    for last, chunks in enumerate(grouped(dataset.chunks()), start=first):
        task = Task(last, chunks)
        if end is not None and (last >= end or cut_differently(settings, task)):
            raise _other_cuts(settings.out)
        yield task
    if store is not None and end is not None:
        if last + 1 != end:
            raise _other_cuts(settings.out)
        yield from (Task(later, ()) for later in range(end, len(store["shards"])))


def _other_cuts(out: Path) -> DataError:
    return DataError(
        f"'{out}' was made by a version of mlip that cuts these files into other shards: what is missing cannot be "
        "made again. Delete the folder and prepare the store anew."
    )


class _Outcomes:
    """Adds up the outcomes, in the order of the shards."""

    def __init__(self, settings: Settings, progress: Progress | None, total_bytes: int) -> None:
        self._settings, self._progress, self._total = settings, progress, total_bytes
        self.shards: list[list[int]] = []
        self.summary = Summary(settings.cutoff)
        self.rejected: list[dict[str, Any]] = []
        self.isolated: dict[str, tuple[float, str]] = {}
        self.found: set[str] = set()
        self._keys: dict[str, tuple[str, str]] = {}
        self.made = self.reused = self._bytes = self._own = 0

    def add(self, outcome: Outcome) -> None:
        """Add one shard.

        Raises:
            DataError: it could not be made, or does not belong to the others.
        """
        if outcome.error is not None:
            raise DataError(outcome.error)
        if outcome.task.chunks:
            merge_keys(self._keys, outcome.label_keys)
            self.found |= outcome.summary.labels
        self.shards.append([outcome.samples, outcome.size])
        self.made += not outcome.reused
        self.reused += outcome.reused
        self._own += bool(outcome.task.chunks)
        self._bytes += outcome.task.num_bytes
        self.rejected += [{"shard": shard_name(outcome.task.number), **entry} for entry in outcome.rejected]
        for symbol, (energy, source) in outcome.isolated.items():
            there, first = self.isolated.setdefault(symbol, (energy, source))
            if abs(there - energy) > SAME_ENERGY:
                raise DataError(
                    f"Two energies for the isolated atom {symbol}: {there} eV ({first}) and {energy} eV ({source}). "
                    "Keep the one that belongs to the data."
                )
        self.summary.merge(outcome.summary)
        if self._progress is not None:
            self._progress(self.summary.structures, self._bytes, self._total)

    def content(
        self, plan: dict[str, Any], store: dict[str, Any] | None, first: int, known: int | None
    ) -> dict[str, Any]:
        """Return what goes into store.json.

        Raises:
            DataError: there is nothing to store.
        """
        if self.summary.structures == 0:
            raise DataError(
                f"The data hold no structure that can be stored ({len(self.rejected)} were damaged, "
                f"{len(self.isolated)} are isolated atoms)."
            )
        sources = [] if store is None else list(store["sources"])
        if known is None:
            sources.append({**plan["source"], "first_shard": first, "num_shards": self._own})
        return {
            "options": plan["options"],
            "sources": sources,
            "shards": self.shards,
            "provides": list(self.summary.provides),
            "isolated_atom_energies": {symbol: energy for symbol, (energy, _) in sorted(self.isolated.items())},
            "rejected": len(self.rejected),
            "statistics": self.summary.as_dict(),
        }


def num_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it however this process ends.

    Raises:
        MlipError: another process holds it, or the folder cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise MlipError(f"Cannot write into '{out}': {error.strerror or error}. Choose another out=….") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        owner = os.pread(handle, 20, 0).decode(errors="replace") or "unknown"
        os.close(handle)
        raise MlipError(
            f"Another process (id {owner}) is preparing '{out}'. Wait until it is done, or choose another out=…."
        ) from error
    except OSError as error:
        os.close(handle)
        raise MlipError(f"Cannot lock '{out}': {error.strerror or error}. Choose another out=….") from error
    try:
        yield
    finally:
        os.close(handle)
