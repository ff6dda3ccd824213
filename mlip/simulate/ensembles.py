"""Ensembles of molecular dynamics: each builds its ASE integrator and knows what it conserves.

Times are in fs, temperatures in K, pressures in GPa. Thermostats act on the degrees of freedom that can take
up heat: where total momentum is conserved, its three (and the rotations of a molecule) are not counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT, NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from mlip.core.errors import SimulationError
from mlip.core.units import FS, GPA, KB


class Ensemble(ABC):
    """What the dynamics samples.

    Attributes:
        name: how it is called in tables.
        momentum_conserved: whether total momentum stays zero.
        has_memory: whether the integrator carries variables that a restart loses.
        needs_stress: whether every step needs the stress.
        temperature: K, of the thermostat or, without one, of the initial velocities.
    """

    name: ClassVar[str]
    momentum_conserved: ClassVar[bool] = True
    has_memory: ClassVar[bool] = False
    needs_stress: ClassVar[bool] = False
    temperature: float

    def check(self, atoms: Atoms) -> None:
        """Refuse parameters or structures that make no sense.

        Raises:
            SimulationError: says what is wrong.
        """
        require_positive(temperature=self.temperature)

    @abstractmethod
    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's integrator.

        Args:
            atoms: with calculator and velocities.
            timestep: fs.
            freedom: degrees of freedom that carry heat.
            rng: source of the thermostat's noise.
        """

    @abstractmethod
    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the quantity in eV that exact integration would keep, or None if there is none."""


@dataclass(frozen=True)
class NVE(Ensemble):
    """Constant energy: velocity Verlet."""

    name: ClassVar[str] = "NVE (velocity Verlet)"
    temperature: float = 300.0

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return velocity Verlet."""
        return VelocityVerlet(atoms, timestep * FS)

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the total energy."""
        return float(dynamics.atoms.get_total_energy())


@dataclass(frozen=True)
class LangevinNVT(Ensemble):
    """Constant temperature by friction and noise on every atom; robust, and damps diffusion.

    Attributes:
        friction: 1/ps.
    """

    name: ClassVar[str] = "NVT (Langevin)"
    momentum_conserved: ClassVar[bool] = False
    temperature: float = 300.0
    friction: float = 10.0

    def check(self, atoms: Atoms) -> None:
        """Refuse a temperature or friction that is not positive."""
        super().check(atoms)
        require_positive(friction=self.friction)

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's Langevin integrator; the centre of mass diffuses, as it should."""
        friction = self.friction / (1000 * FS)
        return Langevin(atoms, timestep * FS, temperature_K=self.temperature, friction=friction, fixcm=False, rng=rng)

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return None: the bath's energy is not kept account of."""
        return None


@dataclass(frozen=True)
class BussiNVT(Ensemble):
    """Constant temperature by stochastic rescaling of all velocities (Bussi 2007); keeps diffusion.

    Attributes:
        time_constant: fs.
    """

    name: ClassVar[str] = "NVT (Bussi)"
    has_memory: ClassVar[bool] = True
    temperature: float = 300.0
    time_constant: float = 100.0

    def check(self, atoms: Atoms) -> None:
        """Refuse a temperature or time constant that is not positive."""
        super().check(atoms)
        require_positive(thermostat_time=self.time_constant)

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's Bussi integrator for our count of the degrees of freedom."""
        dynamics = Bussi(atoms, timestep * FS, temperature_K=self.temperature, taut=self.time_constant * FS, rng=rng)
        # ASE counts 3 N, which would heat a molecule of N atoms by a factor N / (N - 2).
        dynamics.ndof = freedom
        dynamics.target_kinetic_energy = 0.5 * freedom * KB * self.temperature
        return dynamics

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the total energy less what the thermostat put in."""
        return float(dynamics.atoms.get_total_energy() - dynamics.transferred_energy)


@dataclass(frozen=True)
class NoseHooverNVT(Ensemble):
    """Constant temperature by a Nosé–Hoover chain; deterministic, for systems of many atoms.

    Attributes:
        time_constant: fs.
    """

    name: ClassVar[str] = "NVT (Nosé–Hoover chain)"
    has_memory: ClassVar[bool] = True
    temperature: float = 300.0
    time_constant: float = 100.0

    def check(self, atoms: Atoms) -> None:
        """Refuse a temperature or time constant that is not positive."""
        super().check(atoms)
        require_positive(thermostat_time=self.time_constant)

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's integrator, with a chain made for our count of the degrees of freedom."""
        damping = self.time_constant * FS
        dynamics = NoseHooverChainNVT(atoms, timestep * FS, temperature_K=self.temperature, tdamp=damping)
        dynamics._thermostat = nose_hoover_chain(atoms, self.temperature, damping, freedom)
        return dynamics

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the energy of the extended system."""
        return float(dynamics.get_conserved_energy())


@dataclass(frozen=True)
class IsotropicNPT(Ensemble):
    """Constant temperature and pressure: Martyna–Tobias–Klein, the cell keeps its shape.

    Attributes:
        pressure: GPa.
        time_constant: of the thermostat, fs.
        barostat_time: fs.
    """

    name: ClassVar[str] = "NPT (isotropic Martyna–Tobias–Klein)"
    has_memory: ClassVar[bool] = True
    needs_stress: ClassVar[bool] = True
    temperature: float = 300.0
    pressure: float = 0.0
    time_constant: float = 100.0
    barostat_time: float = 1000.0

    def check(self, atoms: Atoms) -> None:
        """Refuse times that are not positive, structures that are not periodic, and constraints."""
        super().check(atoms)
        require_positive(thermostat_time=self.time_constant, barostat_time=self.barostat_time)
        if not np.isfinite(self.pressure):
            raise SimulationError(f"The pressure must be a number in GPa, got {self.pressure}.")
        if not atoms.pbc.all():
            raise SimulationError(
                "NPT needs a structure that is periodic along all axes, this one has pbc "
                f"{atoms.pbc.tolist()}. "
                "Use NVT."
            )
        if atoms.constraints:
            raise SimulationError("NPT cannot be run with fixed atoms or other constraints. Use NVT, or free them.")

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's integrator, with a chain made for our count of the degrees of freedom."""
        damping = self.time_constant * FS
        dynamics = IsotropicMTKNPT(
            atoms,
            timestep * FS,
            temperature_K=self.temperature,
            pressure_au=self.pressure * GPA,
            tdamp=damping,
            pdamp=self.barostat_time * FS,
        )
        dynamics._thermostat = nose_hoover_chain(atoms, self.temperature, damping, freedom)
        return dynamics

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the energy of the extended system."""
        return float(dynamics.get_conserved_energy())


def nose_hoover_chain(atoms: Atoms, temperature: float, damping: float, freedom: int) -> NoseHooverChainThermostat:
    """Return ASE's chain for a given number of degrees of freedom.

    ASE counts three an atom, also those of the conserved momenta, which hold no heat: the rest of a molecule
    of N atoms would then be N / (N - 2) times too hot. The number of atoms enters nothing but this count.
    """
    return NoseHooverChainThermostat(
        num_atoms_global=freedom / 3,
        masses=atoms.get_masses()[:, None],
        temperature_K=temperature,
        tdamp=damping,
    )


def require_positive(**values: float) -> None:
    """Refuse numbers that are not positive and finite.

    Raises:
        SimulationError: names the value.
    """
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise SimulationError(f"The {name.replace('_', ' ')} must be a positive number, got {value}.")
