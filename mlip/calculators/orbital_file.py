"""Files of predicted Hamiltonians: HDF5 or npz, one group a structure, everything in it with its unit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlip.calculators.orbital_result import OrbitalResult
from mlip.core.errors import MlipError
from mlip.core.files import write_atomically

SUFFIXES = (".h5", ".hdf5", ".npz")

CONTENT: dict[str, tuple[str, str]] = {
    "numbers": ("1", "atomic numbers"),
    "positions": ("Å", "positions of the atoms"),
    "hamiltonian": ("Hartree", "predicted Fock matrix over atomic orbitals, rows and columns in the order named here"),
    "overlap": ("1", "overlap of the atomic orbitals, in the same order; computed, not predicted"),
    "orbital_energies": ("Hartree", "eigenvalues ε of H C = S C ε, ascending"),
    "coefficients": ("1", "C: molecular orbitals are its columns, Cᵀ S C = 1, rows in the same order"),
    "occupations": ("1", "electrons in each molecular orbital"),
}
"""Arrays of a structure, their units and what they are; those that were not asked for are not there."""

Described = Iterable[tuple[OrbitalResult, Mapping[str, Any]]]
"""Results, each with more facts about it: numbers and texts by name."""

ORDERS: dict[str, str] = {
    "mlip": "atoms as listed; of each all s shells, then p, then d, …; in a shell m = -l … l: p = y, z, x",
    "pyscf": "atoms as listed; of each all s shells, then p, then d, …; p = x, y, z; others m = -l … l",
    "orca": "atoms as listed; of each all s shells, then p, then d; p = z, x, y; d = m 0, 1, -1, 2, -2",
}
"""What the orders of orbitals are."""


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a file name that says no format.

    Raises:
        MlipError: another suffix than :data:`SUFFIXES`.
    """
    if Path(path).suffix not in SUFFIXES:
        raise MlipError(f"Hamiltonians are written to {', '.join(SUFFIXES)} files, '{path}' is none of them.")


def write_orbitals(
    path: str | os.PathLike[str],
    results: Described,
    about: Mapping[str, str],
) -> None:
    """Write results one by one, whole or not at all.

    In HDF5 the groups ``0``, ``1``, … hold the arrays of :data:`CONTENT`, each with the attributes ``unit`` and
    ``description``, and the facts as attributes. In npz the same stand under ``0/hamiltonian``, ``0/basis``, …; units
    and descriptions of the arrays are JSON in ``about``.

    Args:
        path: ``.h5``, ``.hdf5`` or ``.npz``; replaced if it is there.
        results: see :data:`Described`.
        about: texts about the whole file.

    Raises:
        MlipError: another suffix, or the file cannot be written; and what making the results raises.
    """
    check_suffix(path)
    write = _write_npz if Path(path).suffix == ".npz" else _write_hdf5
    write_atomically(path, lambda temporary: write(temporary, results, about))


def _write_hdf5(path: Path, results: Described, about: Mapping[str, str]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update(about)
        for number, (result, facts) in enumerate(results):
            group = file.create_group(str(number))
            group.attrs.update(_facts(result, facts))
            for name, array in _arrays(result).items():
                dataset = group.create_dataset(name, data=array)
                dataset.attrs["unit"], dataset.attrs["description"] = CONTENT[name]


def _write_npz(path: Path, results: Described, about: Mapping[str, str]) -> None:
    arrays = {name: {"unit": unit, "description": text} for name, (unit, text) in CONTENT.items()}
    found: dict[str, Any] = {"about": json.dumps({**about, "arrays": arrays}, ensure_ascii=False)}
    for number, (result, facts) in enumerate(results):
        found |= {f"{number}/{name}": value for name, value in {**_facts(result, facts), **_arrays(result)}.items()}
    np.savez(path, **found)


def _arrays(result: OrbitalResult) -> dict[str, np.ndarray]:
    return {name: getattr(result, name) for name in CONTENT if getattr(result, name) is not None}


def _facts(result: OrbitalResult, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a structure's group says besides its arrays."""
    found: dict[str, Any] = {
        "basis": result.basis,
        "functional": result.functional or "unknown",
        "order": result.order,
        "order_description": ORDERS[result.order],
    }
    if result.occupations is not None:
        levels = {"homo_Hartree": result.homo, "lumo_Hartree": result.lumo, "gap_Hartree": result.gap}
        found["electrons"] = result.num_electrons
        found |= {name: value for name, value in levels.items() if value is not None}
    return {**found, **more}
