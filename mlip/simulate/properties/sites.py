"""Sites of a crystal that are of one kind: by element, and by the moments, charges and masses that matter."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError

READ = ("initial_magmoms", "initial_charges")
"""What calculators of ASE may read of each atom; models of this package read none of it."""

SAME = {"initial_magmoms": 0.05, "initial_charges": 0.05, "masses": 1e-3}
"""μB, e and u by which sites of one kind may differ."""


def site_kinds(crystal: Atoms, calculator: Calculator, what: str, masses: bool = False) -> np.ndarray:
    """Number the kinds of sites (atoms,) from 0; only sites of one kind can be symmetric to one another.

    Sites are of one kind if they have the same element and, to within `SAME`, the same magnetic moment and charge, as
    far as the calculator may read them. Up and down are different kinds: a symmetry that turns all moments around is
    not made use of, which is right for every calculator.

    Args:
        crystal: with ``initial_magmoms`` and ``initial_charges``, or without.
        calculator: one of this package reads no moments, so that they do not count.
        what: is to be computed, for the message, such as ``"An elastic tensor"``.
        masses: sites that differ in mass differ.

    Raises:
        SimulationError: non-collinear moments, whose symmetry is another one.
    """
    columns, limits = [np.asarray(crystal.numbers, dtype=float)], [0.5]
    if not isinstance(calculator, MLIPCalculator):
        for name in READ:
            if not crystal.has(name):
                continue
            values = np.asarray(crystal.get_array(name), dtype=float)
            if values.ndim > 1:
                if np.any(values):
                    raise SimulationError(f"{what} needs collinear magnetic moments; these are non-collinear vectors.")
                continue
            columns.append(values)
            limits.append(SAME[name])
    if masses:
        columns.append(crystal.get_masses())
        limits.append(SAME["masses"])
    values = np.stack(columns, axis=1)
    kinds = np.full(len(crystal), -1)
    for number in range(len(crystal)):
        if kinds[number] < 0:
            alike = (np.abs(values - values[number]) < np.array(limits)).all(axis=1) & (kinds < 0)
            kinds[alike] = kinds.max() + 1
    return kinds


def kind_numbers(crystal: Atoms, kinds: np.ndarray) -> list[int]:
    """Return for each atom which kind of its element it is, from 1; 0 where its element has a single kind."""
    of_element = {number: sorted(set(kinds[crystal.numbers == number].tolist())) for number in set(crystal.numbers)}
    return [
        of_element[number].index(kind) + 1 if len(of_element[number]) > 1 else 0
        for number, kind in zip(crystal.numbers, kinds.tolist())
    ]


def arranged(crystal: Atoms, sources: np.ndarray, cell: np.ndarray, scaled: np.ndarray) -> Atoms:
    """Return a cell of atoms of a crystal, each with the element, moment, charge, tag and mass of its own.

    Args:
        crystal: periodic along all axes; its ``info`` is kept.
        sources: (n,) the atom of the crystal that each one is like.
        cell: (3, 3) Å.
        scaled: (n, 3) fractional coordinates.
    """
    atoms = crystal[np.asarray(sources, dtype=int)]
    atoms.set_cell(cell)
    atoms.set_scaled_positions(scaled)
    return atoms
