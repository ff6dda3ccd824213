"""Slabs of a crystal, cut by pymatgen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mlip.core.errors import SimulationError
from mlip.simulate.properties.miller import indices_in, oriented, plane_cell, upright
from mlip.simulate.properties.sites import READ, arranged, kind_numbers
from mlip.simulate.properties.symmetry import primitive_cell

MIN_VACUUM = 5.0
"""Å of empty space that a slab must have, or its two sides touch."""


SYMPREC = 0.01
"""Å within which the crystal is periodic."""


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
    crystal: Atoms,
    miller: tuple[int, int, int],
    thickness: float,
    vacuum: float,
    *,
    cell: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
) -> tuple[list[CutSlab], int]:
    """Cut all terminations of a plane.

    Args:
        crystal: relaxed.
        miller: indices.
        thickness: Å, at least.
        vacuum: Å, at least.
        cell: (3, 3) Å that the indices refer to; None: see `plane_cell`.
        kinds: (atoms,) of sites that differ in more than the element, see `site_kinds`; None: the elements only.

    Returns:
        Those with the composition of the crystal, and the number of others. Each atom has the moment, charge and mass
        of its kind.
    """
    from pymatgen.core import Species, Structure
    from pymatgen.core.surface import SlabGenerator

    cell = plane_cell(crystal).vectors if cell is None else cell
    kinds = np.unique(crystal.numbers, return_inverse=True)[1] if kinds is None else kinds
    # pymatgen tells sites apart by their species: a spin stands for the kind.
    names = [
        Species(symbol, spin=number) if number else Species(symbol)
        for symbol, number in zip(crystal.symbols, kind_numbers(crystal, kinds))
    ]
    first = {kind: int(np.flatnonzero(kinds == kind)[0]) for kind in sorted(set(kinds.tolist()))}
    sources = {names[number]: number for number in first.values()}
    lattice, scaled, found = primitive_cell(crystal, SYMPREC, kinds)
    # A cell in which the plane is (0 0 1): pymatgen's own is of several repeats for many planes.
    turn = oriented(lattice, indices_in(cell, miller, lattice))
    bare = _without_extras(crystal)
    with warnings.catch_warnings():
        # Of pymatgen and spglib about each other.
        warnings.simplefilter("ignore", DeprecationWarning)
        species = [names[first[kind]] for kind in found.tolist()]
        structure = Structure(turn @ lattice, species, scaled @ np.linalg.inv(turn))
        generator = SlabGenerator(structure, (0, 0, 1), thickness, vacuum, center_slab=True, primitive=False)
        formula = structure.composition.reduced_composition
        kept, dropped = [], 0
        for slab in generator.get_slabs():
            if not slab.composition.reduced_composition.almost_equals(formula):
                dropped += 1
                continue
            like = [sources[site.specie] for site in slab]
            atoms = arranged(bare, like, slab.lattice.matrix, slab.frac_coords)
            atoms.set_cell(upright(slab.lattice.matrix))
            kept.append(CutSlab(atoms, miller, float(slab.shift), bool(slab.is_symmetric())))
    return kept, dropped


def _without_extras(crystal: Atoms) -> Atoms:
    """Return a copy with no more of each atom than its kind has."""
    copy = crystal.copy()
    for name in set(copy.arrays) - {"numbers", "positions", "masses", *READ}:
        del copy.arrays[name]
    return copy


def gap(slab: Atoms) -> float:
    """Return the largest empty stretch along the normal of a and b, in Å, the periodic image included."""
    return _largest_gap(*_heights(slab))[0]


def in_one_piece(slab: Atoms) -> Atoms:
    """Return a copy whose atoms are all on one side of the vacuum, of a slab that is periodic along the third axis.

    Layers that a program has wrapped to the other end of the cell come back; the highest layer, the one under the
    largest empty stretch, stays where it is.
    """
    heights, period = _heights(slab)
    _, top = _largest_gap(heights, period)
    reduced = heights % period
    wanted = np.where(reduced > top, reduced - period, reduced)
    shifts = np.round((wanted - heights) / period)
    shifts -= shifts[np.argmax(wanted)]
    c = slab.cell.array[2]
    copy = slab.copy()
    copy.positions += shifts[:, None] * c * np.sign(c @ normal_of(slab))
    return copy


def normal_of(slab: Atoms) -> np.ndarray:
    """Return the unit vector (3,) across a and b, along which heights are measured."""
    normal = np.cross(*slab.cell.array[:2])
    return normal / np.linalg.norm(normal)


def _heights(slab: Atoms) -> tuple[np.ndarray, float]:
    """Return the heights (atoms,) along the normal and their period, Å."""
    normal = normal_of(slab)
    return slab.positions @ normal, abs(float(slab.cell.array[2] @ normal))


def _largest_gap(heights: np.ndarray, period: float) -> tuple[float, float]:
    """Return the width of the largest gap, and the reduced height at which it begins."""
    places = np.sort(heights % period)
    widths = np.diff([*places, places[0] + period])
    widest = int(np.argmax(widths))
    return float(widths[widest]), float(places[widest])
