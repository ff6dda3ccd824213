"""Slabs of a crystal, cut by pymatgen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mlip.core.errors import SimulationError

MIN_VACUUM = 5.0
"""Å of empty space that a slab must have, or its two sides touch."""


@dataclass(frozen=True)
class CutSlab:
    """One termination.

    Attributes:
        atoms: periodic along all axes, vacuum along the third.
        miller: indices.
        shift: where it was cut.
        symmetric: whether both sides are equivalent.
    """

    atoms: Atoms
    miller: tuple[int, int, int]
    shift: float
    symmetric: bool


def check_miller(indices: Sequence[int]) -> tuple[int, int, int]:
    """Return three indices; four (h k i l) become three.

    Raises:
        SimulationError: another number of indices, no whole numbers, all zero, or i ≠ −h − k.
    """
    found = tuple(indices)
    if len(found) not in (3, 4) or any(int(n) != n for n in found):
        raise SimulationError(f"Miller indices are three whole numbers (four if hexagonal), got {list(found)}.")
    found = tuple(int(n) for n in found)
    if len(found) == 4:
        if found[2] != -found[0] - found[1]:
            raise SimulationError(f"Of four Miller indices (h k i l) i is −h − k, got {list(found)}.")
        found = (found[0], found[1], found[3])
    if not any(found):
        raise SimulationError("Miller indices 0 0 0 name no plane.")
    divisor = int(np.gcd.reduce(found))
    return tuple(n // divisor for n in found)


def cut_slabs(
    crystal: Atoms, miller: tuple[int, int, int], thickness: float, vacuum: float
) -> tuple[list[CutSlab], int]:
    """Cut all terminations of a plane of the conventional cell.

    Args:
        crystal: relaxed.
        miller: of the conventional cell.
        thickness: Å, at least.
        vacuum: Å, at least.

    Returns:
        Those with the composition of the crystal, and the number of others.
    """
    from pymatgen.core.surface import SlabGenerator
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    bare = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=True)
    with warnings.catch_warnings():
        # Of pymatgen and spglib about each other.
        warnings.simplefilter("ignore", DeprecationWarning)
        structure = AseAtomsAdaptor.get_structure(bare)
        conventional = SpacegroupAnalyzer(structure, symprec=0.01).get_conventional_standard_structure()
        generator = SlabGenerator(
            conventional, miller, thickness, vacuum, center_slab=True, lll_reduce=True, primitive=True
        )
        slabs = generator.get_slabs()
        formula = structure.composition.reduced_composition
        kept, dropped = [], 0
        for slab in slabs:
            if not slab.composition.reduced_composition.almost_equals(formula):
                dropped += 1
                continue
            atoms = Atoms(slab.atomic_numbers, slab.cart_coords, cell=slab.lattice.matrix, pbc=True)
            atoms.info = dict(crystal.info)
            kept.append(CutSlab(atoms, miller, float(slab.shift), bool(slab.is_symmetric())))
    return kept, dropped


def gap(slab: Atoms) -> float:
    """Return the largest empty stretch along the normal of a and b, in Å, the periodic image included."""
    a, b, c = slab.cell.array
    normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    period = abs(float(c @ normal))
    heights = np.sort(slab.positions @ normal % period)
    return float(np.diff([*heights, heights[0] + period]).max())
