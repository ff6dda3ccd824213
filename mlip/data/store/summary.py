"""Statistics of a store: added block by block, merged shard by shard."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlip.core.fields import DATA_FIELDS
from mlip.data.atomic_energies import AtomicEnergyFit
from mlip.data.store.columns import Columns

_ELEMENTS = 119


class Range:
    """Smallest and largest of the numbers seen."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        """Take numbers into account."""
        self.low = min(self.low, float(values.min(initial=np.inf)))
        self.high = max(self.high, float(values.max(initial=-np.inf)))

    def merge(self, other: Range) -> None:
        """Take those of another range into account."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def as_list(self) -> list[float] | None:
        """Return [smallest, largest]; None if there was no number."""
        return [self.low, self.high] if self.low <= self.high else None


class Summary:
    """Counts, histograms, ranges and the fit of atomic energies; `as_dict` documents them.

    Args:
        cutoff: Å, that edges were counted at.
    """

    def __init__(self, cutoff: float) -> None:
        self.cutoff = float(cutoff)
        self.structures = self.atoms = self.edges = 0
        self._with_element = np.zeros(_ELEMENTS, dtype=np.int64)
        self._of_element = np.zeros(_ELEMENTS, dtype=np.int64)
        self._counters = {name: Counter[Any]() for name in ("sizes", "neighbours", "labels", "pbc")}
        self._ranges = {name: Range() for name in ("energy", "energy_per_atom", "stress", "force")}
        self._force_squares, self._force_components = 0.0, 0
        self._fit = AtomicEnergyFit()

    def add(self, columns: Columns, num_edges: np.ndarray) -> None:
        """Add structures and their (structures,) numbers of edges."""
        owner = np.repeat(np.arange(len(columns)), columns.num_atoms)
        composition = np.bincount(owner * _ELEMENTS + columns.numbers, minlength=len(columns) * _ELEMENTS)
        composition = composition.reshape(-1, _ELEMENTS)
        self.structures += len(columns)
        self.atoms += len(columns.numbers)
        self.edges += int(num_edges.sum())
        self._with_element += np.count_nonzero(composition, axis=0)
        self._of_element += composition.sum(axis=0)
        self._counters["sizes"].update(columns.num_atoms.tolist())
        self._counters["neighbours"].update(np.rint(num_edges / columns.num_atoms).astype(int).tolist())
        self._counters["pbc"].update("".join("FT"[axis] for axis in row) for row in columns.pbc.astype(int).tolist())
        self._counters["labels"].update({name: int(c.present.sum()) for name, c in columns.labels.items()})
        self._add_labels(columns, composition)

    def _add_labels(self, columns: Columns, composition: np.ndarray) -> None:
        energy, forces, stress = (columns.labels.get(name) for name in ("energy", "forces", "stress"))
        if energy is not None:
            self._ranges["energy"].add(energy.values)
            self._ranges["energy_per_atom"].add(energy.values / columns.num_atoms[energy.present])
            self._fit.equations.add(composition[energy.present, 1:], energy.values)
        if forces is not None:
            squares = forces.values.reshape(-1, 3) ** 2
            self._ranges["force"].add(np.sqrt(squares.sum(axis=1)))
            self._force_squares += float(squares.sum())
            self._force_components += squares.size
        if stress is not None:
            self._ranges["stress"].add(stress.values)

    def merge(self, other: Summary) -> None:
        """Add the structures of another summary at the same cutoff."""
        self.structures += other.structures
        self.atoms += other.atoms
        self.edges += other.edges
        self._with_element += other._with_element
        self._of_element += other._of_element
        for name, counter in self._counters.items():
            counter.update(other._counters[name])
        for name, found in self._ranges.items():
            found.merge(other._ranges[name])
        self._force_squares += other._force_squares
        self._force_components += other._force_components
        self._fit.equations.merge(other._fit.equations)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values.

        Returns:
            ``structures``, ``atoms``, ``edges``, ``cutoff`` (Å), ``num_neighbors`` (edges per atom), ``elements``
            ({symbol: [structures, atoms]}), ``sizes`` ({atoms: structures}), ``neighbours`` ({edges per atom,
            rounded: structures}), ``labels`` ({field: structures that have it}), ``pbc`` ({"TTF": structures}),
            ``energy`` and ``energy_per_atom`` (eV), ``stress`` (eV/Å³, components) as [smallest, largest],
            ``largest_force`` (eV/Å, norm), ``force_rms`` (eV/Å, components), ``atomic_energies`` of least squares:
            ``energies`` (eV by symbol), ``rank`` (how many elements the compositions determine), ``rmse`` (eV per
            structure); None where there is nothing to tell.
        """
        found = np.flatnonzero(self._of_element)
        force = self._ranges["force"].as_list()
        counters = {name: dict(sorted(counter.items())) for name, counter in self._counters.items()}
        return {
            "structures": self.structures,
            "atoms": self.atoms,
            "edges": self.edges,
            "cutoff": self.cutoff,
            "num_neighbors": self.edges / self.atoms if self.atoms else None,
            "elements": {
                chemical_symbols[z]: [int(self._with_element[z]), int(self._of_element[z])] for z in found.tolist()
            },
            **{name: {str(key): count for key, count in counter.items()} for name, counter in counters.items()},
            **{name: self._ranges[name].as_list() for name in ("energy", "energy_per_atom", "stress")},
            "largest_force": force[1] if force else None,
            "force_rms": float(np.sqrt(self._force_squares / self._force_components)) if force else None,
            "atomic_energies": self._atomic_energies(),
        }

    def _atomic_energies(self) -> dict[str, Any] | None:
        equations = self._fit.equations
        if equations.num_rows == 0:
            return None
        rmse = equations.residual(equations.solve())
        # More digits are noise of the arithmetic.
        energies = {symbol: round(energy, 10) for symbol, energy in self._fit.energies().items()}
        return {"energies": energies, "rank": self._fit.rank, "rmse": rmse}

    @property
    def labels(self) -> set[str]:
        """Fields that some structure has."""
        return {name for name, count in self._counters["labels"].items() if count}

    @property
    def provides(self) -> tuple[str, ...]:
        """Fields that every structure has."""
        counts = self._counters["labels"]
        return tuple(name for name in DATA_FIELDS if self.structures and counts[name] == self.structures)
