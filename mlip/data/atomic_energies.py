"""The least-squares fit of reference energies, what it leaves open, and a test of isolated atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import DataError
from mlip.data.least_squares import StreamedLeastSquares

UNBOUND = 50.0
"""eV per atom; no structure is bound, or strained, that much against its isolated atoms."""

NUM_ELEMENTS = 118
SHARED = 1e-6
"""Least entry of the projector on the null space that ties two elements together."""


class AtomicEnergyFit:
    """Least-squares energies of the elements, over any number of structures that are seen once.

    Args:
        equations: 118 unknowns, one for each element by atomic number, to go on from; None starts anew.
    """

    def __init__(self, equations: StreamedLeastSquares | None = None) -> None:
        self.equations = StreamedLeastSquares(NUM_ELEMENTS) if equations is None else equations

    def add(self, numbers: np.ndarray, energy: float) -> None:
        """Add a structure.

        Args:
            numbers: (atoms,) atomic numbers.
            energy: total energy, eV.

        Raises:
            DataError: the energy is not finite.
        """
        self.equations.add(np.bincount(numbers, minlength=NUM_ELEMENTS + 1)[None, 1:], np.array([energy]))

    @property
    def elements(self) -> list[str]:
        """Symbols of the elements that were seen, by atomic number."""
        return [chemical_symbols[column + 1] for column in np.flatnonzero(self.equations.used)]

    @property
    def rank(self) -> int:
        """How many combinations of elements the compositions determine."""
        return self.equations.rank

    def energies(self, regularisation: float = 0.0) -> dict[str, float]:
        """Return E0 in eV by symbol.

        Args:
            regularisation: 0: of minimum norm where the compositions leave something open. Otherwise the weight of
                one further equation for each element, which draws it towards the mean energy per atom; 1 is the
                weight of a structure of one atom.
        """
        solution = self.equations.solve(regularisation)
        used = np.flatnonzero(self.equations.used)
        return {chemical_symbols[column + 1]: float(solution[column]) for column in used}

    def undetermined(self) -> list[str]:
        """Say what the compositions leave open, one phrase for each group of elements that are tied together.

        >>> fit = AtomicEnergyFit()
        >>> fit.add(np.array([11, 17]), -6.8)
        >>> fit.undetermined()
        ['of Na, Cl only Na + Cl together']
        """
        null = self.equations.null_space()
        projector = null.T @ null
        phrases = []
        left = set(np.flatnonzero(np.diag(projector) > SHARED).tolist())
        while left:
            group, border = set(), {min(left)}
            while border:
                group |= border
                border = {
                    j for i in border for j in np.flatnonzero(np.abs(projector[i]) > SHARED).tolist() if j not in group
                }
            left -= group
            members = sorted(group)
            known = np.eye(len(members)) - projector[np.ix_(members, members)]
            symbols = [chemical_symbols[column + 1] for column in members]
            phrases.append(f"of {', '.join(symbols)} only {_combinations(known, symbols)}")
        return phrases


def describe_fit(
    fit: AtomicEnergyFit, elements: Sequence[str], regularisation: float = 0.0
) -> tuple[dict[str, float], str]:
    """Return E0 of some elements from a fit, 0 where it saw none, and where they come from, in words."""
    found = fit.energies(regularisation)
    if not found:
        return dict.fromkeys(elements, 0.0), "zero (no energies in the data)"
    note = f"least squares with regularisation {regularisation:g}" if regularisation else "least squares"
    if fit.rank < len(elements):
        note += "" if regularisation else " of minimum norm"
        note += (
            f" (the compositions determine {fit.rank} of {len(elements)} elements: energies of other compositions have "
            f"no meaning; determined {'; '.join(fit.undetermined())})"
        )
    return {symbol: found.get(symbol, 0.0) for symbol in elements}, note


def check_isolated(isolated: Mapping[str, float], binding: np.ndarray) -> None:
    """Refuse isolated atoms of another code or setting.

    Args:
        isolated: energies by symbol, eV.
        binding: (structures,) eV per atom above the isolated atoms; NaN without an energy.

    Raises:
        DataError: half the structures are too far from them.
    """
    binding = binding[np.isfinite(binding)]
    if binding.size and abs(np.median(binding)) > UNBOUND:
        raise DataError(
            "The isolated-atom energies do not belong to the energies of the structures: "
            f"{np.median(binding):.4g} eV/atom lie between them. Use the same code and settings for both, "
            "or least_squares."
        )


def _combinations(known: np.ndarray, symbols: Sequence[str]) -> str:
    """Name the sums of elements that a projector leaves, in whole numbers: ``6 H + 2 C + O together``."""
    rows = _echelon(known)
    if len(rows) > 6:
        return f"{len(rows)} combinations"
    texts = []
    for row in rows:
        fractions = [Fraction(float(value)).limit_denominator(200) for value in row]
        if max(abs(float(fraction) - value) for fraction, value in zip(fractions, row)) > 1e-6:
            return f"{len(rows)} combination{'s' if len(rows) > 1 else ''}"
        whole = [int(fraction * lcm(*(f.denominator for f in fractions))) for fraction in fractions]
        terms = [
            f"{'-' if count < 0 else '+'} {'' if abs(count) == 1 else f'{abs(count)} '}{symbol}"
            for count, symbol in zip(whole, symbols)
            if count
        ]
        texts.append(" ".join(terms).removeprefix("+ "))
    return " and ".join(texts) + " together"


def _echelon(matrix: np.ndarray, tolerance: float = 1e-7) -> np.ndarray:
    """Return the reduced row echelon form without its rows of zeros."""
    rows = matrix.copy()
    done = 0
    for column in range(rows.shape[1]):
        if done == len(rows):
            break
        pivot = done + int(np.abs(rows[done:, column]).argmax())
        if abs(rows[pivot, column]) < tolerance:
            continue
        rows[[done, pivot]] = rows[[pivot, done]]
        rows[done] /= rows[done, column]
        others = np.arange(len(rows)) != done
        rows[others] -= np.outer(rows[others, column], rows[done])
        done += 1
    return rows[:done]
