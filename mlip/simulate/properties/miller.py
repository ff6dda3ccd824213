"""The cell that Miller indices refer to: that of the file if it is a conventional one, in whatever setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell

from mlip.core.errors import SimulationError
from mlip.simulate.properties.symmetry import Symmetry, find_symmetry, primitive_cell

TOLERANCE = 0.02
"""Share by which a lattice may miss the symmetry of the crystal."""


@dataclass(frozen=True)
class PlaneCell:
    """The cell whose lattice vectors Miller indices count.

    Attributes:
        vectors: (3, 3) Å, in the axes of the structure.
        given: whether its axes are those of the structure as given (or, of a supercell, parts of them).
    """

    vectors: np.ndarray
    given: bool

    def __str__(self) -> str:
        a, b, c, alpha, beta, gamma = Cell(self.vectors).cellpar()
        kind = "the cell as given" if self.given else "the conventional cell"
        return f"{kind}, a = {a:.4f}, b = {b:.4f}, c = {c:.4f} Å, α = {alpha:.2f}°, β = {beta:.2f}°, γ = {gamma:.2f}°"

    @property
    def hexagonal(self) -> bool:
        """Whether four indices (h k i l) make sense: a and b equally long, at 120°, and c across."""
        return _hexagonal_axis(self.vectors) == 2

    def as_dict(self) -> dict[str, Any]:
        """Return lattice parameters and vectors with their units in the names, ready for JSON."""
        a, b, c, alpha, beta, gamma = Cell(self.vectors).cellpar().tolist()
        return {
            "is_cell_as_given": self.given,
            "a_A": a,
            "b_A": b,
            "c_A": c,
            "alpha_deg": alpha,
            "beta_deg": beta,
            "gamma_deg": gamma,
            "vectors_A": self.vectors.tolist(),
        }


def plane_cell(crystal: Atoms, symprec: float = 0.01) -> PlaneCell:
    """Return the cell that Miller indices refer to; magnetic moments are not looked at.

    That is the structure's own cell if it is a conventional one: of as many atoms as the conventional cell of its space
    group, and with its axes along the symmetry elements as the crystal system has them, in any order and choice of
    axes. Of a supercell it is the conventional cell that was repeated; of any other cell the conventional one of spglib
    (hexagonal axes of a rhombohedral crystal).

    Raises:
        ConfigError, SimulationError: see `find_symmetry`.
    """
    # Of a supercell spglib tells only the rotations that turn it into itself.
    lattice, scaled, numbers = primitive_cell(crystal, symprec)
    symmetry = find_symmetry(Atoms(numbers, scaled_positions=scaled, cell=lattice, pbc=True), symprec)
    volume = abs(np.linalg.det(symmetry.conventional))
    for repeats in _factors(round(crystal.get_volume() / volume)):
        vectors = crystal.cell.array / np.array(repeats)[:, None]
        counts = vectors @ np.linalg.inv(lattice)
        same = abs(abs(np.linalg.det(vectors)) / volume - 1) < TOLERANCE
        if same and np.allclose(counts, np.rint(counts), atol=TOLERANCE) and _conventional(vectors, symmetry):
            return PlaneCell(vectors, True)
    return PlaneCell(symmetry.conventional, False)


def indices_in(cell: np.ndarray, miller: Sequence[int], other: np.ndarray) -> tuple[int, int, int]:
    """Return the indices in another cell (3, 3) of a plane of a cell (3, 3), whose lattice has the vectors of both.

    Raises:
        SimulationError: the two cells are not of one lattice.
    """
    # Lattice vectors of one cell are halves and thirds of sums of those of another one.
    found = 6 * other @ np.linalg.solve(cell, np.asarray(miller, dtype=float))
    whole = np.rint(found).astype(int)
    if not np.allclose(found, whole, atol=0.2) or not whole.any():
        raise SimulationError(
            f"The plane {tuple(miller)} has no whole indices in the primitive cell: refine the symmetry of the crystal "
            "(mlip relax --refine-symmetry)."
        )
    return tuple(int(n) for n in whole // np.gcd.reduce(whole))


def oriented(lattice: np.ndarray, plane: Sequence[int]) -> np.ndarray:
    """Return a cell of a lattice with the shortest two vectors in a plane, and the third to the next plane.

    Args:
        lattice: (3, 3) vectors Å.
        plane: indices in this lattice, without a common divisor.

    Returns:
        (3, 3) whole numbers, rows the new vectors in terms of the old ones, of determinant 1.
    """
    h, k, l = (int(n) for n in plane)
    divisor, p, q = _bezout(h, k)
    if divisor == 0:
        u, v, w = np.eye(3, dtype=int) * (1, 1, np.sign(l))
    else:
        _, s, t = _bezout(divisor, l)
        u, v, w = np.array([[k, -h, 0], [-p * l * divisor, -q * l * divisor, divisor**2], [s * p, s * q, t]])
        u, v = u // divisor, v // divisor
    # Gauss' reduction of the two, then the third as upright as can be.
    while True:
        if np.linalg.norm(u @ lattice) > np.linalg.norm(v @ lattice) + 1e-9:
            u, v = v, u
        short = u @ lattice
        times = round(float(v @ lattice @ short / (short @ short)))
        if times == 0 or np.linalg.norm((v - times * u) @ lattice) > np.linalg.norm(v @ lattice) - 1e-9:
            break
        v = v - times * u
    found = np.array([u, v, w])
    if np.linalg.det(found @ lattice) * np.linalg.det(lattice) < 0:
        found[0] *= -1
    found[2] -= np.rint(_in_plane(found @ lattice)).astype(int) @ found[:2]
    return found


def upright(cell: np.ndarray) -> np.ndarray:
    """Return the cell (3, 3) of the same lattice whose third vector is as upright over the first two as can be."""
    found = cell.copy()
    found[2] -= np.rint(_in_plane(cell)) @ cell[:2]
    return found


def _in_plane(cell: np.ndarray) -> np.ndarray:
    """Return how much (2,) of the first two vectors is in the third, its part across them aside."""
    return np.linalg.lstsq(cell[:2].T, cell[2], rcond=None)[0]


def _bezout(a: int, b: int) -> tuple[int, int, int]:
    """Return the greatest common divisor of two numbers, and p and q with ``p a + q b`` equal to it."""
    (a, b), (p, q), (r, s) = (a, b), (1, 0), (0, 1)
    while b:
        times = a // b
        a, b, p, q, r, s = b, a - times * b, r, s, p - times * r, q - times * s
    return (a, p, q) if a >= 0 else (-a, -p, -q)


def _factors(number: int) -> list[tuple[int, int, int]]:
    return [
        (i, j, number // (i * j))
        for i in range(1, number + 1)
        if number % i == 0
        for j in range(1, number // i + 1)
        if number // i % j == 0
    ]


def _conventional(vectors: np.ndarray, symmetry: Symmetry) -> bool:
    """Whether the axes of a cell of the right volume lie as the crystal system has them, in any order."""
    if symmetry.number <= 2:
        return True
    if 143 <= symmetry.number <= 194:
        axis = _hexagonal_axis(vectors)
        if axis is None:
            return False
        along = vectors[axis] / np.linalg.norm(vectors[axis])
        return bool(np.allclose(np.abs(along @ symmetry.rotations @ along), 1, atol=TOLERANCE))
    # Of columns of fractional coordinates; a symmetry may change the signs of the axes, and permute those it relates.
    turned = np.abs(np.linalg.inv(vectors.T) @ symmetry.rotations @ vectors.T)
    whole = np.allclose(turned, np.rint(turned), atol=TOLERANCE)
    if symmetry.number <= 74:
        return whole and bool((np.rint(turned) == np.eye(3)).all())
    return whole and bool((np.rint(turned).sum(axis=1) == 1).all() and (np.rint(turned).sum(axis=2) == 1).all())


def _hexagonal_axis(vectors: np.ndarray) -> int | None:
    """Return which vector lies across two equally long ones at 120°; None if none does."""
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = vectors @ vectors.T / np.outer(lengths, lengths)
    for axis in (2, 0, 1):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        found = (cosines[i, axis], cosines[j, axis], cosines[i, j] + 0.5, lengths[i] / lengths[j] - 1)
        if np.abs(found).max() < TOLERANCE:
            return axis
    return None
