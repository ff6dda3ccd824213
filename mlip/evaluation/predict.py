"""Predictions of a model for a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch_geometric.data import Batch

from mlip.core.errors import DataError
from mlip.core.fields import FIELDS
from mlip.data.graph import AtomGraph
from mlip.evaluation.metrics import ErrorStatistics
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict

Prediction = dict[str, np.ndarray]
"""Fields of one structure: ``energy`` (), ``energies`` (atoms,), ``forces`` (atoms, 3), ``stress`` (3, 3),
``hamiltonian`` (orbitals, orbitals), …"""

MAX_EDGES = 20_000
"""Default number of edges evaluated at once."""


def predict_dataset(
    model: AtomisticModel,
    graphs: Iterable[AtomGraph],
    fields: Collection[str] = ("energy", "forces"),
    *,
    max_edges: int = MAX_EDGES,
    statistics: ErrorStatistics | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """Predict every structure, in the order given, and keep all predictions.

    Args:
        model, graphs, fields, max_edges, statistics, progress: as `predict_each`.

    Returns:
        One dict a structure, in the package's units, float64.

    Raises:
        StructureError, DataError: as `predict_each`.
    """
    each = predict_each(model, graphs, fields, max_edges=max_edges, statistics=statistics, progress=progress)
    return [prediction for _, prediction in each]


def predict_each(
    model: AtomisticModel,
    graphs: Iterable[AtomGraph],
    fields: Collection[str] = ("energy", "forces"),
    *,
    max_edges: int = MAX_EDGES,
    statistics: ErrorStatistics | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[AtomGraph, Prediction]]:
    """Predict every structure, in the order given, in the memory of one batch.

    Args:
        model: in whatever dtype and on whatever device it is; its mode is not changed.
        graphs: single graphs, built with the model's cutoff; gone through once.
        fields: what to predict, see :func:`mlip.nn.derivatives.predict`.
        max_edges: structures are evaluated together up to this many edges; a larger one alone.
        statistics: collects the errors against the labels of the graphs.
        progress: called after each batch with its number of structures.

    Yields:
        Each graph with its prediction, in the package's units, float64.

    Raises:
        StructureError: an element that the model does not know, or an input (charge, spin) that is missing or unknown.
        DataError: a prediction is not finite.
    """
    done = 0
    for group in by_edges(graphs, max_edges):
        batch = Batch.from_data_list(group)
        model.check_elements(batch.atomic_numbers.unique().tolist())
        model.check_inputs({name: batch[name].cpu().numpy() for name in model.inputs if name in batch})
        batch = batch.to(model.device)
        predicted = predict(model, batch, fields)
        if statistics is not None:
            statistics.update(predicted, batch)
        new = _split(predicted, batch, fields)
        _check_finite(new, done)
        done += len(new)
        yield from zip(group, new, strict=True)
        if progress is not None:
            progress(len(group))


def by_edges(graphs: Iterable[AtomGraph], max_edges: int) -> Iterator[list[AtomGraph]]:
    """Group consecutive graphs up to a number of edges; each group has at least one graph."""
    group: list[AtomGraph] = []
    size = 0
    for graph in graphs:
        # Atoms count too, or a million isolated atoms would be one batch.
        cost = graph.edge_index.shape[1] + graph.positions.shape[0]
        if group and size + cost > max_edges:
            yield group
            group, size = [], 0
        group.append(graph)
        size += cost
    if group:
        yield group


def _split(predicted: dict[str, torch.Tensor], batch: Batch, fields: Collection[str]) -> list[Prediction]:
    """Cut the fields of a batch into one dict a structure."""
    first = batch.ptr.tolist()
    values: dict[str, Sequence[np.ndarray]] = {}
    for name in fields:
        value = predicted[name].detach().double().cpu().numpy()
        if FIELDS[name].level == "orbital_pair":
            values[name] = square_matrices(value, predicted["num_orbitals"].tolist())
        elif FIELDS[name].level == "atom":
            values[name] = [value[start:stop] for start, stop in pairwise(first)]
        else:
            values[name] = value
    return [{name: value[k] for name, value in values.items()} for k in range(batch.num_graphs)]


def square_matrices(flat: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Return the matrices ``(size, size)`` that stand row by row, one after the other, in ``(Σ size²,)``."""
    ends = np.cumsum([0, *(size * size for size in sizes)])
    return [flat[start:stop].reshape(size, size) for start, stop, size in zip(ends, ends[1:], sizes)]


def _check_finite(predictions: list[Prediction], offset: int) -> None:
    for k, prediction in enumerate(predictions):
        for name, value in prediction.items():
            if not np.isfinite(value).all():
                raise DataError(
                    f"The prediction of '{name}' is not finite for structure {offset + k} (counted from 0): "
                    "look for atoms on top of each other or absurd coordinates."
                )
