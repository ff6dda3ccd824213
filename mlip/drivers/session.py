"""What all drivers share: a model that follows the atoms and the box of another program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.committee import Source
from mlip.calculators.structure_checks import given_inputs, stress_problem
from mlip.core.errors import ConfigError, StructureError, did_you_mean
from mlip.core.fields import FIELDS

_FAR_MASS = 2.0
"""Factor between the mass of an atom and that of its element beyond which one of them is a mistake."""

_HYDROGEN = 1
"""May be as heavy as one likes: heavy hydrogens allow longer time steps."""


@dataclass(frozen=True)
class Evaluation:
    """Energy and its derivatives for one configuration.

    Attributes:
        energy: eV.
        energies: (atoms,) eV.
        forces: (atoms, 3) eV/Å.
        virial: (3, 3) eV, −∂E/∂ε, symmetric; None if it was not asked for.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray | None


class Session:
    """A model that evaluates the configurations of another program one after the other.

    The neighbour list is reused as in `MLIPCalculator`, also where the program wraps atoms into its box or moves its
    origin: an atom is followed to the periodic image nearest to where it was.

    Attributes:
        calculator: the model in use; its own structures and results, also if a calculator was passed in.
    """

    def __init__(
        self,
        model: Source | Sequence[Source] | MLIPCalculator,
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        charge: int | None = None,
        spin: int | None = None,
    ) -> None:
        """Load or copy the model.

        Args:
            model: model, path or name; several are a committee. Or a calculator, which brings all that follows.
            device, dtype, charge, spin: as in :class:`~mlip.calculators.ase.MLIPCalculator`.

        Raises:
            ModelFileError, ConfigError: as `MLIPCalculator`; the model reads something that is not given.
        """
        if isinstance(model, MLIPCalculator):
            if dtype is not None or str(device) != "cpu":
                raise ConfigError("A calculator has its device and dtype: give them to MLIPCalculator.")
            self.calculator = model.companion(model.predict)
            self.calculator.given = {**model.given, **given_inputs(model.model, charge=charge, spin=spin)}
        else:
            self.calculator = MLIPCalculator(model, device=device, dtype=dtype, charge=charge, spin=spin)
        read = {*self.calculator.model.inputs, *self.calculator.model.graph_builder.needs}
        for name in sorted(read - set(self.calculator.given)):
            if name in FIELDS and FIELDS[name].level == "atom":
                raise ConfigError(
                    f"This model reads '{name}' of every atom, which a driver cannot give it: run it in ASE."
                )
            raise ConfigError(
                f"This model reads the {name} of a structure, which this program does not know: give {name}=…."
            )
        self._atoms: Atoms | None = None

    def check_elements(self, elements: Sequence[str | int]) -> np.ndarray:
        """Return the atomic numbers (entries,) of symbols or numbers that the model knows.

        Raises:
            ConfigError: no element.
            StructureError: an element that the model does not know.
        """
        numbers = np.array([_number(element) for element in elements], dtype=np.int64)
        self.calculator.model.check_elements(numbers)
        return numbers

    def evaluate(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], virial: bool
    ) -> Evaluation:
        """Evaluate a configuration.

        Args:
            numbers: (atoms,) in the order of the last call, or other atoms.
            positions: (atoms, 3) Å, of any periodic image.
            cell: (3, 3) rows in Å.
            pbc: (3,).
            virial: whether it is needed.

        Raises:
            StructureError: as `MLIPCalculator.calculate`.
        """
        atoms = self._follow(numbers, positions, cell, pbc)
        calculator = self.calculator
        forces = calculator.get_property("forces", atoms)
        found = self._virial(atoms, forces) if virial else None
        energies = calculator.get_property("energies", atoms)
        return Evaluation(calculator.get_property("energy", atoms), energies, forces, found)

    def _follow(self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool]) -> Atoms:
        last, periodic = self._atoms, np.array(pbc, dtype=bool)
        if last is None or not np.array_equal(last.numbers, numbers) or not np.array_equal(last.pbc, periodic):
            self._atoms = Atoms(numbers, positions, cell=cell, pbc=periodic)
            return self._atoms
        positions = np.array(positions, dtype=np.float64)
        finite = np.isfinite(positions).all() and np.isfinite(last.positions).all()
        if periodic.any() and finite and min(abs(np.linalg.det(box)) for box in (cell, last.cell.array)) > 0:
            # In the coordinates of both cells, so that a box that shrinks and moves its origin jumps no image.
            before = np.linalg.solve(last.cell.array.T, last.positions.T).T
            jumps = np.rint(np.linalg.solve(cell.T, positions.T).T - before)
            positions -= np.where(periodic, jumps, 0.0) @ cell
        last.set_cell(cell)
        last.positions = positions
        return last

    def _virial(self, atoms: Atoms, forces: np.ndarray) -> np.ndarray:
        """Return −∂E/∂ε, along open directions from positions and forces."""
        virial = np.zeros((3, 3))
        if atoms.pbc.any():
            problem = stress_problem(atoms)
            if problem is not None:
                raise StructureError(problem)
            xx, yy, zz, yz, xz, xy = self.calculator.get_property("stress", atoms)
            stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            virial = -stress * atoms.get_volume()
        scale = np.abs(atoms.cell.array).max(initial=0.0)
        for axis in range(3):
            # Where no lattice vector has a component along an axis, a strain along it moves nothing but atoms.
            if (np.abs(atoms.cell.array[atoms.pbc, axis]) <= 1e-12 * scale).all():
                virial[axis] = virial[:, axis] = atoms.positions[:, axis] @ forces
        return virial


def check_masses(numbers: Sequence[int], masses: Sequence[float], what: str) -> None:
    """Refuse elements whose order does not fit the masses that a program has.

    Args:
        numbers: atomic numbers of types or atoms.
        masses: of the same, amu; those of zero or below say nothing.
        what: what is numbered from one, as in "type".

    Raises:
        ConfigError: a mass is that of another element in the list, or of none that could be meant.
    """
    candidates = sorted({int(number) for number in numbers})
    for place, (number, mass) in enumerate(zip(numbers, masses, strict=True), 1):
        if not (math.isfinite(mass) and mass > 0):
            continue
        own = atomic_masses[number]
        nearest = min(candidates, key=lambda other: abs(math.log(atomic_masses[other] / mass)))
        near = max(own / mass, mass / own) < _FAR_MASS
        if (nearest == number and near) or (number == _HYDROGEN and own < mass < 5):
            continue
        like = chemical_symbols[int(np.argmin(np.abs(np.nan_to_num(atomic_masses[1:]) - mass))) + 1]
        raise ConfigError(
            f"{what} {place} is {chemical_symbols[number]} ({own:.4g} amu) in the list of elements, and has the mass "
            f"{mass:.4g} amu there, like {like}: give the elements in the order of the program."
        )


def require(module: str, extra: str, purpose: str) -> None:
    """Refuse to go on without a package.

    Args:
        module: what is imported.
        extra: of this package.
        purpose: what needs it, as in "The LAMMPS driver".

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec(module) is None:
        raise ConfigError(
            f"{purpose} needs the package {module}, which is not installed: pip install 'mlip-kit[{extra}]'."
        )


def _number(element: str | int) -> int:
    if isinstance(element, str):
        if element not in atomic_numbers or element == "X":
            hint = did_you_mean(element.capitalize(), chemical_symbols[1:])
            raise ConfigError(f"'{element}' is no chemical symbol.{hint}")
        return atomic_numbers[element]
    if int(element) != element or not 1 <= element < len(chemical_symbols):
        raise ConfigError(f"{element} is no atomic number.")
    return int(element)
