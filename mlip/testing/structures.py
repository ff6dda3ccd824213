"""Seeded random structures for any list of elements, with distances that potentials have to cope with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk as ase_bulk
from ase.data import atomic_numbers, covalent_radii

from mlip.data.neighbours import neighbour_list

_CLOSEST_IN_CRYSTALS = 2.2
"""Å. Hydrogen's radius would make crystals so dense that an atom has thousands of neighbours."""
_FARTHEST_NEIGHBOUR = 8.0
"""Å: no element is so large that an atom of the generated structures has no neighbour within it."""


def radius(symbol: str) -> float:
    """Return the covalent radius in Å."""
    return float(covalent_radii[atomic_numbers[symbol]])


def molecule(elements: Sequence[str], seed: int = 0, num_atoms: int = 8) -> Atoms:
    """Grow a random molecule: each atom at a bond's length from an earlier one, none closer than that.

    Args:
        elements: symbols; each one occurs if there are enough atoms.
        seed: of the random numbers.
        num_atoms: size.
    """
    rng = np.random.default_rng(seed)
    symbols = [elements[k % len(elements)] for k in range(num_atoms)]
    rng.shuffle(symbols)
    positions = [np.zeros(3)]
    while len(positions) < num_atoms:
        new = symbols[len(positions)]
        anchor = int(rng.integers(len(positions)))
        bond = (radius(new) + radius(symbols[anchor])) * rng.uniform(1.0, 1.2)
        trial = positions[anchor] + bond * _direction(rng)
        spans = [radius(new) + radius(symbol) for symbol in symbols[: len(positions)]]
        if np.all(np.linalg.norm(np.array(positions) - trial, axis=1) > 0.98 * np.array(spans)):
            positions.append(trial)
    return _tagged(Atoms(symbols, positions=positions))


def crystal(elements: Sequence[str], seed: int = 0) -> Atoms:
    """Return a strained and rattled face-centred cubic cell of four atoms, periodic along all axes."""
    rng = np.random.default_rng(seed)
    atoms = ase_bulk("Cu", "fcc", a=_spacing(elements) * 2**0.5, cubic=True)
    atoms.symbols = [elements[k % len(elements)] for k in range(len(atoms))]
    return _disturb(_tagged(atoms), rng)


def skewed_cell(elements: Sequence[str], seed: int = 0) -> Atoms:
    """Return a cell of two atoms with strongly skewed vectors, most of them shorter than a usual cutoff."""
    rng = np.random.default_rng(seed)
    atoms = ase_bulk("Cu", "fcc", a=_spacing(elements) * 2**0.5)
    # An equivalent but skewed choice of lattice vectors: the crystal is the same, the images are not.
    atoms.set_cell(np.array([[1, 0, 0], [2, 1, 0], [-1, 2, 1]]) @ atoms.cell.array)
    # A single atom would have no forces, by symmetry.
    atoms = atoms.repeat((2, 1, 1))
    atoms.symbols = [elements[k % len(elements)] for k in range(len(atoms))]
    return _disturb(_tagged(atoms), rng)


def slab(elements: Sequence[str], seed: int = 0, vacuum: float = 20.0) -> Atoms:
    """Return two rattled layers, periodic along the first two axes, with a tilted third vector of vacuum."""
    rng = np.random.default_rng(seed)
    d = _spacing(elements)
    layers = [[0, 0, 0], [d, 0, 0], [0.5 * d, 0.5 * d, d * 0.5**0.5], [1.5 * d, 0.5 * d, d * 0.5**0.5]]
    symbols = [elements[k % len(elements)] for k in range(4)]
    atoms = Atoms(symbols, positions=layers, cell=[[2 * d, 0, 0], [0.1 * d, d, 0], [1.0, 0.5, vacuum]])
    atoms.pbc = (True, True, False)
    return _disturb(_tagged(atoms), rng)


def isolated_atom(symbol: str) -> Atoms:
    """Return one atom in empty space."""
    return _tagged(Atoms(symbol, positions=[[0.3, -0.2, 0.1]]))


def dimer(first: str, second: str, distance: float) -> Atoms:
    """Return two atoms at a distance (Å) along a direction that is no axis."""
    direction = np.array([0.48, 0.6, 0.64])
    return _tagged(Atoms([first, second], positions=[np.zeros(3), distance * direction]))


def standard_structures(elements: Sequence[str], seed: int = 0) -> dict[str, Atoms]:
    """Return one structure of every kind of periodicity, by name."""
    return {
        "molecule": molecule(elements, seed),
        "crystal": crystal(elements, seed),
        "skewed cell": skewed_cell(elements, seed),
        "slab": slab(elements, seed),
    }


def within_reach(atoms: Atoms, cutoff: float) -> Atoms:
    """Shrink a generated structure until every atom has a neighbour within two thirds of the cutoff.

    Without edges a model has nothing to do, and no check of it can fail. What is near enough stays as it is.

    Args:
        atoms: one of the structures above.
        cutoff: of the model in Å.
    """
    i, j, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, _FARTHEST_NEIGHBOUR)
    distances = np.linalg.norm(atoms.positions[i] + shifts @ atoms.cell.array - atoms.positions[j], axis=1)
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, j, distances)
    near = atoms.copy()
    scale = min(1.0, cutoff / (1.5 * nearest.max()))
    near.set_cell(scale * atoms.cell.array)
    near.positions *= scale
    return near


def away_from_cutoff(atoms: Atoms, distances: Callable[[Atoms], np.ndarray], cutoff: float, margin: float) -> Atoms:
    """Rattle a structure until no pair is within ``margin`` (Å) of the cutoff; give up in dense large ones.

    Finite differences across the cutoff would measure the envelope's higher derivatives, not the forces.

    Args:
        atoms: the structure.
        distances: gives all pair distances up to a little beyond the cutoff.
        cutoff, margin: Å.
    """
    trial = atoms
    for seed in range(20):
        if np.all(np.abs(distances(trial) - cutoff) > margin):
            return trial
        trial = atoms.copy()
        trial.positions += np.random.default_rng(seed).normal(scale=0.02, size=atoms.positions.shape)
    return atoms


def _spacing(elements: Sequence[str]) -> float:
    return max(_CLOSEST_IN_CRYSTALS, 2.2 * max(radius(symbol) for symbol in elements))


def _tagged(atoms: Atoms) -> Atoms:
    """Give every second atom the tag of an adsorbate, for models whose graph needs tags."""
    atoms.set_tags([2 * (k % 2) for k in range(len(atoms))])
    return atoms


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _disturb(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Strain by 2 % and rattle by 0.08 Å."""
    strain = np.eye(3) + rng.normal(scale=0.02, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
    return atoms


def distorted(atoms: Atoms, seed: int = 0) -> Atoms:
    """Return a copy that is strained by 2 % (where it has a cell) and rattled by 0.08 Å: another structure."""
    return _disturb(atoms.copy(), np.random.default_rng(seed))


def rattled(atoms: Atoms, size: float = 0.05) -> Atoms:
    """Return a copy with every atom displaced by ``size`` (Å, standard deviation a component), seeded."""
    moved = atoms.copy()
    moved.set_constraint()
    moved.positions += np.random.default_rng(0).normal(scale=size, size=atoms.positions.shape)
    return moved
