"""The graphs of some samples: in memory where they fit, built when they are asked for where they do not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from math import isfinite

import numpy as np
import torch.utils.data

from mlip.core.errors import DataError, MlipError, StructureError
from mlip.core.fields import FIELDS, INPUTS
from mlip.core.files import cache_folder, write_atomically
from mlip.data.build_graph import as_builder, graph_of
from mlip.data.elements import check_elements
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.data.graphs.radius import Radius
from mlip.data.inputs import Inputs, check_inputs
from mlip.data.sample import Sample
from mlip.data.subset import Subset, as_subset

KEPT_EDGES = 20_000_000
"""Edges, of all graphs together, up to which graphs are kept in memory: about 1 GB."""


class GraphDataset(torch.utils.data.Dataset[AtomGraph]):
    """The graphs of some samples.

    All graphs have the same labels; what a sample is not labelled with is NaN. Samples that are in memory have their
    graphs there, too, up to `KEPT_EDGES`; others are read and built one by one, by the workers of the loader, and
    take no memory. For these the numbers of edges are counted once and kept in the cache folder.

    Args:
        samples: structures and labels.
        graph: draws the edges, such as a model's ``graph_builder``; a number is the cutoff (Å) of a radius graph.
        progress: called with (done, total) while graphs are built or edges counted.
        labels: names of the labels that the graphs are to have, where there are any; None for all.
        elements: symbols that the model knows; others are refused. None does not look.
        once: the graphs are asked for once, in order: none is kept, and nothing is read before.
        inputs: what the model needs of every structure besides its atoms, and the values that it knows; in the graphs
            whatever ``labels`` says.

    Attributes:
        labels: names of the labels.
        num_edges: (graphs,) edges of each graph; not with ``once``.
        builder: draws the edges.
        graph_key: names how graphs are built, for fingerprints.

    Raises:
        DataError: a structure has no graph, an unknown element, a label of another size than the others, an input
            (charge, tags, …) that only some have, or not the inputs that the model needs; names its file and frame.
            For samples that are not in memory it may be raised later, but not for unknown elements and inputs unless
            ``once``.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        graph: GraphBuilder | float,
        progress: Callable[[int, int], None] | None = None,
        labels: Collection[str] | None = None,
        elements: Sequence[str] | None = None,
        once: bool = False,
        inputs: Inputs | None = None,
    ) -> None:
        self.builder = as_builder(graph)
        self.graph_key = self.builder.description
        self.samples: Subset = as_subset(samples)
        self._needed = dict(inputs or {})
        self.labels = tuple(
            name for name in self.samples.fields() if labels is None or name in labels or name in self._needed
        )
        self._elements = None if elements is None else tuple(elements)
        self._inputs = tuple(name for name in self.labels if name in INPUTS)
        self._sizes = {name: _item_shape(name, self.samples) for name in self.labels}
        self._graphs: list[AtomGraph] | None = None
        self._num_atoms: np.ndarray | None = None
        if once:
            return
        if self.samples.in_memory:
            self._keep_graphs(progress)
        if self._graphs is None:
            self.num_edges = self._edges(progress)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> AtomGraph:
        if self._graphs is not None:
            return self._graphs[index]
        return self._build(self.samples[index], index)

    def __iter__(self) -> Iterator[AtomGraph]:
        return (self[index] for index in range(len(self)))

    @property
    def content_hash(self) -> str:
        """Of the samples, see `mlip.data.content_hash`."""
        return self.samples.content_hash

    @property
    def num_atoms(self) -> np.ndarray:
        """(graphs,) atoms of each graph."""
        if self._num_atoms is None:
            known = self.samples.num_atoms()
            self._num_atoms = np.array([len(sample.atoms) for sample in self.samples]) if known is None else known
        return self._num_atoms

    def _keep_graphs(self, progress: Callable[[int, int], None] | None) -> None:
        """Build all graphs, and forget them if they are too large together."""
        graphs: list[AtomGraph] = []
        edges = 0
        for index, sample in enumerate(self.samples):
            graphs.append(self._build(sample, index))
            edges += graphs[-1].num_edges
            if edges > KEPT_EDGES:
                return
            if progress is not None:
                progress(index + 1, len(self))
        self._graphs = graphs
        self.num_edges = np.array([graph.edge_index.shape[1] for graph in graphs], dtype=np.int64)

    def _edges(self, progress: Callable[[int, int], None] | None) -> np.ndarray:
        """Return the edges of every graph: known, from the cache, or counted."""
        known = self.samples.num_edges(self.builder.cutoff) if isinstance(self.builder, Radius) else None
        key = hashlib.sha256(f"{self.content_hash} {self.graph_key}".encode()).hexdigest()
        path = cache_folder() / f"edges-{key[:32]}.npy"
        if known is None:
            with suppress(OSError, ValueError, EOFError):
                kept = np.load(path, allow_pickle=False)
                known = kept if kept.shape == (len(self),) and kept.dtype == np.int64 else None
        if known is not None:
            self._look_through(progress)
            return known
        counted = np.empty(len(self), dtype=np.int64)
        for index, sample in enumerate(self.samples):
            counted[index] = self._build(sample, index).edge_index.shape[1]
            if progress is not None:
                progress(index + 1, len(self))
        # A cache that cannot be written only costs the time.
        with suppress(MlipError):
            write_atomically(path, lambda temporary: np.save(temporary, counted))
        return counted

    def _look_through(self, progress: Callable[[int, int], None] | None) -> None:
        """Find now what would otherwise stop a training after hours; not where nothing can be wrong."""
        if self._elements is None and not self._inputs and not self._needed:
            return
        for index, sample in enumerate(self.samples):
            self._check(sample)
            if progress is not None:
                progress(index + 1, len(self))

    def _check(self, sample: Sample) -> None:
        for name in self._inputs:
            if name not in sample.labels:
                raise DataError(
                    f"{sample.source} has no {name}, other structures have. State it for every structure, or for none."
                )
        for name in self._needed:
            if name not in sample.labels:
                raise DataError(
                    f"{sample.source} has no {name}, which the model needs (model/conditioning). If the files state "
                    f"it, have it read: data.dataset.labels=[energy,forces,{name}]."
                )
        try:
            check_inputs(sample.labels, self._needed)
            if self._elements is not None:
                check_elements(sample.atoms.numbers, self._elements)
        except StructureError as error:
            raise DataError(f"{sample.source}: {error}") from error

    def _build(self, sample: Sample, index: int) -> AtomGraph:
        self._check(sample)
        labels = {
            name: sample.labels[name] if name in sample.labels else self._unlabelled(name, sample)
            for name in self.labels
        }
        labels |= {name: sample.labels[name] for name in self.builder.needs if name in sample.labels}
        pairs = self.samples.pairs(index, self.builder.cutoff) if isfinite(self.builder.cutoff) else None
        try:
            graph = graph_of(sample.atoms, self.builder, labels, pairs)
        except StructureError as error:
            raise DataError(f"{sample.source}: {error}") from error
        for name, size in self._sizes.items():
            # Matrices are as large as their molecules.
            if FIELDS[name].level != "orbital_pair" and tuple(graph[name].shape[1:]) != size:
                raise DataError(
                    f"{sample.source}: the label '{name}' has shape {tuple(graph[name].shape[1:])} an item, but "
                    f"{size} in other structures. All structures need the same."
                )
        return graph

    def _unlabelled(self, name: str, sample: Sample) -> np.ndarray:
        level = FIELDS[name].level
        if level == "orbital_pair":
            raise DataError(f"{sample.source} has no {name}, other structures have. Every structure needs it.")
        rows = (len(sample.atoms),) if level == "atom" else ()
        return np.full((*rows, *self._sizes[name]), np.nan)


def _item_shape(name: str, samples: Subset) -> tuple[int, ...]:
    """Return the shape of one item of a label: the field table's, or the first sample's where that leaves it open."""
    field = FIELDS[name]
    if None not in field.shape:
        return field.shape
    first = next(sample.labels[name] for sample in samples if name in sample.labels)
    return np.shape(first)[1 if field.level == "atom" else 0 :]
