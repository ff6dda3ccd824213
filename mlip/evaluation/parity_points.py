"""Labels and predictions, structure by structure, as they are drawn: never more points than a plot can show."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ase.data import chemical_symbols

from mlip.core.fields import FIELDS, TARGETS
from mlip.data.graph import AtomGraph
from mlip.evaluation.predict import Prediction

MOST = 2_000_000
"""Points of a quantity that are kept; of more, every second, every fourth, …"""

MOST_ENTRIES = 200_000
"""The same of the entries of matrices, which are far more than anything else and look alike."""

_TITLES = {
    "forces": "Force components",
    "stress": "Stress components",
    "magmoms": "Sizes of magnetic moments",
    "hamiltonian": "Entries of the Hamiltonian",
}
_UNITS = {"1": "", "Hartree": "Eh"}
_NAMES = ["", *chemical_symbols[1:], "normal", "shear"]
_NORMAL, _SHEAR = len(_NAMES) - 2, len(_NAMES) - 1


@dataclass(frozen=True)
class Panel:
    """One quantity: reference and prediction in the unit of the axis.

    Attributes:
        title: quantity.
        unit: of the axes; errors are in ``m`` + unit, those of Hartree in µEh. Empty for plain numbers, whose errors
            are plain, too.
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
class Points:
    """The points of one quantity, thinned out evenly, and the sums over all of them.

    Args:
        most: points that are kept, all if None; see `MOST`.
    """

    most: int | None = None
    reference: array[float] = field(default_factory=lambda: array("d"))
    predicted: array[float] = field(default_factory=lambda: array("d"))
    group: array[int] = field(default_factory=lambda: array("h"))
    absolute: float = 0.0
    squared: float = 0.0
    weight: float = 0.0
    count: int = 0
    stride: int = 1

    def add(
        self, reference: np.ndarray, predicted: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None
    ) -> None:
        """Add points, each ``(points,)``; a reference of NaN is none.

        Args:
            reference, predicted: values.
            group: number of each point's colour group.
            weight: of each point in the errors; None: 1.
        """
        weight = np.ones(len(reference)) if weight is None else weight
        kept = ~np.isnan(reference)
        reference, predicted, group, weight = reference[kept], predicted[kept], group[kept], weight[kept]
        errors = predicted - reference
        self.absolute += float(np.abs(errors) @ weight)
        self.squared += float(errors**2 @ weight)
        self.weight += float(weight.sum())
        chosen = slice(-self.count % self.stride, None, self.stride)
        self.count += len(errors)
        for column, values in zip(self._columns(), (reference, predicted, group), strict=True):
            column.frombytes(np.ascontiguousarray(values[chosen], dtype=column.typecode).tobytes())
        if len(self.reference) > (MOST if self.most is None else self.most):
            self.stride *= 2
            self.reference, self.predicted, self.group = (column[::2] for column in self._columns())

    def panel(self, title: str, unit: str, names: Sequence[str] = ("",)) -> Panel:
        """Return what there is to draw.

        Args:
            title: of the quantity.
            unit: of the values, "" for none.
            names: of the groups.
        """
        group = np.array(names)[np.array(self.group)]
        mae, rmse = self.absolute / self.weight, math.sqrt(self.squared / self.weight)
        return Panel(title, unit, np.array(self.reference), np.array(self.predicted), group, rmse, mae, self.count)

    def _columns(self) -> tuple[array[float], array[float], array[int]]:
        return self.reference, self.predicted, self.group


class ParityPoints:
    """Collects energy an atom, force components by element, stress and the rest, as far as both sides have them."""

    def __init__(self) -> None:
        self._quantities: dict[str, Points] = {}

    def add(self, graph: AtomGraph, prediction: Prediction) -> None:
        """Add a single graph with labels, NaN for none, and its prediction."""
        atoms = graph.positions.shape[0]
        for name in TARGETS:
            if name not in prediction:
                continue
            predicted = np.asarray(prediction[name], dtype=np.float64)
            reference = _label(graph, name, predicted.shape)
            if FIELDS[name].level == "orbital_pair":
                self._add_matrix(name, reference, predicted)
                continue
            group = np.zeros(predicted.size)
            if name == "energy":
                reference, predicted = reference / atoms, predicted / atoms
            elif name == "forces":
                group = graph.atomic_numbers.cpu().numpy().repeat(3)
            elif name == "stress":
                # All nine components, as in `ErrorStatistics`, so that the numbers of plot and table agree.
                group = np.where(np.eye(3, dtype=bool), _NORMAL, _SHEAR).ravel()
            self._quantities.setdefault(name, Points()).add(reference.ravel(), predicted.ravel(), group)

    def _add_matrix(self, name: str, reference: np.ndarray, predicted: np.ndarray) -> None:
        """Add the upper half of a symmetric matrix; every molecule counts the same, as in `ErrorStatistics`."""
        size = len(reference)
        half = np.triu_indices(size)
        weight = np.where(half[0] == half[1], 1.0, 2.0) / size**2
        points = self._quantities.setdefault(name, Points(MOST_ENTRIES))
        points.add(reference[half], predicted[half], np.zeros(len(weight)), weight)

    def panels(self) -> list[Panel]:
        """Return what there is to draw."""
        return [_panel(name, points) for name, points in self._quantities.items() if points.count]


def _panel(name: str, points: Points) -> Panel:
    if name == "energy":
        # Their offset would hide the errors, so the mean of the reference is taken off.
        panel = points.panel("", "eV/atom", _NAMES)
        offset = panel.reference.mean()
        title = f"Energy per atom, relative to {offset:.3f} eV"
        return replace(panel, title=title, reference=panel.reference - offset, predicted=panel.predicted - offset)
    unit = _UNITS.get(FIELDS[name].unit, FIELDS[name].unit)
    return points.panel(_TITLES.get(name, name.replace("_", " ").capitalize()), unit, _NAMES)


def _label(graph: AtomGraph, name: str, shape: Sequence[int]) -> np.ndarray:
    """Return a label of a single graph, NaN where the graph has none; molecules have no stress."""
    value = graph.get(name)
    if value is None or (name == "stress" and not graph.pbc.any()):
        return np.full(shape, np.nan)
    label = value.cpu().numpy().reshape(shape)
    return np.abs(label) if FIELDS[name].unsigned else label
