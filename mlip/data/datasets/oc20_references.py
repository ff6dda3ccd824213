"""Energies of OC20: total or relative to slab and adsorbate, and the tables that lead from one to the other."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import DataError
from mlip.data.datasets.oc20_record import Record, system_number
from mlip.data.formats.bounded import ZipArchive, open_binary, open_text, parse_json, without_compression
from mlip.data.formats.safe_pickle import loads

KINDS = ("total", "adsorption")
LARGEST_COEFFICIENT = 1000.0
"""eV; the published table has some eV for elements of OC20, and sums of rounding errors near 1e12 for the others."""
SAME = 1e-6
"""eV; references of one system that differ by more contradict each other."""
LARGEST_TABLE = 2**30
LARGEST_ARRAY = 2**16
"""Bytes of a table of references, and of an array of energies by element."""


class SidecarLine(NamedTuple):
    """What a line of a sidecar says of a frame: numbers of system and frame, and the reference energy in eV, if any."""

    system: int
    frame: int
    reference: float | None


def read_sidecar(path: Path) -> list[SidecarLine]:
    """Read the ``.txt`` of a pair: ``random1447590,frame4,-18.0`` in each line, test data without the energy.

    Raises:
        DataError: a line is something else, or two energies of one system differ.
    """
    found: list[SidecarLine] = []
    known: dict[int, float] = {}
    for number, parts in _table_lines(path):
        where = f"{path}, line {number}"
        if len(parts) not in (2, 3) or not parts[1].startswith("frame") or not parts[1][5:].isdecimal():
            raise DataError(
                f"{where}: random<number>,frame<number>,<energy> was expected, got {','.join(parts)[:60]!r}."
            )
        system = system_number(parts[0], where)
        reference = None if len(parts) == 2 else _energy(parts[2], where)
        if reference is not None and abs(known.setdefault(system, reference) - reference) > SAME:
            raise DataError(f"{where}: {parts[0]} has the reference energies {known[system]} and {reference} eV.")
        found.append(SidecarLine(system, int(parts[1][5:]), reference))
    return found


def read_references(path: str | PathLike[str]) -> dict[int, float]:
    """Read a table of reference energies by system: JSON or a pickle of a dictionary, or lines ``system,energy``.

    Raises:
        DataError: it is none of these.
    """
    path = Path(path).expanduser()
    name = without_compression(path)
    if name.endswith(".txt"):
        pairs: list[tuple[Any, Any]] = []
        for number, parts in _table_lines(path):
            if len(parts) != 2:
                raise DataError(
                    f"{path}, line {number}: random<number>,<energy> was expected, got {','.join(parts)!r}."
                )
            pairs.append((parts[0], parts[1]))
    else:
        with open_binary(path) as handle:
            content = handle.read(LARGEST_TABLE + 1)
        if len(content) > LARGEST_TABLE:
            raise DataError(f"'{path}' has more than {LARGEST_TABLE} bytes, too many for a table of energies.")
        table = parse_json(content, f"'{path}'") if name.endswith(".json") else loads(content, f"'{path}'")
        if not isinstance(table, dict):
            raise DataError(f"'{path}' must hold a dictionary {{system: energy}}, got a {type(table).__name__}.")
        pairs = list(table.items())
    found: dict[int, float] = {}
    for key, value in pairs:
        where = f"'{path}', {str(key)[:40]}"
        system, energy = system_number(key, where), _energy(value, where)
        if abs(found.setdefault(system, energy) - energy) > SAME:
            raise DataError(f"{where} is there twice, with {found[system]} and {energy} eV.")
    if not found:
        raise DataError(f"'{path}' has no reference energies.")
    return found


def read_coefficients(path: str | PathLike[str]) -> np.ndarray:
    """Read linear references: (numbers,) eV by atomic number, the array ``coeff`` of an npz file.

    Raises:
        DataError: there is no such array.
    """
    path = Path(path).expanduser()
    archive = ZipArchive(path)
    if "coeff.npy" not in {member.name for member in archive.members}:
        raise DataError(f"'{path}' has no array 'coeff' of energies by atomic number.")
    with archive.open_binary("coeff.npy") as handle:
        content = handle.read(LARGEST_ARRAY)
    archive.close()
    try:
        coefficients = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64)
    except (ValueError, EOFError, TypeError, MemoryError) as error:
        raise DataError(f"'{path}' has an array 'coeff' that cannot be read ({error}).") from error
    if coefficients.ndim != 1 or len(coefficients) < 2:
        raise DataError(f"'{path}': coeff must be a list of energies by atomic number, got shape {coefficients.shape}.")
    return coefficients


@dataclass(frozen=True)
class Energies:
    """Makes the energy that is asked for out of the one that is stored.

    Args:
        wanted: "total" or "adsorption".
        stored: what files hold that do not say it themselves, "total" or "adsorption"; None if unknown.
        references: energy of slab and adsorbate by system, eV; instead of what the files have.
        coefficients: (numbers,) eV by atomic number, subtracted from total energies.
    """

    wanted: str
    stored: str | None = None
    references: Mapping[int, float] | None = None
    coefficients: np.ndarray | None = None

    def label(self, energy: float, record: Record) -> float:
        """Return the energy to learn, eV.

        Raises:
            DataError: a reference that is needed is not there.
        """
        if self.wanted == "adsorption":
            return self.adsorption(energy, record)
        total = energy if self._stored(record) == "total" else energy + self._reference(record)
        return total - self._linear(record)

    def adsorption(self, energy: float, record: Record) -> float:
        """Return the energy relative to slab and adsorbate, eV.

        Raises:
            DataError: the reference is not there.
        """
        return energy if self._stored(record) == "adsorption" else energy - self._reference(record)

    def _stored(self, record: Record) -> str | None:
        return record.stored or self.stored

    def _reference(self, record: Record) -> float:
        if self.references is None:
            if record.reference is None:
                raise DataError(
                    f"{record.source}: the file has no reference energy of its system. Name a table of them "
                    "(reference_energies), or take the energies as they are stored."
                )
            return record.reference
        if record.system is None:
            raise DataError(f"{record.source}: the file does not say which system this is, so it has no reference.")
        if record.system not in self.references:
            raise DataError(f"{record.source}: reference_energies has no energy of random{record.system}.")
        return self.references[record.system]

    def _linear(self, record: Record) -> float:
        if self.coefficients is None:
            return 0.0
        if record.numbers.max() >= len(self.coefficients):
            raise DataError(f"{record.source}: linear_references ends before {chemical_symbols[record.numbers.max()]}.")
        terms = self.coefficients[record.numbers]
        bad = ~(np.abs(terms) <= LARGEST_COEFFICIENT)
        if bad.any():
            element = chemical_symbols[record.numbers[bad.argmax()]]
            raise DataError(
                f"{record.source}: linear_references has no energy of {element} (it says {terms[bad.argmax()]:.4g} eV, "
                "as for elements it was not fitted to). Use a table fitted to these data."
            )
        return float(terms.sum())


def _energy(value: Any, where: str) -> float:
    try:
        energy = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: the reference energy must be a number, got {str(value)[:40]!r}.") from error
    if not np.isfinite(energy):
        raise DataError(f"{where}: the reference energy is not finite.")
    return energy


def _table_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return (number from 1, parts) of the lines of a text table that are not empty."""
    found: list[tuple[int, list[str]]] = []
    line = "\n"
    with open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                found.append((number, [part.strip() for part in line.split(",")]))
    if not line.endswith("\n") and without_compression(path) == path.name:
        # Half a number is a number; compressed files have a checksum.
        raise DataError(f"'{path}' may be truncated: its last line has no line end. If the file is whole, add one.")
    return found
