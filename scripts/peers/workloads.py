"""Structures of the timings, written to files that workers in any environment read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.neighborlist import neighbor_list

from peers.driver import SCRIPTS, BenchmarkError

CUTOFF = 5.0
"""Å."""

THREEBPA = "3bpa/train_300K.xyz"
"""In the folder of reference data."""


@dataclass(frozen=True)
class Workload:
    """Structures in a file.

    Attributes:
        name: in tables.
        path: extxyz.
        elements: ascending by atomic number.
        num_neighbors: edges an atom within :data:`CUTOFF`, on average.
        edges: within it.
    """

    name: str
    path: str
    elements: list[str]
    num_neighbors: float
    edges: int


def silicon(atoms: int, seed: int = 0) -> Atoms:
    """Return diamond, 5.43 Å, atoms displaced by 0.05 Å (root mean square of a component).

    Raises:
        BenchmarkError: not the number of atoms of a cube of cells.
    """
    cells = round((atoms / 8) ** (1 / 3))
    if atoms < 8 or 8 * cells**3 != atoms:
        near = sorted({8 * max(1, cells + change) ** 3 for change in (-1, 0, 1)})
        raise BenchmarkError(f"A cube of silicon has 8 n³ atoms, such as {', '.join(map(str, near))}, not {atoms}.")
    found = bulk("Si", "diamond", a=5.43, cubic=True).repeat(cells)
    found.rattle(stdev=0.05, seed=seed)
    return found


def molecules(count: int) -> list[Atoms]:
    """Return the first structures of 3BPA at 300 K, their mean energy taken off.

    Raises:
        BenchmarkError: there are no reference data.
    """
    folder = Path(os.environ.get("MLIP_DATA", SCRIPTS.parents[1] / "shared" / "data"))
    if not (folder / THREEBPA).is_file():
        raise BenchmarkError(
            f"There is no {THREEBPA} in '{folder}': set MLIP_DATA to the folder of reference data, or choose "
            "--workloads si64x2."
        )
    found = read(folder / THREEBPA, index=f":{count}")
    mean = np.mean([atoms.get_potential_energy() for atoms in found])
    # Weights are random: what counts is that no number gets out of hand.
    return [
        labelled(Atoms(atoms.numbers, atoms.positions), atoms.get_potential_energy() - mean, atoms.get_forces())
        for atoms in found
    ]


def labelled(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    """Return the structure with labels, eV and eV/Å."""
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def crystals(atoms: int, count: int) -> list[Atoms]:
    """Return differently displaced cubes of silicon with random forces."""
    rng = np.random.default_rng(0)
    return [labelled(silicon(atoms, seed), float(seed), rng.normal(size=(atoms, 3))) for seed in range(count)]


def stored(name: str, structures: list[Atoms], folder: Path) -> Workload:
    """Write structures to a file of a folder."""
    path = folder / f"{name.replace(' ', '_')}.xyz"
    write(path, structures, format="extxyz")
    edges = sum(len(neighbor_list("i", atoms, CUTOFF)) for atoms in structures)
    numbers = sorted({int(number) for atoms in structures for number in atoms.numbers})
    symbols = Atoms(numbers).get_chemical_symbols()
    return Workload(name, str(path), symbols, edges / sum(map(len, structures)), edges)
