"""Which elements structures consist of, and their energies: what reference energies of the elements need."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import ConfigError, DataError
from mlip.data.atomic_energies import AtomicEnergyFit, check_isolated, describe_fit
from mlip.data.elements import list_elements

SOURCES = ("auto", "isolated", "least_squares")


class Compositions:
    """Compositions and energies of any number of structures, seen once; equal compositions are kept once."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._which = array("q")
        self._energies = array("d")

    def add(self, numbers: np.ndarray, energy: float) -> None:
        """Add a structure.

        Args:
            numbers: (atoms,) atomic numbers.
            energy: eV; NaN where there is no label.
        """
        key = np.bincount(numbers).astype("<i4").tobytes()
        self._which.append(self._numbers.setdefault(key, len(self._numbers)))
        self._energies.append(energy)

    @property
    def energies(self) -> np.ndarray:
        """(structures,) eV, NaN where there is no label."""
        return np.array(self._energies)

    @property
    def num_atoms(self) -> int:
        """Atoms of all structures."""
        return int(self._counts()[1].sum(axis=1)[self._index()].sum())

    @property
    def elements(self) -> list[str]:
        """Symbols, by atomic number."""
        return [chemical_symbols[number] for number in self._counts()[0]]

    def binding(self, reference: Mapping[str, float]) -> np.ndarray:
        """Return (structures,) eV per atom above the atoms' reference energies, NaN where there is no energy."""
        numbers, counts = self._counts()
        shifts = counts @ np.array([reference[chemical_symbols[number]] for number in numbers])
        return (self.energies - shifts[self._index()]) / counts.sum(axis=1)[self._index()]

    def atomic_energies(
        self, isolated: Mapping[str, float] | None = None, source: str = "auto", regularisation: float = 0.0
    ) -> tuple[dict[str, float], str]:
        """Determine the reference energy of every element.

        Args:
            isolated: energies of isolated atoms by symbol, eV.
            source: ``isolated``, ``least_squares``, or ``auto``, which takes isolated atoms if there are any.
            regularisation: of least squares, see `AtomicEnergyFit.energies`.

        Returns:
            E0 in eV by symbol, and where they come from, in words.

        Raises:
            DataError: isolated atoms are there for some elements only, or belong to other energies.
            ConfigError: an unknown source, or a negative regularisation.
        """
        if source not in SOURCES:
            raise ConfigError(f"The source of atomic energies must be auto, isolated or least_squares, got {source!r}.")
        if not isinstance(regularisation, int | float) or not 0 <= regularisation < float("inf"):
            raise ConfigError(
                f"The regularisation of atomic energies must be a number that is not negative, got {regularisation!r}."
            )
        if source == "isolated" or (source == "auto" and isolated):
            return self._from_isolated(dict(isolated or {})), "isolated atoms"
        return describe_fit(self._fit(), self.elements, regularisation)

    def _from_isolated(self, isolated: dict[str, float]) -> dict[str, float]:
        missing = [symbol for symbol in self.elements if symbol not in isolated]
        if missing:
            raise DataError(
                f"Isolated-atom energies are missing for {list_elements(missing)}, and needed for "
                f"{list_elements(self.elements)} (there: {list_elements(sorted(isolated)) or 'none'}). Add them, or "
                "use least_squares."
            )
        chosen = {symbol: float(isolated[symbol]) for symbol in self.elements}
        check_isolated(chosen, self.binding(chosen))
        return chosen

    def _fit(self) -> AtomicEnergyFit:
        """Fit with one equation for each composition: the mean energy, weighted by the number of structures."""
        numbers, counts = self._counts()
        energies, index = self.energies, self._index()
        labelled = np.isfinite(energies)
        weights = np.bincount(index[labelled], minlength=len(counts))
        totals = np.bincount(index[labelled], weights=energies[labelled], minlength=len(counts))
        there = weights > 0
        roots = np.sqrt(weights[there])
        fit = AtomicEnergyFit()
        rows = np.zeros((int(there.sum()), fit.equations.num_columns))
        rows[:, np.array(numbers, dtype=int) - 1] = counts[there] * roots[:, None]
        fit.equations.add(rows, totals[there] / roots)
        return fit

    def _index(self) -> np.ndarray:
        return np.array(self._which)

    def _counts(self) -> tuple[list[int], np.ndarray]:
        """Return the atomic numbers that occur, and (compositions, elements) counts."""
        rows = [np.frombuffer(key, dtype="<i4") for key in self._numbers]
        table = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
        for row, values in zip(table, rows):
            row[: len(values)] = values
        numbers = np.flatnonzero(table.any(axis=0))
        return numbers.tolist(), table[:, numbers]
