"""The eight Tetris pieces in space: a test of what a network can tell apart."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from scipy.spatial.transform import Rotation

from mlip.core.errors import ConfigError
from mlip.data.datasets.base import Dataset
from mlip.data.sample import Sample

Cubes = tuple[tuple[int, int, int], ...]

SHAPES: tuple[str, ...] = ("screw", "bar", "square", "ell", "tee", "zigzag", "corner")
"""Shapes up to mirror image, in the order of the class scores."""

PIECES: dict[str, tuple[str, int, Cubes]] = {
    "right screw": ("screw", 1, ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1))),
    "left screw": ("screw", -1, ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, -1))),
    "bar": ("bar", 0, ((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0))),
    "square": ("square", 0, ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0))),
    "ell": ("ell", 0, ((0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0))),
    "tee": ("tee", 0, ((0, 0, 0), (1, 0, 0), (2, 0, 0), (1, 1, 0))),
    "zigzag": ("zigzag", 0, ((0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0))),
    "corner": ("corner", 0, ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))),
}
"""By name: shape, handedness (the sign of the triple product of the steps from cube to cube), centres of the cubes."""


class TetrisDataset(Dataset):
    """All ways of joining four cubes face to face, one atom a cube; no file is read.

    The eight pieces as they are come first, then turned copies: sample ``8 k + p`` is piece p, turned at random
    (proper rotations only) for k > 0. Labels: ``class_scores`` (7,), one for the shape up to mirror image and zero
    for the others, and ``chirality``, 1 and -1 for the two screws and 0 for the rest.

    Args:
        rotations: turned copies of every piece.
        seed: of the rotations.
        element: chemical symbol of the atoms.
        spacing: distance of touching cubes in Å.

    Raises:
        ConfigError: an option out of its range.
    """

    provides = ("class_scores", "chirality")
    licence = "none needed: generated"
    citation = "after the example of e3nn (arXiv 2207.09453)"

    def __init__(self, rotations: int = 1, seed: int = 0, element: str = "H", spacing: float = 1.0) -> None:
        if not isinstance(rotations, int) or rotations < 0:
            raise ConfigError(f"rotations must be 0 or more turned copies of every piece, got {rotations!r}.")
        if not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"seed must be an integer, 0 or more, got {seed!r}.")
        if not isinstance(spacing, int | float) or not 0 < spacing < float("inf"):
            raise ConfigError(f"spacing must be a positive number of Å, got {spacing!r}.")
        if not isinstance(element, str) or not atomic_numbers.get(element):
            raise ConfigError(f"element must be a chemical symbol such as H, got {element!r}.")
        self.units = {"length": "Angstrom"}
        self.element, self.spacing = element, float(spacing)
        # Quaternions of normal numbers are uniform over the rotations.
        quaternions = np.random.default_rng(seed).normal(size=(len(PIECES) * rotations, 4))
        turns = Rotation.from_quat(quaternions).as_matrix() if rotations else np.zeros((0, 3, 3))
        self._matrices = np.concatenate([np.tile(np.eye(3), (len(PIECES), 1, 1)), turns])

    def __len__(self) -> int:
        return len(self._matrices)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no sample {index}; there are {len(self)}.")
        copy, piece = divmod(index % len(self), len(PIECES))
        name, (shape, handedness, cubes) = list(PIECES.items())[piece]
        positions = self.spacing * np.array(cubes, dtype=float) @ self._matrices[index].T
        labels = {
            "class_scores": np.array([float(shape == known) for known in SHAPES]),
            "chirality": np.array(float(handedness)),
        }
        source = f"{name}, turned copy {copy}" if copy else name
        return Sample(Atoms([self.element] * len(cubes), positions), labels, {"source": source, "config_type": name})

    def isolated_atom_energies(self) -> dict[str, float]:
        """None: shapes have no energy."""
        return {}
