"""What is in a data set: counts, elements, sizes, labels and their ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlip.core.fields import FIELDS
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable

LISTED = 12
"""Values of ``config_type`` and the like that are listed."""

PBC = {0: "none", 1: "one axis", 2: "two axes", 3: "three axes"}


class Overview:
    """Counters and ranges that do not grow with the number of structures."""

    def __init__(self) -> None:
        self.num_structures = self.num_atoms = self.num_edges = 0
        self._labels: Counter[str] = Counter()
        self._ranges: dict[str, tuple[float, float]] = {}
        self._pbc: Counter[int] = Counter()
        self._sizes: Counter[int] = Counter()
        self._atoms_of: Counter[int] = Counter()
        self._kinds: Counter[str] = Counter()
        self._shortest = np.inf
        self._most_neighbours = 0

    def update(self, frame: Frame) -> None:
        """Add a structure."""
        self.num_structures += 1
        self.num_atoms += len(frame)
        self.num_edges += len(frame.distances)
        self._sizes[len(frame)] += 1
        self._pbc[int(frame.atoms.pbc.sum())] += 1
        self._atoms_of.update(dict(frame.composition))
        kind = str(frame.sample.info.get("config_type", ""))
        if len(self._kinds) < 10_000 or kind in self._kinds:
            self._kinds[kind] += 1
        if len(frame.distances):
            self._shortest = min(self._shortest, float(frame.distances.min()))
            self._most_neighbours = max(self._most_neighbours, int(frame.num_neighbours.max()))
        for name in frame.labels:
            self._labels[name] += 1
            value = frame.label(name)
            if value is None or not np.size(value):
                continue
            value = value / len(frame) if name == "energy" else value
            low, high = self._ranges.get(name, (np.inf, -np.inf))
            self._ranges[name] = min(low, float(np.min(value))), max(high, float(np.max(value)))

    def as_dict(self, table: FrameTable) -> dict[str, Any]:
        """Return plain values; lengths in Å, energies in eV, ``energy`` per atom."""
        kinds = self._kinds.most_common(LISTED)
        groups = table.geometries.group_names
        return {
            "structures": self.num_structures,
            "atoms": self.num_atoms,
            "sizes": size_summary(self._sizes),
            "compositions": len(table.compositions),
            "elements": {
                chemical_symbols[z]: {"structures": count, "atoms": self._atoms_of[z]}
                for z, count in sorted(table.elements.items())
            },
            "labels": {
                name: {
                    "structures": self._labels[name],
                    "unit": label_unit(name),
                    "range": list(self._ranges[name]) if name in self._ranges else None,
                }
                for name in FIELDS
                if name in self._labels
            },
            "periodic axes": {PBC[axes]: count for axes, count in sorted(self._pbc.items())},
            "config types": {name: count for name, count in kinds if name},
            "groups": len(groups),
            "isolated atoms": dict(sorted(table.isolated.items())),
            "neighbours": {
                "mean": self.num_edges / self.num_atoms if self.num_atoms else 0.0,
                "most": self._most_neighbours,
                "shortest distance": self._shortest if np.isfinite(self._shortest) else None,
            },
        }


def size_summary(sizes: Mapping[int, int]) -> dict[str, int]:
    """Return ``smallest``, ``median`` and ``largest`` of {atoms: structures}; empty for none."""
    if not sizes:
        return {}
    ordered = sorted(sizes)
    ends = np.cumsum([sizes[size] for size in ordered])
    middle = ordered[int(np.searchsorted(ends, ends[-1] / 2))]
    return {"smallest": ordered[0], "median": middle, "largest": ordered[-1]}


def label_unit(name: str) -> str:
    """Return the unit in which a label is shown: energies per atom."""
    return "eV/atom" if name == "energy" else FIELDS[name].unit
