"""What a structure carries along from its input: anything but labels, which are of the geometry that the input had."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.calculators.calculator import all_properties

from mlip.core.fields import LABELS, SPREADS
from mlip.core.files import write_atomically
from mlip.data.labels import CANDIDATES

_LABELS = frozenset(key for label in LABELS for key in (*CANDIDATES[label], f"reference_{label}")) | {*all_properties}
"""In lower case: what `mlip.data.labels` reads without being told, what ``mlip evaluate`` writes, and ASE's names."""

_OF_THE_FORMAT = frozenset({"Lattice", "Properties"})
"""Keys of an extended XYZ that are the structure itself."""


def without_labels(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the entries of ``info`` or ``arrays`` that are no energy, force, stress, … of the structure as it was.

    Charge, multiplicity, tags and the moments and charges that a calculation starts from are inputs and stay.
    """
    return {key: value for key, value in values.items() if not (isinstance(key, str) and key.lower() in _LABELS)}


def write_extxyz(path: Path, structures: Iterable[Atoms]) -> None:
    """Write structures with the results of their calculators as extended XYZ, whole or not at all.

    Labels that the input carried are left out. Where the rest of ``info`` and ``arrays`` cannot be written, the
    structure is written without it.

    Raises:
        MlipError: the file cannot be written.
    """

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8") as handle:
            for atoms in structures:
                handle.write(_as_text(atoms))

    write_atomically(path, write)


def _as_text(atoms: Atoms) -> str:
    frame = atoms.copy()
    frame.calc = atoms.calc
    frame.info = {key: value for key, value in without_labels(atoms.info).items() if key not in _OF_THE_FORMAT}
    # Columns of no width are written such that they cannot be read.
    frame.arrays = {key: values for key, values in without_labels(atoms.arrays).items() if values.size}
    try:
        return _extxyz(frame)
    except (AttributeError, LookupError, TypeError, ValueError):
        # Columns of the same name, arrays of too many dimensions, texts that are no Unicode, ….
        known = ("charge", "spin", "mlip_name", *SPREADS.values())
        frame.info = {key: value for key, value in frame.info.items() if key in known}
        known = ("numbers", "positions", "momenta", *SPREADS.values())
        frame.arrays = {key: value for key, value in frame.arrays.items() if key in known}
        return _extxyz(frame)


def _extxyz(atoms: Atoms) -> str:
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    found = text.getvalue()
    found.encode()  # Half of a surrogate pair has no place in a file.
    return found
