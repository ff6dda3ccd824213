"""Supercells that are wide enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.simulate.ensembles import require_positive

NARROW = 8.0
"""Å of width below which a supercell is small, for a calculator that does not tell its range."""

MAX_ATOMS = 20_000
"""Atoms of a supercell beyond which somebody mistook a unit."""


def widths(atoms: Atoms) -> np.ndarray:
    """Return the distances (3,) of opposite faces of a cell, Å."""
    return 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)


def repeats_for(atoms: Atoms, min_length: float) -> tuple[int, int, int]:
    """Return how often to repeat a cell along each axis so that it is ``min_length`` Å wide.

    Raises:
        SimulationError: no positive length, or far too many atoms.
    """
    require_positive(min_length=min_length)
    repeats = tuple(math.ceil(min_length / width - 1e-6) for width in widths(atoms))
    if len(atoms) * math.prod(repeats) > MAX_ATOMS:
        raise SimulationError(
            f"A supercell {min_length:g} Å wide has {len(atoms) * math.prod(repeats)} atoms, more than {MAX_ATOMS}: "
            "choose a smaller length or give the repetitions."
        )
    return repeats


def check_repeats(repeats: Sequence[int]) -> tuple[int, int, int]:
    """Return three positive whole numbers.

    Raises:
        SimulationError: they are not.
    """
    found = tuple(repeats)
    if len(found) != 3 or any(int(n) != n or n < 1 for n in found):
        raise SimulationError(f"A supercell is three whole numbers of 1 or more, such as 3 3 2; got {list(found)}.")
    return tuple(int(n) for n in found)


def small_supercell_warning(atoms: Atoms, repeats: Sequence[int], calculator: Calculator) -> list[str]:
    """Return a warning if an atom feels its own image: narrower than twice the cutoff of a model, else `NARROW`."""
    width = float((widths(atoms) * np.array(repeats)).min())
    cutoff = calculator.model.graph_builder.cutoff if isinstance(calculator, MLIPCalculator) else math.nan
    needed = 2 * cutoff if math.isfinite(cutoff) else NARROW
    if width >= needed - 1e-6:
        return []
    why = f"twice the model's cutoff, {needed:g} Å" if math.isfinite(cutoff) else f"{needed:g} Å"
    return [
        f"The supercell is only {width:.2f} Å wide, less than {why}: atoms feel the images of displaced ones; use a "
        "larger one (--min-length or --supercell)."
    ]
