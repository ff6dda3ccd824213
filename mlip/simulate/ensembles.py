"""Ensembles of molecular dynamics: each builds its ASE integrator and knows what it conserves.

Times are in fs, temperatures in K, pressures in GPa. Thermostats act on the degrees of freedom that can take
up heat: where total momentum is conserved, its three (and the rotations of a molecule) are not counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from mlip.core.errors import SimulationError
from mlip.core.units import FS, KB
from mlip.simulate.constraints import STRAIGHT

CHAIN = ("_thermostat._eta", "_thermostat._p_eta")
"""Coordinates and momenta of a Nosé–Hoover chain, as ASE names them."""

SMOOTH = 0.5
"""Product of friction and time step up to which ASE's Langevin integrator (Vanden-Eijnden and Ciccotti, 2006) is true:
free particles are 0.6 % too cold at 0.5, 0.6 % too hot at 1, 10 % at 1.5, 40 % at 2; from 4 on nothing is stable."""


class Ensemble(ABC):
    """What the dynamics samples.

    Attributes:
        name: how it is called in tables.
        momentum_conserved: whether total momentum stays zero.
        inner: dotted names of the variables of ASE's integrator that are not in the atoms.
        needs_stress: whether every step needs the stress.
        temperature: K, of the thermostat or, without one, of the initial velocities.
    """

    name: ClassVar[str]
    momentum_conserved: ClassVar[bool] = True
    inner: ClassVar[tuple[str, ...]] = ()
    needs_stress: ClassVar[bool] = False
    temperature: float

    def check(self, atoms: Atoms) -> None:
        """Refuse parameters or structures that make no sense.

        Raises:
            SimulationError: says what is wrong.
        """
        require_positive(temperature=self.temperature)

    def timestep_problem(self, timestep: float) -> str | None:
        """Return why a time step in fs is too long for the thermostat, or None."""
        return None

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

    def set_temperature(self, dynamics: MolecularDynamics, temperature: float) -> None:
        """Change the temperature of the thermostat from the next step on.

        Masses of chains and barostats grow with it, so that their periods stay; so do their momenta.

        Args:
            dynamics: the integrator.
            temperature: K.

        Raises:
            SimulationError: this ensemble has no thermostat.
        """
        raise SimulationError(f"{self.name} has no thermostat whose temperature could be changed. Use NVT or NPT.")

    def state(self, dynamics: MolecularDynamics) -> dict[str, np.ndarray]:
        """Return the variables of the integrator that are not in the atoms, by name."""
        return {name: np.array(attrgetter(name)(dynamics), dtype=np.float64) for name in self.inner}

    def set_state(self, dynamics: MolecularDynamics, state: Mapping[str, np.ndarray]) -> None:
        """Give a new integrator the variables of another one, so that it goes on bit by bit like that one.

        Raises:
            SimulationError: variables are missing or have other shapes.
        """
        now = self.state(dynamics)
        if {name: value.shape for name, value in now.items()} != {name: value.shape for name, value in state.items()}:
            raise SimulationError(
                f"What was saved of the integrator does not fit {self.name}. Start without a restart."
            )
        for name, value in state.items():
            *owner, attribute = name.split(".")
            target = attrgetter(".".join(owner))(dynamics) if owner else dynamics
            setattr(target, attribute, value.copy() if value.ndim else float(value))


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

    def timestep_problem(self, timestep: float) -> str | None:
        """Compare the time step with the time in which friction stops an atom."""
        product = self.friction * timestep / 1000
        if product <= SMOOTH:
            return None
        return (
            f"A friction of {self.friction:g} 1/ps is much for steps of {timestep:g} fs: the product is {product:.3g} "
            f"and the temperature wrong above {SMOOTH:g} (40 % at 2). Take at most {1000 * SMOOTH / timestep:.3g} 1/ps."
        )

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's Langevin integrator; the centre of mass diffuses, as it should."""
        friction = self.friction / (1000 * FS)
        return Langevin(atoms, timestep * FS, temperature_K=self.temperature, friction=friction, fixcm=False, rng=rng)

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return None: the bath's energy is not kept account of."""
        return None

    def set_temperature(self, dynamics: MolecularDynamics, temperature: float) -> None:
        """Change the strength of the noise."""
        dynamics.set_temperature(temperature_K=temperature)


@dataclass(frozen=True)
class BussiNVT(Ensemble):
    """Constant temperature by stochastic rescaling of all velocities (Bussi 2007); keeps diffusion.

    Attributes:
        time_constant: fs.
    """

    name: ClassVar[str] = "NVT (Bussi)"
    inner: ClassVar[tuple[str, ...]] = ("transferred_energy",)
    temperature: float = 300.0
    time_constant: float = 100.0

    def check(self, atoms: Atoms) -> None:
        """Refuse a temperature or time constant that is not positive."""
        super().check(atoms)
        require_positive(thermostat_time=self.time_constant)

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's Bussi integrator for our count of the degrees of freedom.

        Raises:
            SimulationError: nothing moves, which no scaling changes.
        """
        if atoms.get_kinetic_energy() <= 1e-12:
            raise SimulationError("Bussi's thermostat scales velocities, and here are none: draw some or use Langevin.")
        dynamics = Bussi(atoms, timestep * FS, temperature_K=self.temperature, taut=self.time_constant * FS, rng=rng)
        # ASE counts 3 N, which would heat a molecule of N atoms by a factor N / (N - 2).
        dynamics.ndof = freedom
        dynamics.target_kinetic_energy = 0.5 * freedom * KB * self.temperature
        return dynamics

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the total energy less what the thermostat put in."""
        return float(dynamics.atoms.get_total_energy() - dynamics.transferred_energy)

    def set_temperature(self, dynamics: MolecularDynamics, temperature: float) -> None:
        """Change the kinetic energy that is aimed at."""
        dynamics.temp = KB * temperature
        dynamics.target_kinetic_energy = 0.5 * dynamics.ndof * KB * temperature


@dataclass(frozen=True)
class NoseHooverNVT(Ensemble):
    """Constant temperature by a Nosé–Hoover chain; deterministic, for systems of many atoms.

    Attributes:
        time_constant: fs.
    """

    name: ClassVar[str] = "NVT (Nosé–Hoover chain)"
    inner: ClassVar[tuple[str, ...]] = ("_q", "_p", *CHAIN)
    temperature: float = 300.0
    time_constant: float = 100.0

    def check(self, atoms: Atoms) -> None:
        """Refuse a temperature or time constant that is not positive, and constraints such as rigid bonds."""
        super().check(atoms)
        require_positive(thermostat_time=self.time_constant)
        for constraint in atoms.constraints:
            if not isinstance(constraint, STRAIGHT):
                raise SimulationError(
                    f"The Nosé–Hoover chain knows fixed atoms, lines and planes, not {type(constraint).__name__}. Use "
                    "Langevin or Bussi."
                )

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's integrator, with a chain made for our count of the degrees of freedom."""
        damping = self.time_constant * FS
        dynamics = _ConstrainedChain(atoms, timestep * FS, temperature_K=self.temperature, tdamp=damping)
        dynamics._thermostat = nose_hoover_chain(atoms, self.temperature, damping, freedom)
        return dynamics

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the energy of the extended system."""
        return float(dynamics.get_conserved_energy())

    def set_temperature(self, dynamics: MolecularDynamics, temperature: float) -> None:
        """Change the temperature of the chain."""
        heat_chain(dynamics._thermostat, "_Q", "_p_eta", KB * temperature)


class _ConstrainedChain(NoseHooverChainNVT):
    """ASE's integrator, for atoms that are fixed, too.

    ASE's own lets the forces on fixed atoms into momenta that it keeps apart from those of the atoms: the chain takes
    them for heat, and cools what really moves down to nothing.
    """

    def _update_atoms(self) -> None:
        super()._update_atoms()
        if self.atoms.constraints:
            self._q, self._p = self.atoms.get_positions(), self.atoms.get_momenta()

    def _get_forces(self) -> np.ndarray:
        self._update_atoms()
        return self.atoms.get_forces()


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


def heat_chain(chain: object, masses: str, momenta: str, energy: float) -> float:
    """Change the temperature of one of ASE's chains; with its old masses one that is heated much runs away.

    The new masses do not depend on the temperatures in between, so that a restart has the same.

    Args:
        chain: of a thermostat or barostat.
        masses, momenta: names of its arrays.
        energy: the new kT, eV.

    Returns:
        New over old temperature.
    """
    if not hasattr(chain, "_at_start"):
        chain._at_start = chain._kT, getattr(chain, masses).copy()
    start, at_start = chain._at_start
    ratio = energy / chain._kT
    setattr(chain, masses, at_start * (energy / start))
    setattr(chain, momenta, getattr(chain, momenta) * ratio)
    chain._kT = energy
    return ratio


def require_positive(**values: float) -> None:
    """Refuse numbers that are not positive and finite.

    Raises:
        SimulationError: names the value.
    """
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise SimulationError(f"The {name.replace('_', ' ')} must be a positive number, got {value}.")
