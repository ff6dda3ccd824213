"""QH9's table, as its published SQLite files have it: what stands where, in which unit and order."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from mlip.core.units import BOHR
from mlip.data.datasets.qh9_sqlite import TABLE
from mlip.data.labelling.base import Labels
from mlip.data.labelling.structures import Structure
from mlip.data.orbitals import reorder

LAYOUTS = ("stable", "dynamic", "none")
"""Of QH9 Stable (single structures, Å), of QH9 Dynamic (frames, Bohr, with energies), and no matrices at all."""

_CREATE = {
    "stable": f"CREATE TABLE {TABLE} (id INTEGER NOT NULL PRIMARY KEY, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)",
    "dynamic": (
        f"CREATE TABLE {TABLE} (id INTEGER NOT NULL, geo_id INTEGER NOT NULL, N INTEGER, Z BLOB, pos BLOB, "
        "ekin FLOAT, epot FLOAT, etot FLOAT, time FLOAT, Ham BLOB, converged INT)"
    ),
}


def create_statements(layout: str) -> list[str]:
    """Return what makes the table of a layout."""
    return [_CREATE[layout]] if layout in _CREATE else []


def insertion(
    layout: str, place: int, identity: tuple[int, int], structure: Structure, labels: Labels, basis: str
) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that adds a row, and its values.

    Args:
        layout: ``stable`` or ``dynamic``.
        place: of the row among all of the file.
        identity: molecule and frame.
        structure: that was labelled.
        labels: with a Hamiltonian.
        basis: of the Hamiltonian.
    """
    molecule, frame = identity
    if labels.hamiltonian is None:
        raise ValueError("a row of QH9 has a Hamiltonian")
    matrix = floats(reorder(labels.hamiltonian, structure.numbers, basis, "mlip", "pyscf"))
    numbers, size = integers(structure.numbers), len(structure.numbers)
    if layout == "stable":
        row: tuple[Any, ...] = (molecule, size, numbers, floats(structure.positions), matrix)
        return f"INSERT INTO {TABLE} (id, N, Z, pos, Ham) VALUES (?, ?, ?, ?, ?)", row
    # The published files have the id of a molecule as the eight bytes of an integer, and positions in Bohr.
    energies = (structure.kinetic, labels.energy, labels.energy + structure.kinetic, 0.0)
    row = (place, struct.pack("<q", molecule), frame, size, numbers, floats(structure.positions / BOHR), *energies)
    names = "rowid, id, geo_id, N, Z, pos, ekin, epot, etot, time, Ham, converged"
    return f"INSERT INTO {TABLE} ({names}) VALUES ({', '.join('?' * 12)})", (*row, matrix, 1)


def integers(values: np.ndarray) -> bytes:
    """Return atomic numbers as QH9 has them."""
    return np.ascontiguousarray(values, dtype="<i4").tobytes()


def floats(values: np.ndarray) -> bytes:
    """Return numbers as QH9 has them."""
    return np.ascontiguousarray(values, dtype="<f8").tobytes()
