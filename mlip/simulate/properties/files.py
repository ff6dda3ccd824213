"""Tables of properties as CSV, and their structures as extended XYZ."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ase import Atoms

from mlip.core.files import write_text_atomically
from mlip.simulate.carried import write_extxyz
from mlip.simulate.trajectory import snapshot


def write_table(path: str | os.PathLike[str], columns: Mapping[str, Sequence[object]]) -> None:
    """Write columns of equal length under their names, which state the units; whole or not at all.

    Numbers have 15 digits: total energies of all electrons are large, their differences are not.

    Raises:
        MlipError: the file cannot be written.
        ValueError: columns of different lengths.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([f"{value:.15g}" if isinstance(value, float) else value for value in row])
    write_text_atomically(path, text.getvalue())


def write_structures(path: str | os.PathLike[str], structures: Sequence[Atoms]) -> None:
    """Write structures as extended XYZ, with energies and forces where their calculators hold them.

    Raises:
        MlipError: the file cannot be written.
    """
    write_extxyz(Path(path), [snapshot(atoms) for atoms in structures])
