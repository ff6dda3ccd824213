"""Atoms of ASE in an instance of LAMMPS, through its commands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers


def fill(lmp: Any, atoms: Atoms, elements: Sequence[str], units: str = "metal", boundary: str = "p p p") -> None:
    """Create box, atoms (with tags from 1 in their order) and masses; the cell must be lower triangular."""
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell.array
    assert np.allclose(np.triu(atoms.cell.array, 1), 0)
    lmp.commands_list(
        [
            f"units {units}",
            "atom_modify map array sort 5 3.0",
            f"boundary {boundary}",
            f"region box prism 0 {lx} 0 {ly} 0 {lz} {xy} {xz} {yz} units box",
            f"create_box {len(elements)} box",
        ]
    )
    kinds = [1 + elements.index(symbol) for symbol in atoms.symbols]
    positions = atoms.positions.ravel().tolist()
    made = lmp.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), kinds, positions)
    assert made == len(atoms)
    for kind, element in enumerate(elements, 1):
        lmp.command(f"mass {kind} {atomic_masses[atomic_numbers[element]]}")
