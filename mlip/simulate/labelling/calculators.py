"""Labellers that ask a calculator: any of ASE's, which may run a program of its own, or a model."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase
import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    BadConfiguration,
    CalculatorError,
    FileIOCalculator,
    PropertyNotImplementedError,
    get_calculator_class,
)
from ase.calculators.calculator import names as calculator_names
from ase.calculators.genericfileio import GenericFileIOCalculator
from ase.stress import voigt_6_to_full_3x3_stress

from mlip.core.errors import ConfigError, DataError, MlipError, did_you_mean
from mlip.core.units import BOHR, HARTREE
from mlip.data.labelling.base import Labeller, Labels, NotLabelled, SetupFailed
from mlip.data.labelling.structures import Structure, Takes
from mlip.simulate.labelling.convergence import unconverged
from mlip.simulate.labelling.set_up import is_of_set_up

_FAILURES = (
    ArithmeticError, AssertionError, AttributeError, CalculatorError, EOFError, LookupError, MemoryError,
    MlipError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError, subprocess.SubprocessError,
)  # fmt: skip

_LARGEST_OUTPUT = 64 << 20
"""Bytes; larger files in the folder of a program are densities and wave functions."""


class CalculatorLabeller(Labeller):
    """Energies, forces and, of periodic structures, the stress by a calculator.

    Constraints play no part: forces are those on all atoms.

    Attributes:
        free_energy: whether energies are those that the forces are derivatives of, where a program smears electrons.
    """

    takes = Takes.anything
    fields = ("energy", "forces")
    free_energy = False

    def __init__(self) -> None:
        self._made: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    @abstractmethod
    def make(self, structure: Structure) -> Any:
        """Return the calculator for a structure."""

    def check(self, numbers: np.ndarray) -> None:
        """Refuse nothing: calculators know best."""

    def label(self, numbers: np.ndarray, positions: np.ndarray) -> Labels:
        """Compute a neutral molecule, see `Labeller.label`."""
        return self.compute(Structure(numbers, positions, "", 0))

    def compute(self, structure: Structure) -> Labels:
        """Compute one structure, see `Labeller.compute`."""
        return self._ask(self.make(structure), structure.atoms)

    def _ask(self, calculator: Any, atoms: Atoms) -> Labels:
        atoms.calc = calculator
        energy = float(calculator.get_property("free_energy" if self.free_energy else "energy", atoms))
        forces = np.array(calculator.get_property("forces", atoms), dtype=np.float64)
        stress = None
        if atoms.pbc.all() and "stress" in getattr(calculator, "implemented_properties", ()):
            try:
                stress = np.array(calculator.get_property("stress", atoms), dtype=np.float64)
            except PropertyNotImplementedError:
                # Programs know it only with certain settings.
                stress = None
        if forces.shape != (len(atoms), 3):
            raise NotLabelled(f"The calculator gave forces of the shape {forces.shape}.")
        for value in (energy, forces, stress):
            if value is not None and not np.isfinite(value).all():
                raise NotLabelled("The calculator gave numbers that are not finite.")
        if stress is not None and stress.shape != (3, 3):
            stress = voigt_6_to_full_3x3_stress(stress)
        pressure = None if stress is None else stress / (HARTREE / BOHR**3)
        return Labels(energy / HARTREE, forces / (HARTREE / BOHR), None, 0, pressure)


class AseLabeller(CalculatorLabeller):
    """Labels by a calculator of ASE, or of another package that has one for ASE.

    Every structure of a program that is run gets a folder of its own, which is kept if the calculation fails. A
    program that says that it has not converged gives no labels.

    Args:
        name: as ASE knows it (``emt``, ``lj``, ``vasp``, ``espresso``, ``orca``, …), or ``package.module.Class``.
        arguments: of the calculator, plain JSON; "{charge}" and "{spin}" become those of the structure: a whole number
            where they are all of a text, digits within a longer one.
        free_energy: see `CalculatorLabeller`.
        folder: where folders of failed calculations go; None keeps none.

    Raises:
        ConfigError: no such calculator, or it does not take the arguments.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        free_energy: bool = False,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self._name, self._arguments, self._folder = name, dict(arguments or {}), folder
        # What of the structure is in the arguments.
        self._placed: set[str] = set()
        _fill(self._arguments, {"charge": 0, "spin": 1}, self._placed)
        self.free_energy = free_energy
        kind = calculator_class(name)
        try:
            made = kind(**self._filled(0, 1))
        except (*_FAILURES, BadConfiguration) as error:
            detail = " ".join(str(error).split())[:300] or type(error).__name__
            raise ConfigError(f"The calculator '{name}' cannot be made with these arguments: {detail}.") from error
        if free_energy and "free_energy" not in getattr(made, "implemented_properties", ()):
            raise ConfigError(f"The calculator '{name}' has no free energy: leave --free-energy out.")
        self._runs_program = isinstance(made, FileIOCalculator | GenericFileIOCalculator) or hasattr(made, "command")
        self.program = f"{name} through ASE {ase.__version__}"
        self.level_of_theory = {
            "method": f"ASE calculator {name}",
            "arguments": self._arguments,
            "energy": "free energy" if free_energy else "energy",
        }

    def check_structure(self, structure: Structure) -> None:
        """Refuse a charge or an open shell that the arguments say nothing of.

        Raises:
            DataError: what to write.
        """
        for name, usual in (("charge", 0), ("spin", 1)):
            value = getattr(structure, name)
            if value != usual and name not in self._placed:
                raise DataError(
                    f'The structure says {name} {value}, and the arguments of {self._name} do not: write "{{{name}}}" '
                    f"where it belongs in --ase-args, or take it out of the structure."
                )

    def make(self, structure: Structure) -> Any:
        """Return a new calculator where a program is run, else the one that there is."""
        if self._made is None or self._runs_program or self._placed:
            self._made = calculator_class(self._name)(**self._filled(structure.charge, structure.spin))
        elif hasattr(self._made, "reset"):
            self._made.reset()
        return self._made

    def compute(self, structure: Structure) -> Labels:
        """Compute one structure in a folder of its own, see `Labeller.compute`.

        Raises:
            NotLabelled: whatever went wrong, or the program says that it did not converge.
        """
        with TemporaryDirectory(prefix="label-") as name:
            work = Path(name)
            try:
                calculator = self.make(structure)
                if hasattr(calculator, "directory"):
                    calculator.directory = str(work) if isinstance(calculator.directory, str) else work
                labels = self._ask(calculator, structure.atoms)
                self._refuse_unconverged(calculator, work)
                return labels
            except (*_FAILURES, BadConfiguration) as error:
                if is_of_set_up(error):
                    detail = " ".join(str(error).split())[:300].rstrip(".")
                    raise SetupFailed(f"The calculator '{self._name}' cannot run: {detail}.") from error
                kept = self._keep(work, structure.source)
                kind = "" if isinstance(error, MlipError) else f"{type(error).__name__}: "
                detail = kind + (" ".join(str(error).split())[:300] or "no reason was given.")
                raise NotLabelled(detail + (f" Its files are in '{kept}'." if kept else "")) from error

    def _refuse_unconverged(self, calculator: Any, work: Path) -> None:
        stated = getattr(calculator, "converged", None)
        if stated is not None and not callable(stated) and not bool(stated):
            raise NotLabelled("The calculator says that it has not converged.")
        for path in sorted(work.rglob("*")):
            if path.is_file() and path.stat().st_size <= _LARGEST_OUTPUT:
                said = unconverged(path.read_bytes())
                if said is not None:
                    raise NotLabelled(f"'{path.name}' of the program says '{said}'.")

    def _keep(self, work: Path, source: str) -> Path | None:
        """Copy the files of a calculation that failed, and return where to."""
        if self._folder is None or not any(work.iterdir()):
            return None
        name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in source)
        kept = self._folder / name
        try:
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(work, kept)
        except (OSError, shutil.Error):
            return None
        return kept

    def _filled(self, charge: int, spin: int) -> dict[str, Any]:
        return _fill(self._arguments, {"charge": charge, "spin": spin}, set())


class ModelLabeller(CalculatorLabeller):
    """Labels by a model: what a smaller or faster one can be trained on.

    Args:
        model: path of a model file, or name of an imported model.

    Raises:
        MlipError: there is no such model.
    """

    def __init__(self, model: str) -> None:
        from mlip import __version__
        from mlip.models.names import existing_model

        super().__init__()
        path = existing_model(Path(model))
        self._model, self._name = str(path), Path(model).name
        self.program = f"mlip {__version__}"
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        self.level_of_theory = {"method": f"model {self._name}", "model_sha256": digest}

    def check_structure(self, structure: Structure) -> None:
        """Refuse a charge or an open shell that the model does not read: its energy would be that without it.

        Raises:
            DataError: which.
        """
        for name, usual in (("charge", 0), ("spin", 1)):
            value = getattr(structure, name)
            if value != usual and name not in self.make(structure).model.inputs:
                raise DataError(
                    f"The structure says {name} {value}, which the model '{self._name}' does not read: label it with "
                    "another model or a program, or take it out of the structure."
                )

    def make(self, structure: Structure) -> Any:
        """Return the calculator, loaded once."""
        from mlip.calculators.ase import MLIPCalculator

        if self._made is None:
            self._made = MLIPCalculator(self._model, skin=0.0)
        return self._made


def calculator_class(name: str) -> Any:
    """Return the class of a calculator by ASE's name of it, or by its dotted path.

    Raises:
        ConfigError: there is none, or its package is not installed.
    """
    try:
        if "." in name:
            module, _, attribute = name.rpartition(".")
            return getattr(import_module(module), attribute)
        if name not in calculator_names:
            raise ConfigError(
                f"ASE knows no calculator '{name}'.{did_you_mean(name, calculator_names)} Those of other packages are "
                "named by their class, such as tblite.ase.TBLite."
            )
        return get_calculator_class(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The calculator '{name}' cannot be imported: {error}.") from error


def _fill(value: Any, known: Mapping[str, int], placed: set[str]) -> Any:
    """Return arguments with the numbers of a structure, and add the names of those that were put in to ``placed``."""
    if isinstance(value, dict):
        return {key: _fill(one, known, placed) for key, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, known, placed) for one in value]
    if not isinstance(value, str):
        return value
    for name, number in known.items():
        sign = "{" + name + "}"
        if sign in value:
            placed.add(name)
            if value == sign:
                return number
            value = value.replace(sign, str(number))
    return value
