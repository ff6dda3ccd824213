"""What files of ``mlip data label`` have beside QH9's table: the level of theory, energies and forces.

Table ``mlip``: keys and JSON values. Table ``mlip_structures``: one row for every structure that was asked for, with
its atomic numbers (int32), positions (float64, Å, as they were given), energy (Hartree), forces (float64,
Hartree/Bohr) and what became of it. Readers of QH9 look at the table ``data`` alone and are not disturbed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.datasets.orbital_matrices import raw_numbers
from mlip.data.formats.sqlite_file import SqliteFile

RECORD = "mlip"
STRUCTURES = "mlip_structures"
FORMAT = 1

LABELLED, WAITING, FAILED = "labelled", "waiting", "failed"
"""States of a structure."""


@dataclass(frozen=True)
class Record:
    """How the rows of a file were computed.

    Attributes:
        layout: ``stable``, ``dynamic``, or ``none`` where there are no matrices.
        level_of_theory: ``functional`` by our name, ``basis``, and the settings of the calculation.
        fields: labels that every structure has.
        programs: that were used, with their versions.
        licence: of the data.
    """

    layout: str
    level_of_theory: Mapping[str, Any]
    fields: tuple[str, ...]
    programs: tuple[str, ...]
    licence: str

    @classmethod
    def of(cls, entries: Mapping[str, str], where: str) -> Record:
        """Make a record of the rows of its table.

        Raises:
            DataError: entries are missing, damaged, or of a later version.
        """
        try:
            values = {key: json.loads(text) for key, text in entries.items()}
        except (TypeError, ValueError) as error:
            raise DataError(f"'{where}' is damaged: its table {RECORD} must hold JSON values ({error}).") from error
        if values.get("format") != FORMAT:
            raise DataError(
                f"'{where}' has a table {RECORD} of format {values.get('format')!r}, this version reads {FORMAT}. "
                "Update mlip-kit, or make the file again."
            )
        level, fields = values.get("level_of_theory"), values.get("fields")
        programs, layout, licence = values.get("programs"), values.get("layout"), values.get("licence")
        named = isinstance(level, dict) and all(isinstance(level.get(key), str) for key in ("functional", "basis"))
        listed = all(isinstance(x, list) and all(isinstance(y, str) for y in x) for x in (fields, programs))
        # Energies and forces come from programs, too, that have neither.
        named = named or (isinstance(level, dict) and layout == "none")
        if not named or not listed or not isinstance(layout, str) or not isinstance(licence, str):
            raise DataError(f"'{where}' is damaged: its table {RECORD} lacks the level of theory or the fields.")
        return cls(layout, level, tuple(fields), tuple(programs), licence)

    def entries(self) -> dict[str, str]:
        """Return the rows of the table."""
        values = {"format": FORMAT, "layout": self.layout, "level_of_theory": dict(self.level_of_theory)}
        values |= {"fields": list(self.fields), "programs": list(self.programs), "licence": self.licence}
        return {key: json.dumps(value) for key, value in values.items()}


def read_record(file: SqliteFile) -> Record | None:
    """Return the record of a file, None where it has none.

    Raises:
        DataError: it is damaged, or of a later version.
    """
    if set(file.columns(RECORD)) != {"key", "value"}:
        return None
    return Record.of(dict(file.all(f"SELECT key, value FROM {RECORD}")), str(file.path))  # type: ignore[arg-type]


def read_results(
    file: SqliteFile, record: Record, molecule: int, frame: int, size: int, where: str
) -> tuple[float, np.ndarray | None]:
    """Return the energy (Hartree) and the forces (atoms, 3) (Hartree/Bohr; None without) of a structure.

    Args:
        file: with the tables.
        record: of the file.
        molecule: its id.
        frame: its geo_id, 0 in the layout of QH9 Stable.
        size: number of atoms.
        where: names the row.

    Raises:
        DataError: they are not there, or damaged.
    """
    query = f"SELECT energy, forces FROM {STRUCTURES} WHERE molecule = ? AND frame = ?"
    found = file.all(query, (molecule, frame))
    if len(found) != 1 or not isinstance(found[0][0], float) or not np.isfinite(found[0][0]):
        raise DataError(f"{where}: the table {STRUCTURES} has no energy of this row; the file is damaged.")
    energy, forces = found[0]
    if "forces" not in record.fields:
        return energy, None
    return energy, raw_numbers(forces, "<f8", (size, 3), "forces", where)
