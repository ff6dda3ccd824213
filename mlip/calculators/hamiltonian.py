"""The calculator of Hamiltonian models: from a molecule to matrices over its orbitals, in scripts and in ASE."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from mlip.calculators.ase import resolve_device
from mlip.calculators.committee import Source, load_as_one
from mlip.calculators.molecule_checks import check_molecule
from mlip.calculators.orbital_result import OrbitalResult
from mlip.core.errors import ConfigError
from mlip.core.units import HARTREE
from mlip.data.build_graph import graph_of
from mlip.data.closed_shell import stated_electrons
from mlip.data.pyscf_extra import require_pyscf
from mlip.data.quantum import initial_hamiltonian, pyscf_functional
from mlip.evaluation.predict import predict_each
from mlip.models.base import AtomisticModel
from mlip.models.build import parse_dtype

_INITIAL = "initial_hamiltonian"


class HamiltonianCalculator(Calculator):
    """A model that predicts Hamiltonians.

    >>> result = HamiltonianCalculator("model.safetensors").predict(atoms, orbitals=True)  # doctest: +SKIP
    >>> result.hamiltonian, result.homo, result.lumo  # doctest: +SKIP

    It is an ASE calculator of what follows from the orbitals, in ASE's units: ``dipole`` (3,) e·Å, ``homo``, ``lumo``
    and ``gap`` eV. It has no energy and no forces: a density that is not self-consistent gives only estimates of them.

    A model of the difference to the initial guess gets that guess from PySCF, with the functional of its training
    data; orbitals need PySCF for their overlaps; a model of the Hamiltonian itself needs none.

    Attributes:
        model: the model in use, in evaluation mode; a copy of the one passed in.
        check_distances: whether structures whose closest atoms are not about a bond apart are refused.
    """

    implemented_properties = ["dipole", "homo", "lumo", "gap"]  # noqa: RUF012 - ASE's interface

    def __init__(
        self,
        model: Source,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        check_distances: bool = True,
    ) -> None:
        """Load or copy the model.

        Args:
            model: path of a model file, or a model.
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …
            dtype: ``"float32"``, ``"float64"``, or None for the model's own; matrices are float64 either way.
            check_distances: False for molecules that are stretched far beyond their bonds.

        Raises:
            ModelFileError: the file is not a model file.
            ConfigError: no model of Hamiltonians, an unknown dtype, or a device this machine does not have.
        """
        super().__init__()
        if not isinstance(model, str | os.PathLike | AtomisticModel):
            raise ConfigError(f"HamiltonianCalculator takes one model or the path of its file, got {model!r}.")
        self.model = load_as_one(model, resolve_device(device), parse_dtype(dtype))
        if "hamiltonian" not in self.model.fields:
            raise ConfigError(
                "A Hamiltonian model is needed, such as mlip train model=qhnet makes, and this is a "
                f"{type(self.model).__name__}, which predicts {', '.join(self.model.fields)}. Use MLIPCalculator "
                "(mlip relax, mlip md) for potentials."
            )
        self.model.eval().requires_grad_(False)
        self.check_distances = check_distances

    def predict(self, atoms: Atoms, *, overlap: bool = False, orbitals: bool = False) -> OrbitalResult:
        """Return the Hamiltonian of a molecule, in the order `mlip`.

        Args:
            atoms: neutral, closed-shell, not periodic; Å. Its calculator is not looked at.
            overlap: add the overlap of the orbitals, through PySCF.
            orbitals: add the overlap, and energies, coefficients and occupations, through PySCF.

        Raises:
            StructureError: as :func:`mlip.calculators.molecule_checks.check_molecule`.
            DataError: PySCF is needed and not installed, or a prediction is not finite.
            ConfigError: the model needs an initial guess and does not know its functional.
        """
        self.check(atoms)
        if overlap or orbitals:
            require_pyscf("overlaps and orbitals")
        labels = {_INITIAL: self._initial_guess(atoms)} if _INITIAL in self.model.needs else {}
        graph = graph_of(atoms, self.model.graph_builder, labels)
        ((_, predicted),) = predict_each(self.model, [graph], ("hamiltonian",))
        result = OrbitalResult(
            numbers=atoms.numbers.copy(),
            positions=atoms.positions.copy(),
            basis=self.model.basis,
            functional=self.model.functional,
            order="mlip",
            hamiltonian=predicted["hamiltonian"],
        )
        if orbitals:
            return result.with_orbitals()
        return result.with_overlap() if overlap else result

    def check(self, atoms: Atoms) -> None:
        """Refuse a structure that `predict` cannot do, before anything is computed.

        Raises:
            StructureError, DataError, ConfigError: as `predict`.
        """
        check_molecule(atoms, self.model, self.check_distances)
        if _INITIAL in self.model.needs:
            if self.model.functional is None:
                raise ConfigError(
                    "This model adds to an initial guess, and its training data did not say with which functional to "
                    "make it: train with data.dataset.functional=…."
                )
            pyscf_functional(self.model.functional)

    def _initial_guess(self, atoms: Atoms) -> np.ndarray:
        return initial_hamiltonian(atoms.numbers, atoms.positions, self.model.basis, self.model.functional)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return one result (ASE's interface).

        Raises:
            PropertyNotImplementedError: the energy, forces, …, which these models do not have.
        """
        if name not in self.implemented_properties:
            raise PropertyNotImplementedError(
                f"A Hamiltonian model has no {name}: it has {', '.join(self.implemented_properties)}. Start a "
                "calculation from it for energies (mlip hamiltonian --scf), or train a potential."
            )
        return super().get_property(name, atoms, allow_calculation)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation (ASE's interface); a charge in ``atoms.info`` counts."""
        changes = super().check_state(atoms, tol)
        if self.atoms is not None:
            before, now = stated_electrons(self.atoms), stated_electrons(atoms)
            changes += [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("gap",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute dipole, HOMO, LUMO and gap of a molecule into ``self.results`` (ASE's interface).

        Raises:
            StructureError, DataError, ConfigError: as `predict`.
        """
        super().calculate(atoms, properties, system_changes)
        result = self.predict(self.atoms, orbitals=True)
        levels = {"homo": result.homo, "lumo": result.lumo, "gap": result.gap}
        self.results = {name: value * HARTREE for name, value in levels.items() if value is not None}
        self.results["dipole"] = result.dipole()
