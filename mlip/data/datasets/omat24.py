"""OMat24 and sAlex: inorganic crystals far from and near to equilibrium, PBE and PBE+U."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from mlip.core.errors import DataError
from mlip.data.datasets.ase_row_dataset import AseRowDataset, RowSamples
from mlip.data.datasets.base import Recognition
from mlip.data.formats.ase_rows import AseRows, find_databases, open_table
from mlip.data.labels import LabelReader
from mlip.data.sample import Sample

SUBSETS = ("rattled-", "aimd-from-PBE-")
"""Beginnings of the names of OMat24's sub-folders."""


class OMat24Dataset(AseRowDataset):
    """OMat24 or sAlex: one sub-folder (``rattled-300``, ``aimd-from-PBE-1000-nvt``, …) or a folder of these.

    Energies are uncorrected totals; stresses have ASE's sign. The name of a row's sub-folder is its
    ``info["config_type"]``.

    Args:
        path: a folder, some of its files, a glob, or a list of these.
        group_key: key of what belongs into one part of a split, if there is one.
        max_force: eV/Å; a row with a larger force is refused.

    Raises:
        DataError: no such files, damaged rows, metadata of other files.
    """

    provides = ("energy", "forces", "stress")
    licence = "CC BY 4.0"
    citation = "L. Barroso-Luque et al., Open Materials 2024 (OMat24), arXiv:2410.12771 (2024)"
    level_of_theory: Mapping[str, str] = {"functional": "PBE, PBE+U", "code": "VASP", "corrections": "none"}

    def __init__(
        self,
        path: str | PathLike[str] | Sequence[str | PathLike[str]],
        group_key: str | None = None,
        max_force: float = 1000.0,
    ) -> None:
        keys = {label: label for label in self.provides}
        labels = LabelReader(self.provides, keys=keys, max_force=float(max_force))
        super().__init__(RowSamples(AseRows(path), labels, group_key))

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if not sample.atoms.pbc.all():
            raise DataError(f"{sample.source} is not periodic, OMat24 has crystals. Use data=ase_db for others.")
        subset = _subset(self._samples.rows.files[self._samples.rows.locate(index)[0]])
        if subset is not None:
            sample.info["config_type"] = subset
        return sample

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """`.aselmdb` files in folders with OMat24's names."""
        try:
            file = find_databases(path)[0]
            if _subset(file) is None or file.suffix != ".aselmdb":
                return None
            row = open_table(file).row(0)
        except (DataError, OSError, IndexError):
            return None
        return Recognition(3) if row["pbc"].all() and "stress" in row else None


def _subset(file: Path) -> str | None:
    """Return the sub-folder of OMat24 that a file is in."""
    return next((folder.name for folder in file.absolute().parents if folder.name.startswith(SUBSETS)), None)
