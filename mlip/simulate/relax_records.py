"""Finished relaxations on disk, one line each, safe from the moment it is written: what a restart goes on from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import dict2constraint

from mlip.core.errors import SimulationError
from mlip.simulate.inputs import InputStructure
from mlip.simulate.relax_result import RelaxOptions
from mlip.simulate.relax_table import RelaxedRow

RECORDS = "relaxed.jsonl"
"""Name of the file in the folder of the results."""

FORMAT = "mlip relax 1"

_RESULTS = ("energy", "forces", "stress", "magmoms")


@dataclass(frozen=True)
class Record:
    """A structure that is done.

    Attributes:
        row: of the table.
        atoms: the relaxed structure with its energy, forces and stress; None if it failed.
    """

    row: RelaxedRow
    atoms: Atoms | None


def fingerprint(structures: Sequence[InputStructure], options: RelaxOptions, model: str) -> dict[str, str]:
    """Return hashes of what a restart must find unchanged: the input, the options, the model.

    Args:
        structures: names, and atoms with cell, constraints, charge and spin; all digits count.
        options: of the relaxation.
        model: what tells the model from others, such as a hash of its file.
    """
    digest = hashlib.sha256()
    for one in structures:
        digest.update(one.name.encode(errors="surrogateescape") + b"\0")
        atoms = one.atoms
        if atoms is None:
            continue
        for array, kind in ((atoms.numbers, "<i8"), (atoms.positions, "<f8"), (atoms.cell.array, "<f8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        info = {name: atoms.info.get(name) for name in ("charge", "spin")}
        held = [constraint.todict() for constraint in atoms.constraints]
        digest.update(json.dumps([atoms.pbc.tolist(), info, held], default=_plain, sort_keys=True).encode())
    return {
        "structures": digest.hexdigest(),
        "options": hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode()).hexdigest(),
        "model": model,
    }


class Records:
    """The file of the records, open for appending and locked against other processes; use it as a context manager."""

    def __init__(self, folder: Path, prints: dict[str, str], restart: bool = False) -> None:
        """Begin a file, or open one to go on.

        A last line that was cut short is dropped: its structure is not done.

        Raises:
            SimulationError: another process writes there, nothing to go on from, or that belongs to another input,
                other options or another model; the folder cannot be written to.
        """
        self.path = folder / RECORDS
        self.done: dict[int, Record] = {}
        if restart and not self.path.is_file():
            raise SimulationError(f"'{folder}' has nothing to go on from ('{RECORDS}'). Start without --restart.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not "a+": that would write at the end, wherever a damaged end is cut off.
            self._file: BufferedRandom = open(self.path, "r+b" if self.path.exists() else "x+b")  # noqa: SIM115
        except OSError as error:
            raise SimulationError(f"Cannot write '{self.path}': {error.strerror or error}.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(prints, restart)
        except BlockingIOError as error:
            self.close()
            raise SimulationError(f"Another process writes into '{folder}': wait for it, or choose another.") from error
        except BaseException:
            self.close()
            raise

    def _begin(self, prints: dict[str, str], restart: bool) -> None:
        head = json.dumps({"format": FORMAT, **prints}).encode() + b"\n"
        if restart:
            first = self._file.readline()
            if first.endswith(b"\n"):
                self._compare(first, prints)
                self._read()
                return
            # Killed before the first line was whole.
        self._file.seek(0)
        self._file.truncate()
        self._append(head)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _compare(self, line: bytes, prints: dict[str, str]) -> None:
        found = _parsed(line)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise SimulationError(f"'{self.path}' is not of this version of mlip relax. Start anew with --overwrite.")
        other = [name for name, value in prints.items() if found.get(name) != value]
        if other:
            raise SimulationError(
                f"'{self.path.parent}' was begun with other {' and '.join(other)}: repeat the command as it was, or "
                "start anew with --overwrite."
            )

    def _read(self) -> None:
        """Read the records; from the first one that is damaged on they are dropped."""
        end = self._file.tell()
        for line in self._file:
            found = _parsed(line) if line.endswith(b"\n") else None
            record = None if found is None else _from_json(found)
            if record is None:
                break
            self.done[record.row.number] = record
            end += len(line)
        self._file.seek(end)
        self._file.truncate()

    def add(self, record: Record) -> None:
        """Append a record; when this returns it is on the disk.

        Raises:
            SimulationError: the disk is full; the file ends with the last whole record.
        """
        end = self._file.tell()
        try:
            self._append(_to_json(record))
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise SimulationError(
                f"Cannot write to '{self.path}' ({error.strerror or error}); {len(self.done)} structures are done. "
                "Free some space and go on with --restart."
            ) from error
        self.done[record.row.number] = record

    def _append(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def in_order(self) -> Iterator[Record]:
        """Yield the records in the order of the input."""
        return (self.done[number] for number in sorted(self.done))

    def close(self) -> None:
        """Close the file and let go of it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _to_json(record: Record) -> bytes:
    """Return the line of a record, which surely can be read again."""
    line = _line(record)
    if _from_json(_parsed(line)) is None and record.atoms is not None:
        # A constraint that does not come back from the form in which ASE writes it.
        free = record.atoms.copy()
        free.set_constraint()
        free.calc = record.atoms.calc
        line = _line(Record(record.row, free))
    return line


def _line(record: Record) -> bytes:
    content: dict[str, Any] = {"row": record.row.as_dict()}
    atoms = record.atoms
    if atoms is not None:
        results = getattr(atoms.calc, "results", {})
        content["atoms"] = {
            "numbers": atoms.numbers,
            "positions": atoms.positions,
            "cell": atoms.cell.array,
            "pbc": atoms.pbc,
            "info": {name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info},
            "constraints": [constraint.todict() for constraint in atoms.constraints],
            "results": {name: results[name] for name in _RESULTS if name in results},
        }
    return json.dumps(content, default=_plain).encode() + b"\n"


def _from_json(content: Any) -> Record | None:
    try:
        row, found = RelaxedRow(**content["row"]), content.get("atoms")
        if found is None:
            return Record(row, None)
        atoms = Atoms(found["numbers"], positions=found["positions"], cell=found["cell"], pbc=found["pbc"])
        atoms.info.update(found["info"])
        atoms.set_constraint([dict2constraint(constraint) for constraint in found["constraints"]])
        results = {
            name: np.array(value) if isinstance(value, list) else value for name, value in found["results"].items()
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        return Record(row, atoms)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _plain(value: Any) -> Any:
    """Return what JSON knows for numpy's numbers and arrays; all digits of a float stay."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Atoms):
        return [value.numbers.tolist(), value.positions.tolist(), value.cell.array.tolist(), value.pbc.tolist()]
    return str(value)
