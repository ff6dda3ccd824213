"""Constant temperature and pressure after Martyna, Tobias and Klein (1994): the volume, the axes, or the whole cell."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, MaskedMTKNPT

from mlip.core.errors import SimulationError
from mlip.core.units import FS, GPA, KB
from mlip.simulate.ensembles import CHAIN, Ensemble, heat_chain, nose_hoover_chain, require_positive

_BAROSTAT = ("_barostat._xi", "_barostat._p_xi")
SYMMETRIC = 6
"""Ways in which a cell can be strained without being rotated."""


@dataclass(frozen=True)
class _NPT(Ensemble):
    """What all barostats here have in common.

    Attributes:
        pressure: GPa.
        time_constant: of the thermostat, fs.
        barostat_time: fs.
    """

    needs_stress: ClassVar[bool] = True
    momentum: ClassVar[str]
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
                f"{atoms.pbc.tolist()}. Use NVT."
            )
        if atoms.constraints:
            raise SimulationError("NPT cannot be run with fixed atoms or other constraints. Use NVT, or free them.")

    def integrator(self, atoms: Atoms, timestep: float, freedom: int, rng: np.random.Generator) -> MolecularDynamics:
        """Return ASE's integrator, with our count of the degrees of freedom in thermostat and barostat.

        Momentum is conserved, so that f = 3 N - 3 of them move. ASE puts 3 N into the equations (MTK 1994, eq. 2.9);
        the volume of an ideal gas would then be distributed as V^(N - 1 - 1/N) exp(-pV/kT) instead of
        V^(N - 1) exp(-pV/kT), whose mean is that of the gas law, N kT/p.
        """
        damping = self.time_constant * FS
        dynamics = self._barostat(
            atoms=atoms,
            timestep=timestep * FS,
            temperature_K=self.temperature,
            pressure_au=self.pressure * GPA,
            tdamp=damping,
            pdamp=self.barostat_time * FS,
        )
        dynamics._thermostat = nose_hoover_chain(atoms, self.temperature, damping, freedom)
        # Of the integrator alone; the barostat has taken its mass from the number of atoms.
        dynamics._num_atoms_global = freedom / 3
        return dynamics

    @abstractmethod
    def _barostat(self, **options: Any) -> MolecularDynamics:
        """Return ASE's integrator as it comes."""

    def conserved_energy(self, dynamics: MolecularDynamics) -> float | None:
        """Return the energy of the extended system."""
        return float(dynamics.get_conserved_energy())

    def set_temperature(self, dynamics: MolecularDynamics, temperature: float) -> None:
        """Change the temperature of both chains."""
        heat_chain(dynamics._thermostat, "_Q", "_p_eta", KB * temperature)
        barostat = dynamics._barostat
        if not hasattr(barostat, "_W_at_start"):
            barostat._W_at_start = barostat._W
        ratio = heat_chain(barostat, "_R", "_p_xi", KB * temperature)
        barostat._W = barostat._W_at_start * (temperature / self.temperature)
        setattr(dynamics, self.momentum, getattr(dynamics, self.momentum) * ratio)


@dataclass(frozen=True)
class IsotropicNPT(_NPT):
    """Constant temperature and pressure; the volume changes, the cell keeps its shape.

    Attributes:
        pressure: GPa.
        time_constant: of the thermostat, fs.
        barostat_time: fs.
    """

    name: ClassVar[str] = "NPT (isotropic Martyna–Tobias–Klein)"
    momentum: ClassVar[str] = "_p_eps"
    inner: ClassVar[tuple[str, ...]] = ("_volume0", "_cell0", "_q", "_p", "_eps", "_p_eps", *CHAIN, *_BAROSTAT)

    def _barostat(self, **options: Any) -> MolecularDynamics:
        return IsotropicMTKNPT(**options)


@dataclass(frozen=True)
class AnisotropicNPT(_NPT):
    """Constant temperature and pressure; the three axes change their lengths, the angles stay.

    Attributes:
        pressure: GPa.
        time_constant: of the thermostat, fs.
        barostat_time: fs.
    """

    name: ClassVar[str] = "NPT (anisotropic Martyna–Tobias–Klein)"
    momentum: ClassVar[str] = "_p_c"
    inner: ClassVar[tuple[str, ...]] = ("_h0_basis", "_q", "_p", "_h", "_p_c", *CHAIN, *_BAROSTAT)

    def check(self, atoms: Atoms) -> None:
        """Refuse what NPT refuses, and cells whose axes are not at right angles, whose strains would not be free."""
        super().check(atoms)
        angles = atoms.cell.angles()
        if np.abs(angles - 90).max() > 1e-6:
            raise SimulationError(
                f"Anisotropic NPT needs axes at right angles, this cell has angles {angles.round(3).tolist()}. "
                "Use the full cell, the isotropic barostat, or a rectangular supercell."
            )

    def _barostat(self, **options: Any) -> MolecularDynamics:
        # An array: ASE indexes with the mask, and a tuple would be taken for three indices.
        return MaskedMTKNPT(mask=np.ones(3, dtype=bool), **options)


@dataclass(frozen=True)
class FullCellNPT(_NPT):
    """Constant temperature and pressure; lengths and angles of the cell change, it does not rotate.

    Attributes:
        pressure: GPa.
        time_constant: of the thermostat, fs.
        barostat_time: fs.
    """

    name: ClassVar[str] = "NPT (full-cell Martyna–Tobias–Klein)"
    momentum: ClassVar[str] = "_p_g"
    inner: ClassVar[tuple[str, ...]] = ("_q", "_p", "_h", "_p_g", *CHAIN, *_BAROSTAT)

    def _barostat(self, **options: Any) -> MolecularDynamics:
        dynamics = MTKNPT(**options)
        # The momentum of the cell is symmetric and stays so, which makes six; ASE counts nine and would keep
        # the cell at one and a half times the temperature.
        barostat = dynamics._barostat
        barostat._R[0] *= SYMMETRIC / barostat._cell_dof
        barostat._cell_dof = SYMMETRIC
        return dynamics
