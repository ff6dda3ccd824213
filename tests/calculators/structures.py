"""Structures of every periodicity for the calculator's tests."""

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111

from mlip.calculators.ase import MLIPCalculator
from tests.simulate.pair_model import PairModel

MODEL = PairModel()


def crystal(seed: int = 0) -> Atoms:
    """A skewed triclinic cell of two elements, atoms off their sites and far outside of the cell."""
    atoms = bulk("Cu", "fcc", a=3.7) * (2, 1, 1)
    atoms.symbols[0] = "C"
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.array([[0.05, 0.1, 0], [0, -0.03, 0.2], [0.02, 0, 0.04]])), True)
    atoms.rattle(0.15, seed=seed)
    atoms.positions += [[30, -7, 4], [0, 0, 0]]
    return atoms


def slab(tilted: bool = False) -> Atoms:
    """A slab with vacuum; tilted: the vacuum vector is not normal to it."""
    atoms = fcc111("Cu", (1, 2, 2), a=3.6, vacuum=3.0)
    atoms.pbc = (True, True, False)
    atoms.rattle(0.1, seed=1)
    if tilted:
        atoms.cell[2] += [2.0, 1.0, 0.0]
    return atoms


def wire() -> Atoms:
    """A wire along x in a box."""
    atoms = Atoms("CuCCu", [[0, 0, 0], [1.6, 0.9, 0.2], [0.2, 1.9, 1.1]], cell=[3.1, 9, 8], pbc=(True, False, False))
    atoms.rattle(0.05, seed=2)
    return atoms


def with_calculator(atoms: Atoms, **options: object) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = MLIPCalculator(MODEL, **options)
    return atoms
