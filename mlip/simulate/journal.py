"""Results on disk, one line of JSON each, safe from the moment they are written: what a restart goes on from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Protocol, Self, TypeVar

import numpy as np

from mlip.core.errors import SimulationError
from mlip.models.names import existing_model
from mlip.simulate.atoms_json import plain
from mlip.simulate.inputs import InputStructure


class Numbered(Protocol):
    """What a journal keeps: it belongs to a structure of the input."""

    @property
    def number(self) -> int:
        """Place of the structure in the input, from 0."""
        ...


Kept = TypeVar("Kept", bound=Numbered)


@dataclass(frozen=True)
class JournalKind(Generic[Kept]):
    """What is in a journal, and how it becomes text.

    Attributes:
        file: its name in the folder of the results.
        format: stands in the first line, with a version, such as ``"mlip relax 1"``.
        encode: gives a line of JSON with its end.
        decode: gives what a line that has been parsed holds; None if it is damaged.
    """

    file: str
    format: str
    encode: Callable[[Kept], bytes]
    decode: Callable[[Any], Kept | None]


_READ_ARRAYS = ("tags", "masses", "initial_magmoms", "initial_charges")


def fingerprint(structures: Sequence[InputStructure], options: Mapping[str, Any], model: str) -> dict[str, str]:
    """Return hashes of what a restart must find unchanged: the input, the options, the model.

    Args:
        structures: names, and atoms with cell, constraints, charge, spin, tags, masses, initial magnetic moments and
            charges; all digits count.
        options: that decide about the results.
        model: what tells the model from others, such as a hash of its file.
    """
    digest = hashlib.sha256()
    for one in structures:
        digest.update(one.name.encode(errors="surrogateescape") + b"\0")
        atoms = one.atoms
        if atoms is None:
            continue
        # What a model, or the result, may depend on besides; most structures have none of it.
        held = {name: atoms.arrays[name] for name in _READ_ARRAYS if name in atoms.arrays}
        for array, kind in ((atoms.numbers, "<i8"), (atoms.positions, "<f8"), (atoms.cell.array, "<f8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        info = {name: atoms.info.get(name) for name in ("charge", "spin")}
        fixed = [constraint.todict() for constraint in atoms.constraints]
        more = [held] if held else []
        digest.update(json.dumps([atoms.pbc.tolist(), info, fixed, *more], default=plain, sort_keys=True).encode())
    return {
        "structures": digest.hexdigest(),
        "options": hashlib.sha256(json.dumps(dict(options), sort_keys=True).encode()).hexdigest(),
        "model": model,
    }


def hash_of_models(models: Sequence[str | os.PathLike[str]]) -> str:
    """Return a hash (SHA-256, hexadecimal) of the files of models, which are given by paths or names.

    Raises:
        ModelFileError: there is no such model.
    """
    digest = hashlib.sha256()
    for model in models:
        with existing_model(model).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Journal(Generic[Kept]):
    """A file of results, open for appending and locked against other processes; use it as a context manager.

    Attributes:
        path: of the file.
        done: what is in it, by number.
    """

    def __init__(self, folder: Path, kind: JournalKind[Kept], prints: Mapping[str, str], restart: bool = False) -> None:
        """Begin a file, or open one to go on.

        A last line that was cut short is dropped: its structure is not done.

        Raises:
            SimulationError: another process writes there, nothing to go on from, or that belongs to another input,
                other options or another model; the folder cannot be written to.
        """
        self.path, self.kind = folder / kind.file, kind
        self.done: dict[int, Kept] = {}
        if restart and not self.path.is_file():
            raise SimulationError(f"'{folder}' has nothing to go on from ('{kind.file}'). Start without --restart.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not "a+": that would write at the end, wherever a damaged end is cut off.
            self._file: BufferedRandom = open(self.path, "r+b" if self.path.exists() else "x+b")  # noqa: SIM115
        except OSError as error:
            raise SimulationError(f"Cannot write '{self.path}': {error.strerror or error}.") from error
        try:
            _lock(self._file, self.path)
            self._begin(prints, restart)
        except BlockingIOError as error:
            self.close()
            raise _busy(folder) from error
        except BaseException:
            self.close()
            raise

    def _begin(self, prints: Mapping[str, str], restart: bool) -> None:
        head = json.dumps({"format": self.kind.format, **prints}).encode() + b"\n"
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

    def _compare(self, line: bytes, prints: Mapping[str, str]) -> None:
        found = parsed(line)
        if not isinstance(found, dict) or found.get("format") != self.kind.format:
            command = " ".join(self.kind.format.split()[:-1])
            raise SimulationError(f"'{self.path}' is not of this version of {command}. Start anew with --overwrite.")
        other = [name for name, value in prints.items() if found.get(name) != value]
        if other:
            raise SimulationError(
                f"'{self.path.parent}' was begun with other {' and '.join(other)}: repeat the command as it was, or "
                "start anew with --overwrite."
            )

    def _read(self) -> None:
        """Read the results; from the first one that is damaged on they are dropped."""
        end = self._file.tell()
        for line in self._file:
            found = parsed(line) if line.endswith(b"\n") else None
            one = None if found is None else self.kind.decode(found)
            if one is None:
                break
            self.done[one.number] = one
            end += len(line)
        self._file.seek(end)
        self._file.truncate()

    def add(self, one: Kept) -> None:
        """Append a result; when this returns it is on the disk.

        Raises:
            SimulationError: the disk is full; the file ends with the last whole result.
        """
        end, line = self._file.tell(), self.kind.encode(one)
        try:
            self._append(line)
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise SimulationError(
                f"Cannot write to '{self.path}' ({error.strerror or error}); {len(self.done)} structures are done. "
                "Free some space and go on with --restart."
            ) from error
        # What a restart would read, so that files made of it do not depend on interruptions.
        self.done[one.number] = self.kind.decode(parsed(line)) or one

    def _append(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def in_order(self) -> Iterator[Kept]:
        """Yield the results in the order of the input."""
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


def remove_journal(folder: Path, name: str) -> None:
    """Remove a journal, if there is one, unless a process writes it.

    Args:
        folder: of the results.
        name: of the file, see `JournalKind`.

    Raises:
        SimulationError: another process writes it, or it cannot be removed.
    """
    path = folder / name
    try:
        with path.open("r+b") as file:
            _lock(file, path)
            path.unlink()
    except FileNotFoundError:
        return
    except BlockingIOError as error:
        raise _busy(folder) from error
    except OSError as error:
        raise SimulationError(f"Cannot remove '{path}': {error.strerror or error}.") from error


def _lock(file: IO[bytes], path: Path) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: somebody else has, or has removed it meanwhile.
    """
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        raise BlockingIOError


def _busy(folder: Path) -> SimulationError:
    return SimulationError(f"Another process writes into '{folder}': wait for it, or choose another.")


def parsed(line: bytes | str) -> Any:
    """Return what a line of JSON holds; None if it is no JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None
