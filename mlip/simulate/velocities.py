"""Maxwell–Boltzmann velocities, and the temperature of what is really free to move."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mlip.core.errors import SimulationError
from mlip.core.units import KB
from mlip.simulate.constraints import free_directions, holds, unheld


def rigid_motions(atoms: Atoms) -> np.ndarray:
    """Return an orthonormal basis of the rigid motions that the dynamics conserves the momentum of.

    Translations; rotations of a molecule (two if it is linear, none for an atom); of a wire the one about its axis.
    Where constraints hold atoms to places, those motions that they let pass: along the plane that an atom is held
    to, or about the one atom that is fixed; see :func:`mlip.simulate.constraints.holds`.

    Returns:
        (motions, 3 · atoms), in mass-weighted coordinates ``sqrt(m) v``.
    """
    root_mass = np.sqrt(atoms.get_masses())[:, None]
    matrix = np.stack([(velocity * root_mass).ravel() for velocity in _rigid_velocities(atoms, atoms.positions)])
    scale = np.linalg.norm(matrix, axis=1).max()
    if atoms.constraints:
        blocks, points = holds(atoms)
        matrix = unheld(blocks, _rigid_velocities(atoms, points)) @ matrix
    _, sizes, basis = np.linalg.svd(matrix / scale, full_matrices=False)
    # Compared with a rotation by a radian of an object of 1 Å: below 1e-6 the rotation moves nothing.
    return basis[sizes > 1e-6]


def _rigid_velocities(atoms: Atoms, points: np.ndarray) -> np.ndarray:
    """Return the velocities (motions, points, 3) of translations and of rotations about the centre of mass."""
    centred = points - atoms.get_center_of_mass()
    shifts = [np.tile(axis, (len(points), 1)) for axis in np.eye(3)]
    return np.stack([*shifts, *(np.cross(axis, centred) for axis in _rotation_axes(atoms))])


def _rotation_axes(atoms: Atoms) -> np.ndarray:
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) == 0:
        return np.eye(3)
    return periodic / np.linalg.norm(periodic, axis=1)[:, None] if len(periodic) == 1 else np.zeros((0, 3))


def degrees_of_freedom(atoms: Atoms, momentum_conserved: bool) -> int:
    """Count the degrees of freedom that carry kinetic energy kT/2.

    Args:
        atoms: the structure; for its constraints see :func:`mlip.simulate.constraints.free_directions`.
        momentum_conserved: whether the dynamics keeps the total (and angular) momentum, which is zero at
            the start. Langevin dynamics does not.

    Raises:
        SimulationError: constraints that cannot be counted.
    """
    free = free_directions(atoms)
    return free - len(rigid_motions(atoms)) if momentum_conserved else free


def temperature_of(atoms: Atoms, freedom: int) -> float:
    """Return 2 E_kin / (freedom · k_B) in K."""
    return float(2 * atoms.get_kinetic_energy() / (freedom * KB))


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Set velocities from the Maxwell–Boltzmann distribution, in place.

    Net momentum and, for molecules, angular momentum are removed where they are conserved; then the velocities are
    scaled so that the kinetic energy of the remaining degrees of freedom is exactly the one of the temperature.

    Args:
        atoms: gets new momenta.
        temperature: K.
        rng: source of the random numbers.

    Raises:
        SimulationError: nothing is free to move, as in a periodic cell of one atom, or the constraints cannot be
            counted.
    """
    freedom = degrees_of_freedom(atoms, momentum_conserved=True)
    if freedom <= 0:
        raise SimulationError(
            f"A structure of {len(atoms)} atom(s) with {len(atoms.constraints)} constraint(s) has no "
            "internal motion "
            "to give a temperature to. Use a larger cell or fix fewer atoms."
        )
    noise = rng.standard_normal((len(atoms), 3))
    atoms.set_momenta(noise * np.sqrt(atoms.get_masses())[:, None])
    remove_rigid_motion(atoms)
    # Constraints have acted by now, so this is the energy that is really there.
    target = 0.5 * freedom * KB * temperature
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(target / atoms.get_kinetic_energy()))


def remove_rigid_motion(atoms: Atoms) -> None:
    """Take net momentum and, for molecules, angular momentum out of the velocities, in place.

    See `rigid_motions` for what is left where atoms are held.
    """
    if atoms.constraints:
        atoms.set_momenta(atoms.get_momenta())  # Through the constraints, which the rest then stays in.
    root_mass = np.sqrt(atoms.get_masses())[:, None]
    weighted = (atoms.get_momenta() / root_mass).ravel()
    basis = rigid_motions(atoms)
    weighted -= basis.T @ (basis @ weighted)
    atoms.set_momenta(weighted.reshape(-1, 3) * root_mass)
