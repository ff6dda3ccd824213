"""OpenMM with a model as one of its forces, through ``PythonForce``."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.committee import Source
from mlip.core.errors import ConfigError
from mlip.core.units import ANGSTROM_PER_NM, KJ_PER_MOL
from mlip.drivers.session import Session, check_masses, require

if TYPE_CHECKING:
    from openmm import PythonForce, State, System
    from openmm.app import Topology


def attach(
    system: System,
    model: Source | Sequence[Source] | MLIPCalculator,
    elements: Sequence[str | int] | Topology,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    charge: int | None = None,
    spin: int | None = None,
    periodic: bool | None = None,
) -> PythonForce:
    """Add a model to the forces of a system; call it before the context is made.

    >>> attach(system, "model.safetensors", topology)  # doctest: +SKIP
    >>> simulation = Simulation(topology, system, integrator)  # doctest: +SKIP

    Forces that are in the system already act besides it, a barostat works as with any force: it moves by energies.

    Args:
        system: with all its particles.
        model: model, path or name; several are a committee. Or a calculator.
        elements: symbol or atomic number of each particle, or the topology that knows them.
        device, dtype, charge, spin: as in :class:`~mlip.calculators.ase.MLIPCalculator`.
        periodic: whether along all three box vectors, or none. None: if the topology has box vectors; a list of
            elements does not say.

    Returns:
        The force, added to the system.

    Raises:
        ConfigError: OpenMM is not installed, or too old; elements that do not fit the particles and their masses,
            virtual sites, a list of elements without ``periodic``, a model that reads what is not given.
        StructureError: an element that the model does not know.
    """
    require("openmm", "openmm", "The OpenMM driver")
    import openmm

    if not hasattr(openmm, "PythonForce"):
        raise ConfigError(
            f"The OpenMM driver needs OpenMM 8.6 or newer, which has PythonForce, and this is {openmm.__version__}: "
            "pip install -U 'mlip-kit[openmm]'."
        )
    symbols, boxed = _elements(elements)
    periodic = boxed if periodic is None else periodic
    if periodic is None:
        raise ConfigError("A list of elements does not say whether the box is periodic: give periodic=True or False.")
    count = system.getNumParticles()
    if len(symbols) != count:
        raise ConfigError(f"The system has {count} particles, elements must name each of them, got {len(symbols)}.")
    sites = [particle for particle in range(count) if system.isVirtualSite(particle)]
    if sites:
        raise ConfigError(f"Particle {sites[0]} is a virtual site, which a model of atoms cannot have: leave them out.")
    session = Session(model, device=device, dtype=dtype, charge=charge, spin=spin)
    numbers = session.check_elements(symbols)
    masses = [system.getParticleMass(particle).value_in_unit(openmm.unit.dalton) for particle in range(count)]
    check_masses(numbers, masses, "Particle")
    force = openmm.PythonForce(_Computation(session, numbers, periodic))
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName("mlip")
    system.addForce(force)
    return force


class _Computation:
    """The function that OpenMM calls."""

    def __init__(self, session: Session, numbers: np.ndarray, periodic: bool) -> None:
        self._session, self._numbers, self._periodic = session, numbers, periodic

    def __call__(self, state: State) -> tuple[float, np.ndarray]:
        """Return energy in kJ/mol and forces (particles, 3) in kJ/mol/nm."""
        import openmm

        nm = openmm.unit.nanometer
        positions = state.getPositions(asNumpy=True).value_in_unit(nm) * ANGSTROM_PER_NM
        cell = np.zeros((3, 3))
        if self._periodic:
            cell = np.array(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(nm)) * ANGSTROM_PER_NM
        found = self._session.evaluate(self._numbers, positions, cell, [self._periodic] * 3, virial=False)
        return found.energy / KJ_PER_MOL, found.forces * (ANGSTROM_PER_NM / KJ_PER_MOL)

    def __reduce__(self) -> Any:
        # OpenMM would keep a pickled copy of all weights beside the model.
        raise pickle.PicklingError("A system with a model cannot be serialised: attach the model after loading it.")


def _elements(elements: Sequence[str | int] | Topology) -> tuple[list[str | int], bool | None]:
    """Return the element of every particle, and whether the box is periodic if that is known."""
    if isinstance(elements, str):
        raise ConfigError(f"elements must name each particle, as in ['O', 'H', 'H'], got '{elements}'.")
    if not hasattr(elements, "atoms"):
        return list(elements), None
    atoms = list(elements.atoms())
    for atom in atoms:
        if atom.element is None:
            raise ConfigError(f"Atom {atom.index + 1} ({atom.name}) of the topology has no element: it is no atom.")
    return [atom.element.atomic_number for atom in atoms], elements.getPeriodicBoxVectors() is not None
