"""Cube files of HOMO and LUMO, which most viewers of molecules read."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlip.calculators.orbital_result import OrbitalResult
from mlip.core.files import write_atomically

RESOLUTION = 0.25
"""Bohr between points: 3 MB for a water."""

MARGIN = 6.0
"""Bohr around the atoms; PySCF's own 3 Bohr cut off what is outside of a lone pair."""


def cube_paths(stem: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the files that `write_cubes` writes: ``STEM_homo.cube`` and ``STEM_lumo.cube``."""
    return {name: Path(f"{stem}_{name}.cube") for name in ("homo", "lumo")}


def write_cubes(stem: str | os.PathLike[str], result: OrbitalResult, resolution: float = RESOLUTION) -> list[Path]:
    """Write HOMO and, if there is one, LUMO on a grid, in Bohr^(-3/2); each file whole or not at all.

    Args:
        stem: beginning of the names of the files.
        result: with its orbitals.
        resolution: Bohr between points.

    Raises:
        DataError: the orbitals were not asked for, or PySCF is not installed.
        MlipError: a file cannot be written.
    """
    mol, ordered, written = result.mol(), result.in_order("pyscf"), []
    for offset, path in enumerate(cube_paths(stem).values()):
        column = result.homo_index + offset
        if column < ordered.coefficients.shape[1]:
            orbital = ordered.coefficients[:, column]
            write_atomically(path, partial(_write, mol, orbital, resolution))
            written.append(path)
    return written


def _write(mol: Any, orbital: np.ndarray, resolution: float, path: Path) -> None:
    from pyscf.tools import cubegen

    cubegen.orbital(mol, str(path), orbital, resolution=resolution, margin=MARGIN)
