"""Potentials whose thermodynamics is known in closed form, as plain ASE calculators: quick to evaluate."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class Springs(Calculator):
    """Every atom is tied to its place by a spring: E = ½ Σ k_i |r_i − r_i⁰|²."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - ASE's interface

    def __init__(self, places: np.ndarray, constants: np.ndarray) -> None:
        super().__init__()
        self.places, self.constants = places, constants

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.places
        energy = 0.5 * float((self.constants[:, None] * away**2).sum())
        forces = -self.constants[:, None] * away
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": np.zeros(6)}


class Nothing(Calculator):
    """An ideal gas: no forces, no stress but that of the motion."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - ASE's interface

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        forces = np.zeros((len(self.atoms), 3))
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": forces, "stress": np.zeros(6)}


def einstein_crystal(number: int = 8, seed: int = 0) -> tuple[Atoms, Springs]:
    """Atoms on springs with constants between 1 and 4 eV/Å², far apart."""
    rng = np.random.default_rng(seed)
    places = 5.0 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)[:number]
    return Atoms(f"Ar{number}", places), Springs(places.astype(float), rng.uniform(1, 4, number))
