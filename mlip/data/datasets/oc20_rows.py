"""OC20 in ASE databases: ``.aselmdb`` and sqlite ``.db``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.data.datasets.oc20_record import RandomLayout, Record, finite, system_number, whole
from mlip.data.formats.ase_rows import AseRows

REFERENCE = "reference_energy"


class Rows(RandomLayout):
    """Rows of ASE databases, with the number of the system as ``sid``, of the frame as ``fid``, where they are stated.

    Args:
        files: of the set, in order.

    Raises:
        DataError: a file is damaged, or there are no rows.
    """

    words = "S2EF frames in an ASE database"

    def __init__(self, files: list[Path]) -> None:
        self._rows = AseRows([str(file) for file in files])
        self.files = self._rows.files
        if not len(self._rows):
            raise DataError(f"'{self.files[0]}' has no rows.")

    def spans(self) -> list[tuple[Path, int, int]]:
        """Return (file, first index, index past the last) for every file."""
        return self._rows.spans()

    def record(self, index: int) -> Record:
        """Return a row by its index over all files."""
        where = self._rows.source(index)
        row = self._rows.row(index)
        number = len(row["numbers"])
        energy, forces, tags = row.get("energy"), row.get("forces"), row.get("tags")
        reference = _stated(row, REFERENCE)
        system, frame = _stated(row, "sid"), _stated(row, "fid")
        return Record(
            where,
            row["numbers"],
            finite(row["positions"], (number, 3), "the positions", where),
            finite(row["cell"], (3, 3), "the cell", where),
            row["pbc"],
            None if system is None else system_number(system, f"{where}, sid"),
            None if frame is None else int(whole(str(frame).removeprefix("frame"), (), "fid", where)),
            energy=None if energy is None else float(finite(energy, (), "the energy", where)),
            stored=None if reference is None else "total",
            reference=None if reference is None else float(finite(reference, (), REFERENCE, where)),
            forces=None if forces is None else finite(forces, (number, 3), "the forces", where),
            tags=None if tags is None else whole(tags, (number,), "the tags", where),
            fixed=None if row.get("fixed") is None else np.asarray(row["fixed"], dtype=bool),
        )


def has_system(rows: AseRows) -> bool:
    """Whether the first row says which system of OC20 it is."""
    return str(_stated(rows.row(0), "sid")).startswith("random")


def _stated(row: Mapping[str, Any], key: str) -> Any:
    return next((row[place][key] for place in ("data", "key_value_pairs") if row[place].get(key) is not None), None)
