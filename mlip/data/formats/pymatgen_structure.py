"""Structures as pymatgen writes them to JSON, read by hand: nothing is imported or built by what a file names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip.core.errors import DataError

SAME_PLACE = 1e-3
"""Å; fractional and Cartesian coordinates of a site that differ by more contradict each other."""

_NUMBERS = {symbol: number for symbol, number in atomic_numbers.items() if number > 0}


def read_structure(data: Any, where: str) -> Atoms:
    """Return the atoms of a pymatgen ``Structure`` dict: ``lattice.matrix`` and ``sites`` with ``xyz`` or ``abc``, Å.

    Raises:
        DataError: keys that are missing, a site that is not one whole atom, a charge, coordinates that are not
            finite or contradict each other, a cell without volume.
    """
    try:
        sites = data["sites"]
        numbers = [_NUMBERS[species["element"]] for site in sites for species in site["species"]]
        whole = all(species["occu"] == 1 for site in sites for species in site["species"])
        cell = np.array(data["lattice"]["matrix"], dtype=np.float64)
        pbc = data["lattice"].get("pbc", (True, True, True))
        cartesian = _coordinates(sites, "xyz")
        fractional = _coordinates(sites, "abc")
        charge = data.get("charge")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: {_explain(data, error)}") from error
    if len(numbers) != len(sites) or not whole:
        raise DataError(f"{where}: every site must be one atom with occupancy 1; disordered structures have no forces.")
    if not numbers:
        raise DataError(f"{where}: the structure has no sites.")
    if charge not in (None, 0):
        raise DataError(f"{where}: the structure states a charge of {charge!r}; only neutral cells are read.")
    if cell.shape != (3, 3) or len(pbc) != 3 or not set(pbc) <= {True, False}:
        raise DataError(f"{where}: the lattice must have a 3x3 matrix and three flags of periodicity.")
    volume = abs(np.linalg.det(cell))
    if not np.isfinite(volume) or volume < 1e-6:
        raise DataError(f"{where}: the lattice has a volume of {volume:.3g} Å³.")
    positions = _positions(cartesian, fractional, cell, where)
    return Atoms(numbers, positions=positions, cell=cell, pbc=pbc)


def read_held(data: Any, where: str) -> np.ndarray:
    """Return (sites, 3) bool, along which lattice vectors the sites of a structure are held.

    That is the ``selective_dynamics`` of the sites, which says along which they may move; a site without it is free.

    Args:
        data: a dict that `read_structure` reads.
        where: for messages.

    Raises:
        DataError: flags that are not three truth values.
    """
    sites = data["sites"]
    held = np.zeros((len(sites), 3), dtype=bool)
    for number, site in enumerate(sites):
        properties = site.get("properties")
        flags = properties.get("selective_dynamics") if isinstance(properties, dict) else None
        # An array of numpy is an object in pymatgen's JSON.
        flags = flags.get("data") if isinstance(flags, dict) else flags
        if flags is None:
            continue
        if not isinstance(flags, list) or len(flags) != 3 or not all(isinstance(flag, bool) for flag in flags):
            raise DataError(
                f"{where}: the selective_dynamics of site {number} must be three truth values, got {flags!r}."
            )
        held[number] = np.logical_not(flags)
    return held


def _coordinates(sites: Sequence[Any], key: str) -> np.ndarray | None:
    """Return (sites, 3) of ``xyz`` or ``abc``; None where no site has them."""
    values = [site[key] for site in sites if key in site]
    return np.array(values, dtype=np.float64) if values else None


def _positions(cartesian: np.ndarray | None, fractional: np.ndarray | None, cell: np.ndarray, where: str) -> np.ndarray:
    if cartesian is None and fractional is None:
        raise DataError(f"{where}: the sites have neither xyz nor abc.")
    for array in (cartesian, fractional):
        if array is not None and (array.ndim != 2 or array.shape[1] != 3 or not np.isfinite(array).all()):
            raise DataError(f"{where}: the coordinates of a site must be three finite numbers.")
    if cartesian is None or fractional is None:
        return fractional @ cell if cartesian is None else cartesian  # type: ignore[operator, return-value]
    if cartesian.shape != fractional.shape:
        raise DataError(f"{where}: xyz and abc must be there for every site, or for none.")
    apart = np.abs(fractional @ cell - cartesian)
    if not apart.max() <= SAME_PLACE:
        site = int(apart.max(axis=1).argmax())
        raise DataError(f"{where}: xyz and abc of site {site} are {apart.max():.3g} Å apart.")
    return cartesian


def _explain(data: Any, error: Exception) -> str:
    """Say what is wrong with a dict that could not be read."""
    if not isinstance(data, dict):
        return f"the structure must be an object with lattice and sites, got {type(data).__name__}."
    missing = [key for key in ("lattice", "sites") if key not in data]
    if missing:
        return f"the structure has no {' and no '.join(missing)}; it has: {', '.join(map(str, data)) or 'nothing'}."
    if isinstance(error, KeyError):
        known = ("element", "occu", "species", "matrix")
        key = error.args[0]
        return f"a site or the lattice has no '{key}'." if key in known else f"'{key}' is no chemical element."
    return "the structure does not have the form of a pymatgen Structure (lattice.matrix, sites with species and xyz)."
