"""MPtrj in an ASE database with what is not of ASE's own in ``row.data``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip.core.errors import DataError
from mlip.data.datasets.base import CHUNK_SAMPLES, Chunk
from mlip.data.datasets.mptrj_frame import MPtrjFrame
from mlip.data.formats.ase_rows import AseRows
from mlip.data.formats.json_values import plain

SAME_ENERGY = 1e-6
"""eV; the energy in ``row.data`` must be that of the row."""


class MPtrjDatabase:
    """Rows of an ASE database, sqlite or aselmdb.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def _rows(self) -> AseRows:
        return AseRows(self.path)

    def chunks(self) -> Iterator[Chunk]:
        """Cut the rows into runs."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        for start in range(0, len(self._rows), CHUNK_SAMPLES):
            stop = min(start + CHUNK_SAMPLES, len(self._rows))
            share = size * (stop - start) // len(self._rows)
            yield Chunk(f"{start}-{stop - 1}", (start, stop), stop - start, share)

    def frames(self, chunk: Chunk) -> Iterator[MPtrjFrame | DataError]:
        """Read the frames of a chunk."""
        for index in range(*chunk.location):
            try:
                yield _frame(self._rows.row(index), self._rows.source(index))
            except DataError as error:
                yield error


def _frame(row: dict[str, Any], where: str) -> MPtrjFrame:
    data = {**row["key_value_pairs"], **row["data"]}
    mp_id = data.get("mp_id", data.get("material_id"))
    if not isinstance(mp_id, str) or not mp_id:
        raise DataError(f"{where} has no mp_id; it has: {', '.join(data) or 'nothing'} besides ASE's own.")
    energy, repeated = row.get("energy"), data.get("energy", data.get("uncorrected_total_energy"))
    if energy is not None and isinstance(repeated, int | float) and abs(energy - repeated) > SAME_ENERGY:
        raise DataError(f"{where}: the row's energy is {energy} eV, its data say {repeated} eV.")
    ids = ("task_id", "calc_id", "ionic_step", "bandgap")
    return MPtrjFrame(
        where=where,
        atoms=Atoms(row["numbers"], positions=row["positions"], cell=row["cell"], pbc=row["pbc"]),
        mp_id=mp_id,
        corrected=data.get("corrected_total_energy"),
        uncorrected=energy if energy is not None else repeated,
        energy_per_atom=data.get("energy_per_atom"),
        forces=row.get("forces"),
        stress=row.get("stress"),
        magmoms=row.get("magmoms"),
        info=plain({key: data[key] for key in ids if key in data}),
    )
