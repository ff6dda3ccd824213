"""Reference energies of the elements: from isolated atoms, or from least squares over the structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import ConfigError, DataError
from mlip.data.sample import Sample

UNBOUND = 50.0
"""eV per atom; no structure is bound, or strained, that much against its isolated atoms."""


def composition(samples: Sequence[Sample]) -> tuple[list[str], np.ndarray]:
    """Return the element symbols, sorted by atomic number, and the counts (samples, elements)."""
    numbers = sorted({int(number) for sample in samples for number in sample.atoms.numbers})
    counts = np.array([[np.count_nonzero(s.atoms.numbers == z) for z in numbers] for s in samples], dtype=float)
    return [chemical_symbols[number] for number in numbers], counts.reshape(len(samples), len(numbers))


def sample_energies(samples: Sequence[Sample]) -> np.ndarray:
    """Return the energies (samples,) in eV, NaN where there is no label."""
    return np.array([float(sample.labels.get("energy", np.nan)) for sample in samples])


def atomic_energies(
    samples: Sequence[Sample], isolated: Mapping[str, float] | None = None, source: str = "auto"
) -> tuple[dict[str, float], str]:
    """Determine the reference energy E0 of every element.

    Args:
        samples: training samples.
        isolated: energies of isolated atoms by symbol, eV.
        source: ``isolated``, ``least_squares``, or ``auto``, which takes isolated atoms if there are any.

    Returns:
        E0 in eV by symbol, and where they come from, in words.

    Raises:
        DataError: isolated atoms are there for some elements only, or belong to other energies.
        ConfigError: an unknown source.
    """
    if source not in ("auto", "isolated", "least_squares"):
        raise ConfigError(f"The source of atomic energies must be auto, isolated or least_squares, got {source!r}.")
    elements, counts = composition(samples)
    energies = sample_energies(samples)
    isolated = dict(isolated or {})
    if source == "isolated" or (source == "auto" and isolated):
        return _from_isolated(elements, counts, energies, isolated), "isolated atoms"
    return _from_least_squares(elements, counts, energies)


def _from_isolated(
    elements: list[str], counts: np.ndarray, energies: np.ndarray, isolated: Mapping[str, float]
) -> dict[str, float]:
    missing = [symbol for symbol in elements if symbol not in isolated]
    if missing:
        raise DataError(
            f"Isolated-atom energies are needed for {', '.join(elements)}, but missing for "
            f"{', '.join(missing)} (there: {', '.join(sorted(isolated)) or 'none'}). Add them, or use "
            "least_squares."
        )
    chosen = {symbol: float(isolated[symbol]) for symbol in elements}
    binding = (energies - counts @ np.array([*chosen.values()])) / counts.sum(axis=1)
    binding = binding[np.isfinite(binding)]
    if binding.size and abs(np.median(binding)) > UNBOUND:
        raise DataError(
            "The isolated-atom energies do not belong to the energies of the structures: "
            f"{np.median(binding):.4g} eV/atom lie between them. Use the same code and settings for both, "
            "or least_squares."
        )
    return chosen


def _from_least_squares(elements: list[str], counts: np.ndarray, energies: np.ndarray) -> tuple[dict[str, float], str]:
    labelled = np.isfinite(energies)
    if not labelled.any():
        return dict.fromkeys(elements, 0.0), "zero (no energies in the data)"
    # The minimum-norm solution where compositions do not determine all elements.
    solution, _, rank, _ = np.linalg.lstsq(counts[labelled], energies[labelled], rcond=None)
    note = "least squares"
    if rank < len(elements):
        note += (
            f" of minimum norm (the compositions determine {rank} of {len(elements)} elements: energies of "
            "other compositions have no meaning)"
        )
    return {symbol: float(value) for symbol, value in zip(elements, solution, strict=True)}, note
