"""MD17 Hamiltonians (SchNOrb): PBE matrices, energies and forces of small molecules in motion, from ORCA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.core.fields import DATA_FIELDS
from mlip.core.units import BOHR, HARTREE
from mlip.data.datasets.base import Chunk, Dataset, Recognition
from mlip.data.datasets.orbital_matrices import check_distances, orbital_matrix, raw_numbers
from mlip.data.formats.ase_rows import AseRows
from mlip.data.formats.sqlite_file import SqliteFile
from mlip.data.orbitals import basis_key, reorder
from mlip.data.pyscf_extra import has_pyscf
from mlip.data.quantum import check_overlap
from mlip.data.sample import Sample

CHUNK = 1024
NAMES = ("energy", "forces", "hamiltonian", "overlap")
SAME_OVERLAP = 1e-3
"""Largest difference of an overlap to PySCF's. Orbitals in a wrong order differ by 0.1 and more."""

NORMALISED = 1e-3
"""Largest deviation of the diagonal of an overlap from 1."""


class MD17HamiltonianDataset(Dataset):
    """One molecule of MD17 with its Kohn-Sham matrices, in SchNOrb's ASE database.

    Matrices are brought from ORCA's order of orbitals to the order `mlip`. No published file was at hand when this
    was written, so the first overlap is compared with PySCF's where that is installed: it shows whether the order,
    the basis and the unit of length are the right ones.

    Args:
        path: ``schnorb_hamiltonian_water.db`` or another molecule.
        basis: of the matrices.
        functional: of the data, for the record and for initial guesses.
        order: of the orbitals in the file, one of :data:`mlip.data.orbitals.ORDERS`.
        overlap: hand out the overlaps of the file.
        check_order: compare the first overlap with PySCF's, if it is installed.

    Raises:
        DataError: no such file, no ASE database with matrices, matrices of another size or order.
        ConfigError: as :func:`mlip.data.orbitals.reorder`.
    """

    units: Mapping[str, str] = {
        "energy": "Hartree",
        "forces": "Hartree/Bohr",
        "hamiltonian": "Hartree",
        "positions": "Angstrom",
    }
    licence = "not stated (quantum-machine.org)"
    citation = "K. T. Schütt et al., Nat. Commun. 10, 5024 (2019), doi:10.1038/s41467-019-12875-2"

    def __init__(
        self,
        path: str | PathLike[str],
        basis: str = "def2-svp",
        functional: str = "pbe",
        order: str = "orca",
        overlap: bool = True,
        check_order: bool = True,
    ) -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(f"MD17 Hamiltonians are one ASE database a molecule, '{file}' is no file. Set data.path.")
        if "systems" not in SqliteFile(file).tables():
            raise DataError(f"'{file}' is not an ASE database: it has no table 'systems'.")
        basis_key(basis)
        self._file, self._basis, self._functional, self._order = file, basis, functional, order
        self._rows = AseRows(file)
        if not len(self._rows):
            raise DataError(f"'{file}' has no rows.")
        self._overlap = overlap
        self.provides = tuple(name for name in DATA_FIELDS if name in NAMES and (overlap or name != "overlap"))
        self._check_names(self._rows.row(0))
        if check_order and has_pyscf():
            self._check_order()

    @property
    def level_of_theory(self) -> Mapping[str, str]:  # type: ignore[override]
        """Functional, basis and code."""
        return {"functional": self._functional, "basis": self._basis, "code": "ORCA"}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        where = self._rows.source(index)
        row = self._rows.row(index)
        self._check_names(row)
        numbers, data = row["numbers"], row["data"]
        check_distances(numbers, row["positions"], where, "Positions must be in Å")
        labels: dict[str, np.ndarray] = {
            "energy": _floats(data["energy"], (), "energy", where) * HARTREE,
            "forces": _floats(data["forces"], (len(numbers), 3), "forces", where) * (HARTREE / BOHR),
            "hamiltonian": self._matrix(data["hamiltonian"], numbers, "Hamiltonian", where),
        }
        if self._overlap:
            labels["overlap"] = self._checked_overlap(row, where)
        info = {"source": where, "basis": self._basis, "functional": self._functional}
        return Sample(Atoms(numbers, positions=row["positions"]), labels, info)

    def chunks(self) -> Iterator[Chunk]:
        """Cut the rows into chunks, see `Dataset.chunks`."""
        row_bytes = self._file.stat().st_size / len(self)
        for start in range(0, len(self), CHUNK):
            stop = min(start + CHUNK, len(self))
            yield Chunk(f"{start}-{stop - 1}", (start, stop), stop - start, int((stop - start) * row_bytes))

    def num_atoms(self) -> np.ndarray | None:
        """Return (samples,) atoms."""
        return self._rows.num_atoms()

    def fields(self) -> set[str]:
        """Return what every sample has."""
        return set(self.provides)

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Recognise an ASE sqlite database whose first row has Hamiltonian and overlap in its ``data``."""
        try:
            if not path.is_file() or "systems" not in SqliteFile(path).tables():
                return None
            data = AseRows(path).row(0)["data"]
        except (DataError, OSError, IndexError):
            return None
        return Recognition(3) if {"hamiltonian", "overlap"} <= set(data) else None

    def _check_names(self, row: Mapping[str, Any]) -> None:
        missing = [name for name in NAMES if name not in row["data"] and (self._overlap or name != "overlap")]
        if missing:
            raise DataError(
                f"'{self._file}', row {row['id']}: {', '.join(missing)} should stand in the row's data, there: "
                f"{', '.join(sorted(row['data'])) or 'nothing'}. It is not one of SchNOrb's files."
            )

    def _matrix(self, value: Any, numbers: np.ndarray, name: str, where: str) -> np.ndarray:
        checked = orbital_matrix(_as_array(value, name, where), numbers, self._basis, name, where)
        return reorder(checked, numbers, self._basis, self._order, "mlip")

    def _checked_overlap(self, row: Mapping[str, Any], where: str) -> np.ndarray:
        found = self._matrix(row["data"]["overlap"], row["numbers"], "overlap", where)
        if np.abs(np.diag(found) - 1).max() > NORMALISED:
            raise DataError(f"{where}: the overlap of an orbital with itself must be 1; the row is damaged.")
        return found

    def _check_order(self) -> None:
        """Compare the first overlap with one that is computed.

        Raises:
            DataError: they differ.
        """
        row, where = self._rows.row(0), self._rows.source(0)
        if "overlap" not in row["data"]:
            return
        found = self._checked_overlap(row, where)
        difference = check_overlap(found, row["numbers"], row["positions"], self._basis)
        if difference > SAME_OVERLAP:
            raise DataError(
                f"{where}: the overlap differs by {difference:.2g} from the one that PySCF computes in {self._basis}: "
                f"the orbitals are not in the order {self._order}, or the basis or the unit of length is another. Set "
                "order or basis, or check_order: false to read the file as it is."
            )


def _as_array(value: Any, name: str, where: str) -> np.ndarray:
    """Return JSON's nested lists, or an array, as float64."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: the {name} must be numbers ({error}).") from error


def _floats(value: Any, shape: Sequence[int], name: str, where: str) -> np.ndarray:
    return raw_numbers(_as_array(value, name, where), "<f8", tuple(shape), name, where)
