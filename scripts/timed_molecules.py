"""Molecules of any size for the timing scripts: straight alkanes and lumps of water, neutral and closed-shell."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import read

CARBON_CARBON, CARBON_HYDROGEN = 1.53, 1.09
"""Å."""

WATER_SPACING = 3.1
"""Å between the oxygens, as in liquid water."""

RATTLE = 0.01
"""Å. Perfect molecules have equal pairs, of which a sparse gate keeps all or none."""


def named_molecule(name: str) -> Atoms:
    """Return a molecule: ``C13H28`` (an alkane), ``water9`` (a lump), ``CH3CH2OH`` (one of ASE's), or a file's first.

    Raises:
        SystemExit: there is no such molecule.
    """
    if Path(name).is_file():
        return read(name, index=0)
    if name.lower() == "ethanol":
        name = "CH3CH2OH"
    if found := re.fullmatch(r"C(\d+)H(\d+)", name):
        carbons, hydrogens = map(int, found.groups())
        if carbons > 0 and hydrogens == 2 * carbons + 2:
            return rattled(alkane(carbons))
    if found := re.fullmatch(r"water([1-9]\d*)", name):
        return rattled(waters(int(found.group(1))))
    try:
        return rattled(molecule(name))
    except KeyError as error:
        known = "an alkane (C13H28), a lump of water (water9), a molecule that ASE knows (CH3CH2OH), or a file"
        raise SystemExit(f"There is no molecule '{name}'. Give {known}.") from error


def rattled(atoms: Atoms) -> Atoms:
    """Return it a little distorted, always in the same way."""
    atoms.rattle(RATTLE, seed=0)
    return atoms


def alkane(carbons: int) -> Atoms:
    """Return the stretched (all-trans) alkane, all angles tetrahedral."""
    # Half the tetrahedral angle, whose cosine is -1/3.
    along, across = np.sqrt(2 / 3), np.sqrt(1 / 3)
    chain = np.array([[n * CARBON_CARBON * along, (n % 2) * CARBON_CARBON * across, 0.0] for n in range(carbons)])
    hydrogens = []
    for n, centre in enumerate(chain):
        side = -1.0 if n % 2 == 0 else 1.0
        bonds = [(0.0, side * across, along), (0.0, side * across, -along)]
        # At the ends a hydrogen stands where the chain would go on.
        bonds += [(-along, -side * across, 0.0)] if n == 0 else []
        bonds += [(along, -side * across, 0.0)] if n == carbons - 1 else []
        hydrogens += [centre + CARBON_HYDROGEN * np.array(bond) for bond in bonds]
    return Atoms("C" * carbons + "H" * len(hydrogens), np.vstack([chain, hydrogens]))


def waters(count: int) -> Atoms:
    """Return the waters of a grid that are closest to its middle, turned at random."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(count ** (1 / 3)))
    places = np.array([(x, y, z) for x in range(side) for y in range(side) for z in range(side)], dtype=float)
    order = np.argsort(np.square(places - places.mean(axis=0)).sum(axis=1), kind="stable")
    lump = Atoms()
    for place in places[order[:count]]:
        one = molecule("H2O")
        one.positions -= one.positions[0]
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.positions += place * WATER_SPACING
        lump += one
    return lump
