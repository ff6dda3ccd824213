"""Write extended XYZ, exact to the last bit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.data import chemical_symbols

from mlip.core.files import write_atomically
from mlip.data.labels import CANDIDATES
from mlip.data.sample import Sample
from mlip.data.writers.base import Writer, info_to_write

_COLUMNS = (("tags", "I", 1), ("magmoms", "R", 1), ("forces", "R", 3))
_ENTRIES = ("energy", "stress", "charge", "spin", "class_scores", "chirality")
_TAKEN = frozenset({"lattice", "properties", "pbc", "species", "pos", "move_mask"}) | {
    key for keys in CANDIDATES.values() for key in keys
}
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_WORDS = frozenset({"t", "f", "true", "false", "none", "nan", "inf", "infinity"})


class ExtxyzWriter(Writer):
    """Frames with ``energy``, ``forces``, ``stress`` (ASE's sign) and what else a sample has.

    Numbers are written with as many digits as it takes to read the same ones. Atoms that are held fixed are F in
    the column ``move_mask``, as ASE writes them.
    """

    name: ClassVar[str] = "extxyz"
    suffixes: ClassVar[tuple[str, ...]] = (".extxyz", ".xyz")
    fields: ClassVar[frozenset[str]] = frozenset({*_ENTRIES, *(name for name, _, _ in _COLUMNS), "fixed"})

    def write(self, samples: Iterable[Sample], path: Path, record: Mapping[str, Any] | None = None) -> int:
        """Write samples, see `Writer.write`; the format has no place for the record."""
        count = 0

        def write(temporary: Path) -> None:
            nonlocal count
            with temporary.open("w", encoding="utf-8", newline="\n") as handle:
                for sample in self.checked(samples):
                    handle.write(frame_text(sample))
                    count += 1

        write_atomically(path, write)
        return count


def frame_text(sample: Sample) -> str:
    """Return one frame."""
    atoms, labels = sample.atoms, sample.labels
    layout = ["species:S:1:pos:R:3"]
    columns: list[list[str]] = [[chemical_symbols[number] for number in atoms.numbers], *_texts(atoms.positions)]
    if "fixed" in labels:
        layout.append("move_mask:L:1")
        columns.append(["F" if fixed else "T" for fixed in labels["fixed"]])
    for name, kind, width in _COLUMNS:
        if name in labels:
            layout.append(f"{name}:{kind}:{width}")
            columns.extend(_texts(labels[name]))
    entries = [f"Properties={':'.join(layout)}"]
    if atoms.pbc.any() or atoms.cell.array.any():
        entries.insert(0, f'Lattice="{_numbers(atoms.cell.array)}"')
    # Matrices are written column by column, as ASE does; the lattice, whose vectors are columns there, row by row.
    entries += [f"{name}={_value(np.asarray(labels[name]).T)}" for name in _ENTRIES if name in labels]
    entries += [f"{_quoted(key)}={_value(value)}" for key, value in info_to_write(sample, _TAKEN).items()]
    entries.append(f'pbc="{" ".join("T" if axis else "F" for axis in atoms.pbc)}"')
    rows = "\n".join(" ".join(row) for row in zip(*columns, strict=True))
    return f"{len(atoms)}\n{' '.join(entries)}\n{rows}\n"


def _texts(array: np.ndarray) -> list[list[str]]:
    """Return the columns of an array; the text of a Python float reads back as the same float."""
    return [[repr(value) for value in column] for column in np.atleast_2d(np.asarray(array).T).tolist()]


def _numbers(array: np.ndarray) -> str:
    return " ".join(repr(value) for value in np.asarray(array).ravel().tolist())


def _value(value: Any) -> str:
    """Return an entry of the comment line."""
    if isinstance(value, np.ndarray):
        return _numbers(value) if value.ndim == 0 else f'"{_numbers(value)}"'
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and not _reads_as_other(value):
        return _quoted(value)
    return _quoted(f"_JSON {json.dumps(value)}")


def _reads_as_other(text: str) -> bool:
    """Whether readers take a text for a number, a truth value or a list of these, quoted or not, or for two lines."""
    words = text.replace(",", " ").split()
    if text.startswith("_JSON") or len(text.splitlines()) > 1:
        return True
    return all(word.lower() in _WORDS or _is_number(word) for word in words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = " ".join(text.splitlines()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
