"""A labeller that computes nothing, and structures for it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.data.datasets.qh9_record import Record
from mlip.data.labelling.base import Labeller, Labels, NotLabelled
from mlip.data.labelling.run import checked, choose_layout, record_of
from mlip.data.labelling.structures import Structure, structure
from mlip.data.orbitals import num_orbitals

WATER = np.array([[0.0, 0.0, 0.117], [0.0, 0.757, -0.469], [0.0, -0.757, -0.469]])
NEON = 10


class MadeUp(Labeller):
    """Numbers that follow from the positions; x of the first atom decides what goes wrong."""

    program = "made up 1.0"

    def __init__(self, fields=("energy", "forces", "hamiltonian"), functional="b3lyp5", seconds=0.0):
        self.fields = tuple(fields)
        self.level_of_theory = {"functional": functional, "basis": "def2-svp", "grid_level": 3}
        self.seconds = seconds

    def check(self, numbers):
        if NEON in numbers:
            raise DataError("Neon cannot be computed.")

    def label(self, numbers, positions):
        time.sleep(self.seconds)
        if positions[0, 0] > 8:
            os.kill(os.getpid(), signal.SIGKILL)
        if positions[0, 0] > 5:
            raise NotLabelled("The SCF did not converge.")
        if positions[0, 0] > 3:
            raise RuntimeError("singular\n  matrix")
        size = num_orbitals(numbers, "def2-svp")
        values = np.random.default_rng(np.abs(positions[0] * 1e6).astype(int)).normal(size=(size, size))
        energy = -76.0 - float(positions.sum())
        matrix = values + values.T if "hamiltonian" in self.fields else None
        return Labels(energy, positions**2 if "forces" in self.fields else None, matrix, 7)


def frames(count: int, file: str = "water.xyz", start: int = 0) -> list[Structure]:
    """Return frames of water that differ."""
    return [
        structure(Atoms("OHH", WATER + np.eye(3)[:, :1] * [0.001 * (start + k), 0, 0]), file, k) for k in range(count)
    ]


def moved(x: float, file: str = "bad.xyz", symbols: str = "OHH") -> Structure:
    """Return a water with its first atom at x."""
    return structure(Atoms(symbols, WATER + np.array([x, 0, 0])), file, 0)


def record(structures: list[Structure], labeller: Labeller, layout: str | None = None) -> Record:
    """Return what is written beside the labels."""
    return record_of(labeller, layout or choose_layout(checked(structures, labeller)), "not stated")


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables, read without the package."""
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rowid = {"data": "rowid, *"}
    found = {
        name: connection.execute(f"SELECT {rowid.get(name, '*')} FROM {name} ORDER BY rowid").fetchall()
        for name in tables
    }
    connection.close()
    return found
