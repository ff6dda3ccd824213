"""The SQLite file that labels are written to, structure by structure, and what it knows of work that is left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import MlipError
from mlip.core.units import BOHR, HARTREE
from mlip.data.datasets.qh9_record import FAILED, LABELLED, RECORD, STRUCTURES, WAITING, Record
from mlip.data.labelling.base import Labels
from mlip.data.labelling.label_rows import compare, digest_of, foreign, more_text, read_more
from mlip.data.labelling.qh9_table import create_statements, floats, insertion, integers
from mlip.data.labelling.structures import Structure
from mlip.data.sample import Sample

UNSTATED = "not stated"
"""A licence that nobody has named."""

_CREATE = (
    f"CREATE TABLE {RECORD} (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"CREATE TABLE {STRUCTURES} (place INTEGER PRIMARY KEY, molecule INTEGER NOT NULL, frame INTEGER NOT NULL, "
    "geometry BLOB NOT NULL UNIQUE, source TEXT NOT NULL, Z BLOB, pos BLOB, state TEXT NOT NULL, reason TEXT, "
    "energy FLOAT, forces BLOB, cycles INTEGER, more TEXT, UNIQUE (molecule, frame))",
)


@dataclass(frozen=True)
class Planned:
    """A structure with its place in the file, and its molecule and frame there."""

    place: int
    molecule: int
    frame: int
    structure: Structure


@dataclass(frozen=True)
class Plan:
    """What is to be done about some structures.

    Attributes:
        wanted: to be computed.
        known: how many the file has, as labelled or failed.
        copies: how many came twice.
    """

    wanted: list[Planned]
    known: int
    copies: int


class LabelFile:
    """A file of ``mlip data label``, held by this process alone until it is closed; a context manager.

    Every structure has its place from the beginning, so the content does not depend on the order in which
    calculations end, or on interruptions. A row is there as a whole or not at all.

    Args:
        path: of the file; made, with its folder, if it is not there.
        record: of what is going to be computed.
        keep_layout: whether a file that is there keeps its layout, whatever that of the record is.

    Raises:
        ConfigError: the file has other content, or was computed in another way.
        MlipError: another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path, record: Record, keep_layout: bool = False) -> None:
        self.path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            try:
                # Nobody else writes meanwhile, and a killed process leaves a journal that says nothing.
                self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._connection.execute("PRAGMA journal_mode = TRUNCATE")
                with self._transaction():
                    self.record = self._settle(record, keep_layout)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> LabelFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType) -> None:
        self.close()

    def close(self) -> None:
        """Let others write the file."""
        try:
            # Takes the empty journal away.
            self._connection.execute("PRAGMA locking_mode = NORMAL")
            self._connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:
            pass  # The rows are there; whatever is wrong with the disk was said before, or is when it is used next.
        finally:
            self._connection.close()

    def plan(self, structures: Sequence[Structure], retry: bool = False) -> Plan:
        """Give structures that the file does not know a place, and return those that are left to be computed.

        A run of consecutive structures of one input with the same atoms is a molecule with its frames; in the layout
        of QH9 Stable, every structure is a molecule. Structures that are refused are noted as failed.

        Args:
            structures: in the order of the input.
            retry: whether those that have failed are computed again.
        """
        wanted, copies, there, seen = [], 0, 0, set()
        with self._errors(), self._transaction():
            place = self._one(f"SELECT coalesce(max(place), -1) FROM {STRUCTURES}") + 1
            molecule = self._one(f"SELECT coalesce(max(molecule), -1) FROM {STRUCTURES}") + 1
            for run in self._runs(structures):
                digests = [digest_of(structure) for structure in run]
                known = {digest: found for digest in digests if (found := self._find(digest)) is not None}
                identity = min((entry.molecule for entry, _ in known.values()), default=molecule)
                molecule = max(molecule, identity + 1)
                frame = self._one(f"SELECT coalesce(max(frame), -1) FROM {STRUCTURES} WHERE molecule = ?", identity) + 1
                for structure, digest in zip(run, digests):
                    if digest in seen:
                        copies += 1
                        continue
                    seen.add(digest)
                    if digest in known:
                        entry, state = known[digest]
                        entry = replace(entry, structure=structure)
                        left = state == WAITING or (retry and state == FAILED)
                        there += not left
                    else:
                        entry, left = Planned(place, identity, frame, structure), True
                        self._add(entry, digest)
                        place, frame = place + 1, frame + 1
                    if left and not structure.refused:
                        wanted.append(entry)
        return Plan(wanted, there, copies)

    def store(self, planned: Planned, labels: Labels) -> None:
        """Add the labels of a structure, on disk when this returns."""
        forces = None if labels.forces is None else floats(labels.forces)
        # The positions that were computed: equal to those of an earlier command to 1e-6 Å, not to the last bit.
        positions = floats(planned.structure.positions)
        more = more_text(planned.structure, labels)
        values = (LABELLED, positions, labels.energy, forces, labels.cycles, more, planned.place)
        with self._errors(), self._transaction():
            if self.record.layout != "none":
                identity, basis = (planned.molecule, planned.frame), self.record.level_of_theory["basis"]
                layout = self.record.layout
                self._connection.execute(
                    *insertion(layout, planned.place, identity, planned.structure, labels, str(basis))
                )
            self._connection.execute(
                f"UPDATE {STRUCTURES} SET state = ?, reason = NULL, pos = ?, energy = ?, forces = ?, cycles = ?, "
                "more = ? WHERE place = ?",
                values,
            )

    def fail(self, planned: Planned, reason: str) -> None:
        """Note why a structure has no labels."""
        with self._errors(), self._transaction():
            self._connection.execute(
                f"UPDATE {STRUCTURES} SET state = ?, reason = ? WHERE place = ?", (FAILED, reason, planned.place)
            )

    def counts(self) -> dict[str, int]:
        """Return how many structures are in each state."""
        found = dict(self._connection.execute(f"SELECT state, count(*) FROM {STRUCTURES} GROUP BY state"))
        return {state: found.get(state, 0) for state in (LABELLED, WAITING, FAILED)}

    def failures(self) -> list[tuple[str, str]]:
        """Return source and reason of the structures that have failed."""
        query = f"SELECT source, reason FROM {STRUCTURES} WHERE state = ? ORDER BY place"
        return [(str(source), str(reason)) for source, reason in self._connection.execute(query, (FAILED,))]

    def num_molecules(self) -> int:
        """Return how many different molecules have labels."""
        return self._one(f"SELECT count(DISTINCT molecule) FROM {STRUCTURES} WHERE state = ?", LABELLED)

    def samples(self) -> Iterator[Sample]:
        """Yield the structures with energies in eV, forces in eV/Å and stress in eV/Å³, in the order of the file."""
        query = (
            f"SELECT molecule, source, Z, pos, energy, forces, more FROM {STRUCTURES} WHERE state = ? ORDER BY place"
        )
        level = {key: self.record.level_of_theory.get(key) for key in ("functional", "basis")}
        if not level["functional"]:
            level = {"method": self.record.level_of_theory.get("method")}
        if self.record.layout == "none":
            level["program"] = ", ".join(self.record.programs)
        for molecule, source, numbers, positions, energy, forces, more in self._connection.execute(query, (LABELLED,)):
            atoms = Atoms(np.frombuffer(numbers, "<i4"), positions=np.frombuffer(positions, "<f8").reshape(-1, 3))
            labels = {"energy": np.array(energy * HARTREE)}
            if forces is not None:
                labels["forces"] = np.frombuffer(forces, "<f8").reshape(-1, 3) * (HARTREE / BOHR)
            found, info = read_more(more, atoms)
            # The words of the level of theory are ours, whatever the input had under their names.
            yield Sample(atoms, labels | found, info | {"source": source, "group": str(molecule), **level})

    def _settle(self, wanted: Record, keep_layout: bool) -> Record:
        """Make the tables, or compare with what is there."""
        tables = {str(name) for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            for statement in (*_CREATE, *create_statements(wanted.layout)):
                self._connection.execute(statement)
            found = wanted
        elif {RECORD, STRUCTURES} <= tables:
            found = Record.of(dict(self._connection.execute(f"SELECT key, value FROM {RECORD}")), str(self.path))
            compare(found, replace(wanted, layout=found.layout) if keep_layout else wanted, self.path)
            columns = {str(row[1]) for row in self._connection.execute(f"PRAGMA table_info({STRUCTURES})")}
            if "more" not in columns:  # Of an earlier version.
                self._connection.execute(f"ALTER TABLE {STRUCTURES} ADD COLUMN more TEXT")
        else:
            raise foreign(self.path)
        programs = tuple(dict.fromkeys((*found.programs, *wanted.programs)))
        licence = found.licence if wanted.licence == UNSTATED else wanted.licence
        made = replace(found, programs=programs, licence=licence)
        if not tables or made != found:
            entries = list(made.entries().items())
            self._connection.executemany(f"INSERT OR REPLACE INTO {RECORD} VALUES (?, ?)", entries)
        return made

    def _runs(self, structures: Sequence[Structure]) -> Iterator[list[Structure]]:
        """Cut structures into molecules."""
        run: list[Structure] = []
        for structure in structures:
            last = run[-1] if run else None
            same = last is not None and last.file == structure.file and np.array_equal(last.numbers, structure.numbers)
            if run and (not same or self.record.layout == "stable"):
                yield run
                run = []
            run.append(structure)
        if run:
            yield run

    def _find(self, digest: bytes) -> tuple[Planned, str] | None:
        query = f"SELECT place, molecule, frame, state FROM {STRUCTURES} WHERE geometry = ?"
        found = self._connection.execute(query, (digest,)).fetchone()
        nothing = Structure(np.zeros(0), np.zeros((0, 3)), "", 0)
        return None if found is None else (Planned(*found[:3], nothing), str(found[3]))

    def _add(self, planned: Planned, digest: bytes) -> None:
        structure = planned.structure
        state = (FAILED, structure.refused) if structure.refused else (WAITING, None)
        values = (planned.place, planned.molecule, planned.frame, digest, structure.source)
        self._connection.execute(
            f"INSERT INTO {STRUCTURES} (place, molecule, frame, geometry, source, Z, pos, state, reason) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, integers(structure.numbers), floats(structure.positions), *state),
        )

    def _one(self, query: str, *values: Any) -> int:
        return int(self._connection.execute(query, values).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise MlipError(f"Another process writes '{self.path}'. Let it finish, or end it.") from error
            if isinstance(error, sqlite3.OperationalError):
                raise MlipError(
                    f"Cannot write '{self.path}': {error}. What is labelled is kept; free some space or choose another "
                    "folder."
                ) from error
            raise foreign(self.path) from error
        except OSError as error:
            raise MlipError(f"Cannot write '{self.path}': {error.strerror or error}. Choose another folder.") from error
