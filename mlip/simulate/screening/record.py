"""What is known of a structure of a screening in the end, and the columns it has in table and store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ase import Atoms

from mlip.simulate.atoms_json import atoms_from_json, atoms_to_json, plain
from mlip.simulate.journal import JournalKind, parsed

DONE, FAILED, POISONED, UNREADABLE = "done", "failed", "poisoned", "unreadable"
STATUSES = (DONE, FAILED, POISONED, UNREADABLE)
"""``failed``: an error of this structure; ``poisoned``: set aside because workers died of it, or it took too long."""

Kind = Literal["number", "integer", "truth", "text", "numbers"]


@dataclass(frozen=True)
class Column:
    """What a task says of a structure.

    Attributes:
        meaning: for the reader of the store.
        kind: ``number`` (float), ``integer``, ``truth``, ``text``; ``numbers`` is an array of any length, which is not
            in the CSV.
        unit: "" if there is none.
    """

    meaning: str
    kind: Kind = "number"
    unit: str = ""


COMMON: dict[str, Column] = {
    "number": Column("place in the input, from 0", "integer"),
    "name": Column("the file, and which one of it", "text"),
    "status": Column("done, failed, poisoned or unreadable", "text"),
    "formula": Column("composition", "text"),
    "atoms": Column("number of atoms", "integer"),
    "seconds": Column("from its start to its end, side by side with others of its batch", unit="s"),
}
"""Of every task; ``warnings`` and ``error`` come last."""

LAST: dict[str, Column] = {
    "warnings": Column("sentences about what looks wrong", "text"),
    "error": Column("one sentence, of what is not done", "text"),
}


@dataclass(frozen=True)
class ScreenRecord:
    """A structure that is dealt with.

    Attributes:
        number: place in the input, from 0.
        name: the file, and which one of it.
        status: one of :data:`STATUSES`.
        formula, atoms: composition and number of atoms; None if it could not be read.
        seconds: it took; None if it did not end.
        values: the columns of the task; what is not known is missing, or None.
        structure: that resulted, with energy, forces and stress; None if there is none.
        warnings: sentences.
        error: one sentence, of what is not done.
    """

    number: int
    name: str
    status: str
    formula: str | None = None
    atoms: int | None = None
    seconds: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    structure: Atoms | None = None
    warnings: str = ""
    error: str = ""

    def cell(self, column: str) -> Any:
        """Return what the table has in a column."""
        return getattr(self, column) if column in COMMON or column in LAST else self.values.get(column)


def columns_of(task_columns: Mapping[str, Column]) -> dict[str, Column]:
    """Return all columns of a table, in their order."""
    return {**COMMON, **task_columns, **LAST}


def encode(record: ScreenRecord) -> bytes:
    """Return a line of JSON with its end; all digits of numbers stay."""
    content = {name: getattr(record, name) for name in (*COMMON, *LAST)}
    content["values"] = dict(record.values)
    if record.structure is not None:
        content["structure"] = atoms_to_json(record.structure)
    return json.dumps(content, default=plain).encode() + b"\n"


def decode(content: Any) -> ScreenRecord | None:
    """Return the record of a line that has been parsed; None if it is damaged."""
    try:
        found = dict(content)
        structure = found.pop("structure", None)
        return ScreenRecord(**found, structure=None if structure is None else atoms_from_json(structure))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def decode_line(line: bytes) -> ScreenRecord:
    """Return the record of a line that a worker sent.

    Raises:
        ValueError: it is damaged.
    """
    record = decode(parsed(line))
    if record is None:
        raise ValueError(f"A worker sent what is no record: {line[:80]!r}.")
    return record


JOURNAL = JournalKind("screened.jsonl", "mlip screen 1", encode, decode)
"""Of :class:`mlip.simulate.journal.Journal`."""
