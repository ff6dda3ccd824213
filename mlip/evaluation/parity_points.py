"""Labels and predictions, structure by structure, as they are drawn: never more points than a plot can show."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from mlip.core.fields import FIELDS, TARGETS
from mlip.data.graph import AtomGraph
from mlip.evaluation.predict import Prediction

MOST = 2_000_000
"""Points of a quantity that are kept; of more, every second, every fourth, …"""

_TITLES = {"forces": "Force components", "stress": "Stress components", "magmoms": "Sizes of magnetic moments"}
_NAMES = ["", *chemical_symbols[1:], "normal", "shear"]
_NORMAL, _SHEAR = len(_NAMES) - 2, len(_NAMES) - 1


@dataclass(frozen=True)
class Panel:
    """One quantity: reference and prediction in the unit of the axis.

    Attributes:
        title: quantity.
        unit: of the axes; errors are in ``m`` + unit. Empty for plain numbers, whose errors are plain, too.
        reference, predicted: ``(points,)``, labelled values only.
        group: ``(points,)`` name of each point's colour group; empty strings for none.
        rmse, mae: of all points, in ``unit``.
        count: of all points; more than are here where there were too many.
    """

    title: str
    unit: str
    reference: np.ndarray
    predicted: np.ndarray
    group: np.ndarray
    rmse: float
    mae: float
    count: int


@dataclass
class _Quantity:
    """The points of one field, thinned out evenly, and the sums over all of them."""

    reference: array[float] = field(default_factory=lambda: array("d"))
    predicted: array[float] = field(default_factory=lambda: array("d"))
    group: array[int] = field(default_factory=lambda: array("h"))
    absolute: float = 0.0
    squared: float = 0.0
    count: int = 0
    stride: int = 1

    def add(self, reference: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> None:
        kept = ~np.isnan(reference)
        reference, predicted, group = reference[kept], predicted[kept], group[kept]
        errors = predicted - reference
        self.absolute += float(np.abs(errors).sum())
        self.squared += float(errors @ errors)
        chosen = slice(-self.count % self.stride, None, self.stride)
        self.count += len(errors)
        for column, values in zip(self._columns(), (reference, predicted, group), strict=True):
            column.frombytes(np.ascontiguousarray(values[chosen], dtype=column.typecode).tobytes())
        if len(self.reference) > MOST:
            self.stride *= 2
            self.reference, self.predicted, self.group = (column[::2] for column in self._columns())

    def _columns(self) -> tuple[array[float], array[float], array[int]]:
        return self.reference, self.predicted, self.group


class ParityPoints:
    """Collects energy an atom, force components by element, stress and the rest, as far as both sides have them."""

    def __init__(self) -> None:
        self._quantities: dict[str, _Quantity] = {}

    def add(self, graph: AtomGraph, prediction: Prediction) -> None:
        """Add a single graph with labels, NaN for none, and its prediction."""
        atoms = graph.positions.shape[0]
        for name in TARGETS:
            if name not in prediction:
                continue
            predicted = np.asarray(prediction[name], dtype=np.float64)
            reference, group = _label(graph, name, predicted.shape), np.zeros(predicted.size)
            if name == "energy":
                reference, predicted = reference / atoms, predicted / atoms
            elif name == "forces":
                group = graph.atomic_numbers.cpu().numpy().repeat(3)
            elif name == "stress":
                # All nine components, as in `ErrorStatistics`, so that the numbers of plot and table agree.
                group = np.where(np.eye(3, dtype=bool), _NORMAL, _SHEAR).ravel()
            self._quantities.setdefault(name, _Quantity()).add(reference.ravel(), predicted.ravel(), group)

    def panels(self) -> list[Panel]:
        """Return what there is to draw."""
        return [_panel(name, quantity) for name, quantity in self._quantities.items() if quantity.count]


def _panel(name: str, quantity: _Quantity) -> Panel:
    reference, predicted = np.array(quantity.reference), np.array(quantity.predicted)
    unit = "" if FIELDS[name].unit == "1" else FIELDS[name].unit
    title = _TITLES.get(name, name.replace("_", " ").capitalize())
    if name == "energy":
        # Their offset would hide the errors, so the mean of the reference is taken off.
        offset = reference.mean()
        reference, predicted = reference - offset, predicted - offset
        title, unit = f"Energy per atom, relative to {offset:.3f} eV", "eV/atom"
    return Panel(
        title, unit, reference, predicted, np.array(_NAMES)[np.array(quantity.group)],
        math.sqrt(quantity.squared / quantity.count), quantity.absolute / quantity.count, quantity.count,
    )  # fmt: skip


def _label(graph: AtomGraph, name: str, shape: Sequence[int]) -> np.ndarray:
    """Return a label of a single graph, NaN where the graph has none; molecules have no stress."""
    value = graph.get(name)
    if value is None or (name == "stress" and not graph.pbc.any()):
        return np.full(shape, np.nan)
    label = value.cpu().numpy().reshape(shape)
    return np.abs(label) if FIELDS[name].unsigned else label
