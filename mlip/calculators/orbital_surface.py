"""Pictures of molecular orbitals: surfaces of equal amplitude, seen through to the atoms, with numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from scipy.ndimage import zoom

from mlip.core.units import BOHR

ENCLOSED = 0.75
"""Part of the electron that is inside of the surface."""

MARGIN = 3.2
"""Å around the atoms, in which all of an orbital that counts ends."""

COARSE = 0.22
"""Å between the points where an orbital is computed."""

FINEST, FINE_POINTS = 0.03, 6_000_000
"""Å between the points to which it is interpolated for drawing, unless these are more."""

MOST_POINTS = 90
"""Coarse points along the longest axis: larger molecules are drawn coarser."""

TILT = (0.35, 0.30)
"""Radians by which the plane of the molecule is turned, so that lobes above and below it are seen apart."""

_POSITIVE, _NEGATIVE = np.array([0.13, 0.40, 0.80]), np.array([0.87, 0.28, 0.20])
_LIGHT = np.array([-0.40, 0.50, 0.77])
_OPACITY = 0.62
_POINTS_AT_ONCE = 20_000

Sphere = tuple[np.ndarray, float, np.ndarray]
"""Centre and radius in points, colour."""


@dataclass(frozen=True)
class View:
    """A camera: axes and box.

    Attributes:
        axes: (3, 3), rows are right, up and towards the eye.
        low: (3,) corner of the box along these axes, Å.
        counts: coarse points along them.
        step: Å between these.
    """

    axes: np.ndarray
    low: np.ndarray
    counts: tuple[int, int, int]
    step: float


def view_of(positions: np.ndarray) -> View:
    """Look at a molecule with its longest axis to the right and its shortest nearly towards the eye.

    Args:
        positions: (atoms, 3) Å.
    """
    centred = positions - positions.mean(axis=0)
    # With something added, or the axes of an atom and of a line would be any.
    _, axes = np.linalg.eigh(centred.T @ centred + np.diag([3e-3, 2e-3, 1e-3]))
    right, up = (axis * np.sign(axis[np.abs(axis).argmax()]) for axis in (axes[:, 2], axes[:, 1]))
    flat = np.stack([right, up, np.cross(right, up)])
    (sx, cx), (sy, cy) = ((np.sin(angle), np.cos(angle)) for angle in TILT)
    turned = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]) @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ flat
    seen = positions @ turned.T
    low, extent = seen.min(axis=0) - MARGIN, np.ptp(seen, axis=0) + 2 * MARGIN
    step = max(COARSE, float(extent.max()) / MOST_POINTS)
    return View(turned, low, tuple(int(n) for n in np.ceil(extent / step) + 1), step)


def orbital_on_grid(mol: Any, coefficients: np.ndarray, view: View) -> np.ndarray:
    """Return an orbital's amplitude in Bohr^(-3/2) on the coarse points of a view.

    Args:
        mol: ``pyscf.gto.Mole``.
        coefficients: (orbitals,) in the order `pyscf`.
        view: the camera.
    """
    ranges = [low + view.step * np.arange(count) for low, count in zip(view.low, view.counts)]
    points = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3) @ view.axes / BOHR
    chunks = range(0, len(points), _POINTS_AT_ONCE)
    values = [mol.eval_gto("GTOval_sph", points[k : k + _POINTS_AT_ONCE]) @ coefficients for k in chunks]
    return np.concatenate(values).reshape(view.counts)


def enclosing_amplitude(amplitudes: np.ndarray, enclosed: float = ENCLOSED) -> float:
    """Return the amplitude above which this part of the electron is."""
    squares = np.sort(amplitudes.ravel() ** 2)[::-1]
    inside = np.cumsum(squares) / squares.sum()
    return float(np.sqrt(squares[np.searchsorted(inside, enclosed)]))


def trimmed(view: View, orbitals: Sequence[np.ndarray], positions: np.ndarray) -> tuple[View, list[np.ndarray]]:
    """Cut off the margins in which neither an atom nor a surface is; the view and the orbitals remain one for all."""
    inside = np.any([np.abs(values) > 0.5 * enclosing_amplitude(values) for values in orbitals], axis=0)
    nearest = np.rint((positions @ view.axes.T - view.low) / view.step).astype(int)
    inside[tuple(nearest.T)] = True
    low, high = zip(*((where.min(), where.max()) for where in np.nonzero(inside)))
    low = np.maximum(np.array(low) - 2, 0)
    high = np.minimum(np.array(high) + 3, view.counts)
    counts = tuple(int(n) for n in high - low)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    return View(view.axes, view.low + view.step * low, counts, view.step), [values[box] for values in orbitals]


def draw_surface(
    amplitudes: np.ndarray, level: float, view: View, numbers: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Return a picture (height, width, 3) of the surfaces of both signs around the molecule, on white.

    Surfaces are put over each other from the back to the front; atoms and bonds are opaque.

    Args:
        amplitudes: as `orbital_on_grid` returns them.
        level: amplitude of the surface, see `enclosing_amplitude`.
        view: the camera.
        numbers: atomic numbers.
        positions: Å.
    """
    volume = np.prod([view.step * count for count in view.counts])
    field = zoom(
        amplitudes, view.step / max(FINEST, float(volume / FINE_POINTS) ** (1 / 3)), order=3, output=np.float32
    )
    scale = (np.array(field.shape) - 1) / (np.array(view.counts) - 1)
    spheres = _spheres(numbers, (positions @ view.axes.T - view.low) / view.step * scale, scale[0] / view.step)
    colour, depth = _solid(spheres, field.shape)
    image = np.ones((*field.shape[:2], 3))
    signs = np.where(np.abs(field) < level, 0, np.sign(field)).astype(np.int8)
    for k in range(1, field.shape[2] - 1):
        # A surface is seen where the next layer towards the eye is outside, or inside of the other sign.
        front = (signs[:, :, k] != 0) & (signs[:, :, k] != signs[:, :, k + 1])
        if front.any():
            image[front] = _over(image[front], _shade(field, signs, front, k))
        here = depth == k
        image[here] = colour[here]
    # Rows of a picture go down.
    return np.clip(image.transpose(1, 0, 2)[::-1], 0, 1)


def _over(behind: np.ndarray, surface: np.ndarray) -> np.ndarray:
    return (1 - _OPACITY) * behind + _OPACITY * surface


def _shade(field: np.ndarray, signs: np.ndarray, front: np.ndarray, k: int) -> np.ndarray:
    """Return the colours of the points of one layer that are on a surface, lit from the upper left."""
    i, j = np.nonzero(front)
    i, j = np.clip(i, 1, field.shape[0] - 2), np.clip(j, 1, field.shape[1] - 2)
    gradient = np.stack(
        [
            field[i + 1, j, k] - field[i - 1, j, k],
            field[i, j + 1, k] - field[i, j - 1, k],
            field[i, j, k + 1] - field[i, j, k - 1],
        ],
        axis=1,
    )
    sign = signs[:, :, k][front]
    normal = -gradient * sign[:, None]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-30
    return _lit(np.where(sign[:, None] > 0, _POSITIVE, _NEGATIVE), normal)


def _lit(colour: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return colours under a lamp: everywhere a little, by the cosine, and a highlight."""
    cosine = np.clip(normal @ _LIGHT, 0, 1)[:, None]
    return colour * (0.50 + 0.55 * cosine) + 0.30 * cosine**24


def _spheres(
    numbers: np.ndarray, centres: np.ndarray, per_angstrom: float
) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Return every atom, and the beads that bonds are made of."""
    radii = covalent_radii[numbers]
    found = [(c, 0.42 * r * per_angstrom, jmol_colors[n]) for c, r, n in zip(centres, radii, numbers)]
    for a in range(len(numbers)):
        for b in range(a):
            length = np.linalg.norm(centres[a] - centres[b]) / per_angstrom
            if length < 1.25 * (radii[a] + radii[b]):
                for t in np.linspace(0, 1, int(length * per_angstrom) + 2):
                    nearer = a if t < 0.5 else b
                    centre = (1 - t) * centres[a] + t * centres[b]
                    found.append((centre, 0.10 * per_angstrom, jmol_colors[numbers[nearer]]))
    return found


def _solid(spheres: Sequence[Sphere], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours (width, height, 3) of the foremost sphere at every pixel, and its layer; -1 for none."""
    colour, depth = np.ones((*shape[:2], 3)), np.full(shape[:2], -1)
    for centre, radius, paint in spheres:
        low = np.maximum(np.floor(centre[:2] - radius).astype(int), 0)
        high = np.minimum(np.ceil(centre[:2] + radius).astype(int) + 1, shape[:2])
        x, y = np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high)), indexing="ij")
        inside = radius**2 - (x - centre[0]) ** 2 - (y - centre[1]) ** 2
        height = np.sqrt(np.maximum(inside, 0))
        layer = np.rint(centre[2] + height).astype(int)
        seen = (inside > 0) & (layer > depth[x, y])
        normal = np.stack([x - centre[0], y - centre[1], height], axis=-1)[seen] / radius
        colour[x[seen], y[seen]] = _lit(np.broadcast_to(paint, normal.shape), normal)
        depth[x[seen], y[seen]] = layer[seen]
    return colour, depth
