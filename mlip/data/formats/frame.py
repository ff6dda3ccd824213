"""One frame of a file before its labels are understood; lighter than ASE's `Atoms` with a calculator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian

_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


@dataclass(slots=True)
class Frame:
    """One frame as the file has it: nothing is converted or renamed except as ASE's reader does.

    Attributes:
        numbers: (atoms,) int64, atomic numbers.
        positions: (atoms, 3) float64.
        cell: (3, 3) float64, lattice vectors in rows; zeros for none.
        pbc: (3,) bool.
        info: entries of the comment line.
        arrays: columns.
        results: entries and columns that ASE takes for results of a calculation: energy, forces, stress (3×3 as
            stated or six Voigt numbers), magmoms, ….
        fixed: (atoms,) bool, from ``move_mask``: atoms that may not move in any direction; None if nothing is said.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    fixed: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Frame:
        """Return the frame of a structure with its calculator's results and constraints."""
        fixed = np.zeros(len(atoms), dtype=bool)
        for constraint in atoms.constraints:
            if isinstance(constraint, FixAtoms):
                fixed[constraint.index] = True
            elif isinstance(constraint, FixCartesian):
                fixed[constraint.index] = np.asarray(constraint.mask).all()
        arrays = {key: value for key, value in atoms.arrays.items() if key not in ("numbers", "positions")}
        results = dict(atoms.calc.results) if atoms.calc is not None else {}
        return cls(
            atoms.numbers.astype(np.int64),
            atoms.positions,
            atoms.cell.array,
            atoms.pbc,
            dict(atoms.info),
            arrays,
            results,
            fixed if atoms.constraints else None,
        )

    def to_atoms(self) -> Atoms:
        """Return the structure as ASE's reader gives it: info, arrays, `FixAtoms`, `SinglePointCalculator`."""
        atoms = Atoms(self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc, info=self.info)
        for name, array in self.arrays.items():
            atoms.set_array(name, array)
        if self.fixed is not None:
            atoms.set_constraint(FixAtoms(mask=self.fixed))
        if self.results:
            results = dict(self.results)
            if np.shape(results.get("stress")) == (3, 3):
                results["stress"] = results["stress"][_VOIGT]
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms
