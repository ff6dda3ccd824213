"""PySCF calculations that start from a predicted Hamiltonian, and how many cycles that saves."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlip.calculators.hamiltonian import HamiltonianCalculator
from mlip.core.errors import ConfigError, DataError, StructureError
from mlip.core.units import BOHR
from mlip.data.molecular_orbitals import closed_shells, density_matrix, molecular_orbitals
from mlip.data.orbitals import reorder
from mlip.data.pyscf_extra import require_pyscf
from mlip.data.quantum import GRID_LEVEL, kohn_sham, molecule
from mlip.models.base import AtomisticModel

Predictor = HamiltonianCalculator | AtomisticModel | str | os.PathLike[str]
"""A calculator, or a model or the path of its file, from which one is made."""

PREDICTION = "prediction"
GUESSES = ("minao", "1e", PREDICTION)
"""Initial guesses that are compared: PySCF's default, the bare nuclei, and the model's."""

ENERGY_TOLERANCE, GRADIENT_TOLERANCE = 1e-13, 3.16e-5
"""Hartree; those of QH9."""

_MAX_CYCLES = 150
_SAME = 1e-6
"""Relative difference of exponents and coefficients: libraries print them with seven digits."""


@dataclass(frozen=True)
class ScfRun:
    """One self-consistent calculation.

    Attributes:
        guess: one of :data:`GUESSES`.
        cycles: until convergence, or as many as were done.
        energy: total energy, Hartree.
        converged: whether it did.
        seconds: wall time, the guess included.
    """

    guess: str
    cycles: int
    energy: float
    converged: bool
    seconds: float


def predicted_initial_guess(mol: Any, model: Predictor) -> np.ndarray:
    """Return the density matrix of a predicted Hamiltonian, for ``mf.kernel(dm0=…)``.

    >>> mf.kernel(dm0=predicted_initial_guess(mol, "model.safetensors"))  # doctest: +SKIP

    Args:
        mol: built ``pyscf.gto.Mole``, neutral and closed-shell, with the model's basis.
        model: see :data:`Predictor`.

    Returns:
        (orbitals, orbitals) in the order of ``mol``; with the overlap S the trace of P S is the number of electrons.

    Raises:
        DataError: a basis or core potential other than the model's, or as `HamiltonianCalculator.predict`.
        StructureError: a molecule that the model does not know.
        ConfigError, ModelFileError: no Hamiltonian model.
    """
    require_pyscf("starting PySCF from a prediction")
    calculator = as_calculator(model)
    atoms = _checked_atoms(mol, calculator)
    result = calculator.predict(atoms)
    hamiltonian = reorder(result.hamiltonian, atoms.numbers, result.basis, "mlip", "pyscf")
    energies, coefficients = molecular_orbitals(hamiltonian, mol.intor_symmetric("int1e_ovlp"))
    return density_matrix(coefficients, closed_shells(len(energies), int(mol.nelectron)))


def scf_cycles(
    structure: Any,
    model: Predictor,
    functional: str | None = None,
    *,
    conv_tol: float = ENERGY_TOLERANCE,
    conv_tol_grad: float = GRADIENT_TOLERANCE,
    grid_level: int = GRID_LEVEL,
) -> dict[str, ScfRun]:
    """Run the same calculation from each of :data:`GUESSES`.

    Args:
        structure: `Atoms` (Å), or a built ``pyscf.gto.Mole``.
        model: see :data:`Predictor`.
        functional: our name of it; None takes that of the model's training data.
        conv_tol: change of the energy in the last cycle, Hartree. The default is near round-off above some 100 Hartree.
        conv_tol_grad: of the orbital gradient.
        grid_level: of the integration grid, 0 to 9.

    Returns:
        By guess.

    Raises:
        ConfigError: neither the model nor the caller names a functional.
        DataError, StructureError, ModelFileError: as `predicted_initial_guess`.
    """
    require_pyscf("self-consistent calculations")
    calculator = as_calculator(model)
    chosen = functional or calculator.model.functional
    if chosen is None:
        raise ConfigError("The training data of this model name no functional: give one (--functional b3lyp5).")
    if isinstance(structure, Atoms):
        calculator.check(structure)
        mol = molecule(structure.numbers, structure.positions, calculator.model.basis)
    else:
        _checked_atoms(structure, calculator)
        mol = structure
    runs = {}
    for guess in GUESSES:
        start = time.perf_counter()
        calculation = kohn_sham(mol, chosen, grid_level)
        calculation.conv_tol, calculation.conv_tol_grad = conv_tol, conv_tol_grad
        calculation.max_cycle, calculation.verbose = _MAX_CYCLES, 0
        done: list[int] = []
        calculation.callback = lambda state, done=done: done.append(state["cycle"])
        if guess == PREDICTION:
            density = predicted_initial_guess(mol, calculator)
        else:
            density = calculation.get_init_guess(mol, guess)
        energy = float(calculation.kernel(dm0=density))
        seconds = time.perf_counter() - start
        runs[guess] = ScfRun(guess, len(set(done)), energy, bool(calculation.converged), seconds)
    return runs


def as_calculator(model: Predictor) -> HamiltonianCalculator:
    """Return the calculator, or the one of a model.

    Raises:
        ConfigError, ModelFileError: as `HamiltonianCalculator`.
    """
    return model if isinstance(model, HamiltonianCalculator) else HamiltonianCalculator(model)


def _checked_atoms(mol: Any, calculator: HamiltonianCalculator) -> Atoms:
    """Return the atoms of a PySCF molecule for which the model can predict."""
    atoms = _atoms_of(mol)
    calculator.check(atoms)
    _check_same_basis(mol, atoms, calculator.model.basis)
    return atoms


def _atoms_of(mol: Any) -> Atoms:
    """Return a PySCF molecule as `Atoms` (Å), refusing what a prediction is not made for."""
    from pyscf import gto

    if hasattr(mol, "lattice_vectors"):
        raise StructureError("Hamiltonian models predict molecules, this is a periodic cell of PySCF.")
    if not isinstance(mol, gto.Mole) or not mol.natm:
        raise DataError(f"A pyscf.gto.Mole is needed, built with its atoms (mol.build()), got {type(mol).__name__}.")
    if mol.cart:
        raise DataError("The molecule has Cartesian orbitals, the model spherical ones: build it with cart=False.")
    if mol.charge or mol.spin:
        raise StructureError(
            f"The molecule has charge {mol.charge} and {mol.spin} unpaired electrons (mol.spin), and the model knows "
            "neutral closed-shell molecules only, 0 and 0."
        )
    # What an effective core potential stands for is missing in the charges.
    numbers = np.array([mol.atom_charge(k) + mol.atom_nelec_core(k) for k in range(mol.natm)], dtype=np.int64)
    if (numbers < 1).any():
        raise StructureError(f"Atom {int(numbers.argmin())} is a ghost atom, which the model does not know.")
    return Atoms(numbers, np.asarray(mol.atom_coords()) * BOHR)


def _check_same_basis(mol: Any, atoms: Atoms, basis: str) -> None:
    """Refuse a molecule whose orbitals or core potentials are not those of the model's basis."""
    own = molecule(atoms.numbers, atoms.positions, basis)
    for atom in range(mol.natm):
        name = f"atom {atom} ({atoms.symbols[atom]})"
        given, wanted = _shells_of(mol, atom), _shells_of(own, atom)
        advice = f"The model predicts {basis}: build the molecule with basis='{basis}'."
        degrees, right = [shell[0] for shell in given], [shell[0] for shell in wanted]
        if degrees != right:
            raise DataError(f"The shells of {name} have the degrees {degrees}, not {right} as in {basis}. {advice}")
        if not all(_same_functions(*pair) for pair in zip(given, wanted)):
            raise DataError(f"The shells of {name} have other exponents or coefficients than {basis}. {advice}")
        if _core_potential(mol, atom) != _core_potential(own, atom):
            ecp = f"ecp='{basis}'" if own.has_ecp() else "no ecp"
            raise DataError(
                f"A{name[1:]} has {mol.atom_nelec_core(atom)} electrons in an effective core potential, and "
                f"{own.atom_nelec_core(atom)} in the model's data, or another potential: build the molecule with {ecp}."
            )


def _shells_of(mol: Any, atom: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return degree, exponents and coefficients of every entry of the basis of an atom; normalised by PySCF."""
    return [
        (int(mol.bas_angular(shell)), mol.bas_exp(shell), mol.bas_ctr_coeff(shell))
        for shell in mol.atom_shell_ids(atom)
    ]


def _core_potential(mol: Any, atom: int) -> list[Any] | None:
    """Return the effective core potential of an atom as PySCF keeps it."""
    return mol._ecp.get(mol.atom_symbol(atom)) or mol._ecp.get(mol.atom_pure_symbol(atom))


def _same_functions(given: tuple[int, np.ndarray, np.ndarray], wanted: tuple[int, np.ndarray, np.ndarray]) -> bool:
    pairs = zip(given[1:], wanted[1:])
    return all(one.shape == other.shape and np.allclose(one, other, rtol=_SAME, atol=0) for one, other in pairs)
