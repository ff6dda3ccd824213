"""What a worker does: turn some chunks of a data set into one shard, and say what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlip.core.errors import DataError, MlipError, StructureError
from mlip.data.datasets.base import Chunk, Dataset
from mlip.data.datasets.streamed import add_isolated
from mlip.data.neighbours import Pairs, neighbour_list
from mlip.data.sample import Sample
from mlip.data.store.block import runs
from mlip.data.store.columns import check_sample, stack
from mlip.data.store.edges import EdgeCounter
from mlip.data.store.plan import shard_name
from mlip.data.store.precision import rounding
from mlip.data.store.shard_reader import OpenFiles, ShardReader
from mlip.data.store.shard_writer import ShardWriter
from mlip.data.store.summary import Summary

_STOPPED = "What is done is kept; on_error=skip leaves damaged structures out and lists them."


@dataclass(frozen=True)
class Settings:
    """What holds for all shards of a preparation.

    Attributes:
        out: folder of the store.
        plan: marks the shards, see `mlip.data.store.plan.plan_hash`.
        cutoff: Å.
        precision: see `mlip.data.store.precision`.
        graphs: whether neighbour lists are kept.
        skip: whether damaged samples are left out rather than refused.
    """

    out: Path
    plan: str
    cutoff: float
    precision: str
    graphs: bool
    skip: bool


@dataclass(frozen=True)
class Task:
    """One shard; without chunks it belongs to another source and must be there."""

    number: int
    chunks: tuple[Chunk, ...]

    @property
    def num_bytes(self) -> int:
        """Of the source."""
        return sum(chunk.num_bytes for chunk in self.chunks)

    @property
    def digest(self) -> str:
        """What marks these chunks."""
        return hashlib.sha256(
            "\n".join(chunk.key for chunk in self.chunks).encode("utf-8", "surrogatepass")
        ).hexdigest()[:32]


@dataclass
class Outcome:
    """What is in a shard.

    Attributes:
        task: whose it is.
        samples, size: samples in the shard, and its bytes.
        reused: it was there already.
        rejected: ``{"chunk", "error"}`` of the samples that were left out.
        isolated: ``{symbol: (energy, source)}``.
        label_keys: see `Dataset.label_keys`.
        summary: statistics of its samples.
        error: a sentence in place of all that: the user has to act.
    """

    task: Task
    samples: int = 0
    size: int = 0
    reused: bool = False
    rejected: list[dict[str, str]] = field(default_factory=list)
    isolated: dict[str, tuple[float, str]] = field(default_factory=dict)
    label_keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    summary: Summary = field(default_factory=lambda: Summary(1.0))
    error: str | None = None


def perform(dataset: Dataset, settings: Settings, task: Task, wanted: Callable[[], bool] = lambda: True) -> Outcome:
    """Make a shard, or look through one that is there; errors of the user are put into the outcome.

    Args:
        dataset: the source.
        settings: of the preparation.
        task: the shard.
        wanted: asked before a shard is written; where it says no, nothing is.
    """
    try:
        outcome = _existing(settings, task) or _make(dataset, settings, task, wanted)
    except MlipError as error:
        # As text: an exception with a constructor of its own does not travel between processes.
        return Outcome(task, error=str(error))
    if task.chunks and outcome.rejected and not settings.skip:
        outcome.error = f"{outcome.rejected[0]['error']} {_STOPPED}"
    return outcome


def cut_differently(settings: Settings, task: Task) -> bool:
    """Whether the shard that is there is of the same source, and of other chunks of it."""
    with suppress(DataError):
        header = ShardReader(settings.out / shard_name(task.number), OpenFiles()).header
        return header["plan"] == settings.plan and header["digest"] != task.digest
    return False


def _existing(settings: Settings, task: Task) -> Outcome | None:
    """Return what is in the shard if it is the one, whole and undamaged.

    Raises:
        DataError: it is not, and belongs to another source.
    """
    path = settings.out / shard_name(task.number)
    if task.chunks and not path.exists():
        return None
    try:
        shard = ShardReader(path, OpenFiles())
        if task.chunks and (shard.header["plan"], shard.header["digest"]) != (settings.plan, task.digest):
            return None
        summary = Summary(settings.cutoff)
        edges = shard.column("num_edges").astype(np.int64)
        for name in ("num_atoms", "digest", "geometry_digest"):
            shard.column(name)
        start = 0
        for number in range(shard.num_blocks):
            columns = shard.block(number).columns
            summary.add(columns, edges[start : start + len(columns)])
            start += len(columns)
    except DataError:
        if task.chunks:
            return None
        raise
    isolated, keys = ({name: tuple(pair) for name, pair in shard.header[key].items()} for key in ("isolated", "labels"))
    size, rejected = path.stat().st_size, shard.header["rejected"]
    return Outcome(task, shard.num_samples, size, True, rejected, isolated, keys, summary)


def _make(dataset: Dataset, settings: Settings, task: Task, wanted: Callable[[], bool]) -> Outcome:
    """Read the chunks and write the shard.

    Raises:
        MlipError: unreadable files, a sample that is to be refused, a folder that cannot be written to.
    """
    path = settings.out / shard_name(task.number)
    summary = Summary(settings.cutoff)
    outcome = Outcome(task, summary=summary)
    if type(dataset).label_keys is not Dataset.label_keys:
        # A copy that has read nothing else: the keys that it notes are the same whoever makes the other shards. Others
        # are not copied, as they may keep what took long to read.
        dataset = copy(dataset)
    measure = _Measure(settings.cutoff, settings.graphs)
    with ShardWriter(path, settings.graphs) as writer:
        for block in runs(_wanted(dataset, settings, outcome, measure)):
            columns = stack(block)
            edges, pairs = measure.take(len(block))
            writer.add(block, columns, edges, pairs)
            summary.add(columns, edges)
            outcome.samples += len(block)
        outcome.label_keys = dataset.label_keys()
        header = {"plan": settings.plan, "digest": task.digest, "keys": [chunk.key for chunk in task.chunks]}
        if not wanted():
            raise MlipError(f"'{path}' is not wanted any more.")
        notes = {"isolated": outcome.isolated, "labels": outcome.label_keys, "rejected": outcome.rejected}
        writer.finish(header | notes)
    outcome.size = path.stat().st_size
    return outcome


def _wanted(dataset: Dataset, settings: Settings, outcome: Outcome, measure: _Measure) -> Iterator[Sample]:
    """Yield the samples that go into the shard, and note the others in the outcome."""
    rounded = rounding(settings.precision)
    for chunk in outcome.task.chunks:
        for item in dataset.read(chunk):
            try:
                if isinstance(item, DataError):
                    raise item
                check_sample(item)
                if item.isolated:
                    _note_isolated(outcome.isolated, item)
                    continue
                sample = rounded(item)
                measure.add(sample)
            except DataError as error:
                if not settings.skip:
                    raise DataError(f"{error} {_STOPPED}") from error
                outcome.rejected.append({"chunk": chunk.key, "error": str(error)})
                continue
            yield sample


def _note_isolated(known: dict[str, tuple[float, str]], sample: Sample) -> None:
    if "energy" not in sample.labels:
        raise DataError(f"{sample.source}: an isolated atom is there for its energy, and this one has none.")
    add_isolated(known, sample)


class _Measure:
    """Counts the edges of samples as they come, and keeps their neighbour lists where these are wanted."""

    def __init__(self, cutoff: float, graphs: bool) -> None:
        self._cutoff, self._graphs = cutoff, graphs
        self._count = EdgeCounter(cutoff)
        self._edges: list[int] = []
        self._pairs: list[Pairs] = []

    def add(self, sample: Sample) -> None:
        """Count a sample's edges.

        Raises:
            DataError: it can have no neighbour list.
        """
        atoms = sample.atoms
        try:
            if self._graphs:
                self._pairs.append(neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, self._cutoff))
                self._edges.append(len(self._pairs[-1][0]))
            else:
                self._edges.append(self._count(atoms.positions, atoms.cell.array, atoms.pbc))
        except StructureError as error:
            raise DataError(f"{sample.source}: {error}") from error

    def take(self, count: int) -> tuple[np.ndarray, list[Pairs]]:
        """Return and forget the results of the samples that came first."""
        edges, self._edges = np.array(self._edges[:count], dtype=np.int64), self._edges[count:]
        pairs, self._pairs = self._pairs[:count], self._pairs[count:]
        return edges, pairs
