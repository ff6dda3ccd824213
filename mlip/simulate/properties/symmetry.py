"""Symmetry of a crystal as spglib finds it, and what it does to tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, SimulationError

_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
"""Place of a component in the order xx yy zz yz xz xy."""


@dataclass(frozen=True)
class Symmetry:
    """What spglib says about a crystal.

    Attributes:
        spacegroup: symbol and number, such as ``"Fm-3m (225)"``.
        number: of the space group.
        conventional: (3, 3) lattice vectors Å of the conventional cell, in the axes of the structure.
        rotations: (operations, 3, 3) Cartesian.
        equivalent: (atoms,) number of the first atom that a symmetry takes each one to.
        wyckoffs: letter of each atom.
    """

    spacegroup: str
    number: int
    conventional: np.ndarray
    rotations: np.ndarray
    equivalent: np.ndarray
    wyckoffs: tuple[str, ...]


def require_spglib(what: str) -> None:
    """Refuse, before anything is computed, what symmetry is needed for where it cannot be found.

    Args:
        what: is to be computed, for the message, such as ``"An elastic tensor"``.

    Raises:
        ConfigError: spglib is not installed.
    """
    try:
        import spglib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{what} needs spglib ({error}): pip install 'mlip-kit[crystal]', or pip install spglib."
        ) from error


def find_symmetry(atoms: Atoms, symprec: float, kinds: np.ndarray | None = None) -> Symmetry:
    """Find the symmetry of a crystal.

    Args:
        atoms: the crystal.
        symprec: Å, within which it is symmetric.
        kinds: (atoms,) numbers of the kinds of sites, such as those of `mlip.simulate.properties.sites.site_kinds`,
            for moments to count; None: the elements only.

    Raises:
        ConfigError: spglib is not installed.
        SimulationError: spglib finds none, mostly because atoms are too close.
    """
    found = _ask_spglib("get_symmetry_dataset", atoms, kinds, symprec=symprec)
    cell = atoms.cell.array
    # Supercells have each rotation many times.
    whole = {rotation.tobytes(): rotation for rotation in found.rotations}.values()
    # x' = R x for columns of fractional coordinates; Cartesian columns are cellᵀ x.
    rotations = np.array([cell.T @ rotation @ np.linalg.inv(cell.T) for rotation in whole])
    # As spglib defines the matrix P of its transformation: (a b c)_structure = (a b c)_conventional P for columns.
    conventional = np.linalg.inv(found.transformation_matrix.T) @ cell
    return Symmetry(
        f"{found.international} ({found.number})", found.number, conventional, _distinct(rotations),
        found.equivalent_atoms, tuple(found.wyckoffs),
    )  # fmt: skip


def primitive_cell(
    atoms: Atoms, symprec: float, kinds: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a primitive cell in the axes of the structure: lattice vectors (3, 3) Å, fractional coordinates (n, 3) and
    numbers (n,) of elements or, if ``kinds`` are given, of kinds; see `find_symmetry`, also for what it raises.
    """
    options = {"to_primitive": True, "no_idealize": True, "symprec": symprec}
    lattice, scaled, numbers = _ask_spglib("standardize_cell", atoms, kinds, **options)
    return lattice, scaled, numbers if kinds is None else numbers - 1


def _ask_spglib(function: str, atoms: Atoms, kinds: np.ndarray | None, **options: Any) -> Any:
    require_spglib("The symmetry of a crystal")
    import spglib

    described = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers if kinds is None else kinds + 1)
    with warnings.catch_warnings():
        # About how failures are told; both ways are handled here.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = getattr(spglib, function)(described, **options)
        except spglib.SpglibError:
            found = None
    if found is None:
        raise SimulationError(
            f"spglib finds no symmetry within {options['symprec']:g} Å in this structure of {len(atoms)} atoms: do two "
            "atoms coincide?"
        )
    return found


def _distinct(rotations: np.ndarray) -> np.ndarray:
    """Return each rotation once, the identity first; supercells have every one several times."""
    kept = [np.eye(3)]
    for rotation in rotations:
        if not any(np.allclose(rotation, other, atol=1e-5) for other in kept):
            kept.append(rotation)
    return np.array(kept)


def invariant_tensor(tensor: np.ndarray, rotations: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of a tensor of elastic constants over rotations, with C_ij = C_ji.

    Args:
        tensor: (6, 6), order xx yy zz yz xz xy.
        rotations: Cartesian, each (3, 3); a single one just turns the tensor.
    """
    full = ((tensor + tensor.T) / 2)[_VOIGT[:, :, None, None], _VOIGT]
    turned = np.mean([np.einsum("ai,bj,ck,dl,ijkl", r, r, r, r, full, optimize=True) for r in rotations], axis=0)
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    return np.array([[turned[i, j, k, l] for k, l in pairs] for i, j in pairs])


def standard_frame(symmetry: Symmetry) -> np.ndarray:
    """Return the rotation (3, 3) from the axes of the structure to the standard ones of the IEEE (Std 176-1987).

    Of the lattice vectors of the conventional cell: cubic x, y, z along a, b, c; tetragonal, trigonal and hexagonal z
    along c, x along a; orthorhombic z, x, y along the shortest, the second and the longest; monoclinic y along the
    twofold axis, z along the shorter one of the others; triclinic z along the shortest, y across the plane with the
    second. Where the standard asks for signs of piezoelectric constants the axes stay as spglib gives them.
    """
    a, b, c = vectors = symmetry.conventional
    lengths = np.linalg.norm(vectors, axis=1)
    number = symmetry.number
    if number <= 2:
        short, middle, _ = vectors[np.argsort(lengths, kind="stable")]
        z, y = short, np.cross(short, middle)
    elif number <= 15:
        z, y = (a if lengths[0] < lengths[2] else c), b
    elif number <= 74:
        z, _, y = vectors[np.argsort(lengths, kind="stable")]
    elif number <= 194:
        z, y = c, np.cross(c, a)
    else:
        z, y = c, b
    z, y = z / np.linalg.norm(z), y / np.linalg.norm(y)
    y = y - (y @ z) * z
    y /= np.linalg.norm(y)
    return np.array([np.cross(y, z), y, z])
