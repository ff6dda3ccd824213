"""What is in a row of the file of labels beside numbers, and what tells files and structures from others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, DataError
from mlip.core.units import BOHR, HARTREE
from mlip.data.content_hash import geometry_hash
from mlip.data.datasets.qh9_record import Record
from mlip.data.labelling.base import Labels
from mlip.data.labelling.structures import Structure


def more_text(structure: Structure, labels: Labels) -> str | None:
    """Return what only some structures have, as JSON: cell, charge, spin, stress, initial moments and charges of atoms,
    tags, what else came with them."""
    more: dict[str, Any] = {name: getattr(structure, name) for name in structure.stated}
    if structure.cell is not None:
        more |= {"cell": structure.cell.tolist(), "pbc": list(structure.pbc)}
    if labels.stress is not None:
        more["stress"] = np.asarray(labels.stress).tolist()
    if structure.arrays:
        more["arrays"] = {name: values.tolist() for name, values in structure.arrays.items()}
    if structure.info:
        more["info"] = dict(structure.info)
    return json.dumps(more) if more else None


def read_more(text: str | None, atoms: Atoms) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return further labels (stress in eV/Å³, charge, spin) and ``info``; the atoms get their cell and arrays."""
    more = json.loads(text) if text else {}
    if "cell" in more:
        atoms.cell, atoms.pbc = more["cell"], more["pbc"]
    for name, values in more.get("arrays", {}).items():
        atoms.set_array(name, np.array(values))
    labels = {name: np.array(more[name]) for name in ("charge", "spin") if name in more}
    if "stress" in more:
        labels["stress"] = np.array(more["stress"]) * (HARTREE / BOHR**3)
    return labels, more.get("info", {})


def compare(found: Record, wanted: Record, path: Path) -> None:
    """Refuse to add to a file what was computed in another way."""
    ours, theirs = dict(wanted.level_of_theory), dict(found.level_of_theory)
    pairs = [(name, theirs.get(name), ours.get(name)) for name in {**theirs, **ours}]
    pairs += [("layout", found.layout, wanted.layout)]
    pairs += [("labels", ", ".join(found.fields), ", ".join(wanted.fields))]
    differ = [f"{name} {there} (now: {now})" for name, there, now in pairs if there != now]
    if differ:
        raise ConfigError(
            f"'{path}' was made with {', '.join(differ)}. Use the same settings to add to it, or another --out."
        )


def foreign(path: Path) -> ConfigError:
    """Return what is said of a file that others have made."""
    return ConfigError(
        f"'{path}' is there already, and is not a file of mlip data label, or damaged. Choose another --out."
    )


def digest_of(structure: Structure) -> bytes:
    """Return what two structures share if one of them is enough.

    Raises:
        DataError: the geometry is out of range.
    """
    try:
        atoms = Atoms(structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)
        geometry = geometry_hash(atoms).to_bytes(8, "big")
        electrons = "" if (structure.charge, structure.spin) == (0, 1) else f"{structure.charge} {structure.spin} "
        arrays = "".join(f"{name} {structure.arrays[name].tolist()} " for name in sorted(structure.arrays))
        periodic = "".join("FT"[axis] for axis in structure.pbc) if any(structure.pbc) else ""
        # One that is refused, for its charge say, does not stand for the same geometry without it.
        return geometry + (electrons + arrays + periodic + structure.refused).encode()
    except ValueError as error:
        raise DataError(f"{structure.source}: {error}.") from error
