"""Finished relaxations in a journal: rows of the table with their structures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip.simulate import journal
from mlip.simulate.atoms_json import atoms_from_json, atoms_to_json, plain
from mlip.simulate.inputs import InputStructure
from mlip.simulate.journal import Journal, JournalKind
from mlip.simulate.relax_result import RelaxOptions
from mlip.simulate.relax_table import RelaxedRow

RECORDS = "relaxed.jsonl"
"""Name of the file in the folder of the results."""


@dataclass(frozen=True)
class Record:
    """A structure that is done.

    Attributes:
        row: of the table.
        atoms: the relaxed structure with its energy, forces and stress; None if it failed.
    """

    row: RelaxedRow
    atoms: Atoms | None

    @property
    def number(self) -> int:
        """Place in the input."""
        return self.row.number


def fingerprint(structures: Sequence[InputStructure], options: RelaxOptions, model: str) -> dict[str, str]:
    """Return hashes of input, options and model, see :func:`mlip.simulate.journal.fingerprint`."""
    return journal.fingerprint(structures, asdict(options), model)


class Records(Journal[Record]):
    """The journal of relaxations."""

    def __init__(self, folder: Path, prints: Mapping[str, str], restart: bool = False) -> None:
        """Begin one, or open one to go on.

        Raises:
            SimulationError: see :class:`mlip.simulate.journal.Journal`.
        """
        super().__init__(folder, JournalKind(RECORDS, "mlip relax 1", _to_json, _from_json), prints, restart)


def _to_json(record: Record) -> bytes:
    content: dict[str, Any] = {"row": record.row.as_dict()}
    if record.atoms is not None:
        content["atoms"] = atoms_to_json(record.atoms)
    return json.dumps(content, default=plain).encode() + b"\n"


def _from_json(content: Any) -> Record | None:
    try:
        found = content.get("atoms")
        return Record(RelaxedRow(**content["row"]), None if found is None else atoms_from_json(found))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
