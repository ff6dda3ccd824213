"""ASE databases for the tests: `.aselmdb` written by hand with lmdb, zlib and json, `.db` written by ASE."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlip.data.sample import Sample


def write_aselmdb(path: Path, rows: dict[int, dict[str, Any]], **special: Any) -> Path:
    """Write rows by id; ``nextid`` follows from the ids unless it is given, None leaves a special key out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    special = {"nextid": max(rows, default=0) + 1, "metadata": {"made": "by hand"}} | special
    entries = {str(number): row for number, row in rows.items()} | special
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=2**22) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in entries.items():
            if value is not None:
                transaction.put(key.encode(), zlib.compress(json.dumps(value).encode()))
    return path


def row_of(sample: Sample, **more: Any) -> dict[str, Any]:
    """Return a sample as the JSON of an ASE row, written out by hand."""
    atoms, labels = sample.atoms, sample.labels
    row = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "unique_id": "0" * 32,
        "ctime": 25.0,
        "mtime": 25.0,
        "user": "me",
        "calculator": "unknown",
        "calculator_parameters": {},
        "key_value_pairs": {},
        "data": {},
    }
    row |= {name: labels[name].tolist() for name in ("energy", "forces", "magmoms", "tags") if name in labels}
    if "stress" in labels:
        s = labels["stress"]
        row["stress"] = [s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]]
    if "fixed" in labels:
        held = [number for number, fixed in enumerate(labels["fixed"]) if fixed]
        row["constraints"] = [{"name": "FixAtoms", "kwargs": {"indices": held}}]
    row["data"] = {name: int(labels[name]) for name in ("charge", "spin") if name in labels}
    return row | more


def atoms_of(sample: Sample) -> Atoms:
    """Return a sample as ASE's own database writer takes it."""
    atoms = sample.atoms.copy()
    labels = sample.labels
    results = {name: labels[name] for name in ("energy", "forces", "magmoms") if name in labels}
    if "stress" in labels:
        results["stress"] = labels["stress"][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    if "tags" in labels:
        atoms.set_tags(labels["tags"])
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def crystal(seed: int, symbols: str = "NaCl", stress: bool = True, **labels: Any) -> Sample:
    """Return a labelled periodic structure of random numbers."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, cell=4 * np.eye(3) + rng.normal(size=(3, 3)) / 9, pbc=True)
    atoms.positions = rng.normal(size=(len(atoms), 3))
    found = {"energy": np.array(rng.normal()), "forces": rng.normal(size=(len(atoms), 3))}
    if stress:
        tensor = rng.normal(size=(3, 3)) / 100
        found["stress"] = (tensor + tensor.T) / 2
    return Sample(atoms, found | {name: np.asarray(value) for name, value in labels.items()})


def molecule(seed: int, symbols: str = "H2O", charge: int = 0, spin: int = 1) -> Sample:
    """Return a labelled molecule of random numbers."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, positions=rng.normal(size=(len(Atoms(symbols)), 3)))
    labels = {"energy": np.array(rng.normal()), "forces": rng.normal(size=(len(atoms), 3))}
    return Sample(atoms, labels | {"charge": np.array(charge), "spin": np.array(spin)})
