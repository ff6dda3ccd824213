"""What a compact store rounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, did_you_mean
from mlip.data.sample import Sample
from mlip.data.store.positions import have_fractions

POSITION_DECIMALS = 6
FORCE_DECIMALS = 5
STRESS_DECIMALS = 7
"""Decimals in Å, eV/Å and eV/Å³; rounding moves a number by half a unit of the last one at most."""


def exact(sample: Sample) -> Sample:
    """Return the sample as it is."""
    return sample


def compact(sample: Sample) -> Sample:
    """Return the sample with rounded positions, cell, forces and stress; energies and all else stay.

    Positions that follow from fractional coordinates stay, too, with their cell: they take less space as they are.
    """
    atoms = sample.atoms
    labels = dict(sample.labels)
    for name, decimals in (
        ("forces", FORCE_DECIMALS),
        ("stress", STRESS_DECIMALS),
        ("relaxed_positions", POSITION_DECIMALS),
    ):
        if name in labels:
            labels[name] = np.round(labels[name], decimals)
    if not have_fractions(atoms.positions, atoms.cell.array):
        positions, cell = (np.round(array, POSITION_DECIMALS) for array in (atoms.positions, atoms.cell.array))
        atoms = Atoms(atoms.numbers, positions=positions, cell=cell, pbc=atoms.pbc)
    return Sample(atoms, labels, sample.info, sample.isolated)


PRECISIONS: dict[str, Callable[[Sample], Sample]] = {"exact": exact, "compact": compact}
"""What is done to a sample before it is stored, by the name in the configuration."""


def rounding(precision: str) -> Callable[[Sample], Sample]:
    """Return what is done to a sample before it is stored.

    Raises:
        ConfigError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}."
            f"{did_you_mean(str(precision), PRECISIONS)}"
        )
    return PRECISIONS[precision]
