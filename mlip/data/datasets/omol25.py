"""OMol25: molecules, complexes and ions at ωB97M-V/def2-TZVPD, with charge and multiplicity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from mlip.core.errors import DataError
from mlip.data.datasets.ase_row_dataset import AseRowDataset, RowSamples
from mlip.data.datasets.base import Recognition
from mlip.data.formats.ase_rows import AseRows, find_databases, open_table
from mlip.data.formats.ase_rows_metadata import FILE_NAME
from mlip.data.labels import LabelReader
from mlip.data.sample import Sample


class OMol25Dataset(AseRowDataset):
    """A split of OMol25: a folder of `.aselmdb` files with their ``metadata.npz``.

    Energies are total energies of all electrons: subtract energies of the elements before training. Every row must
    state ``charge`` and ``spin`` (the multiplicity 2S + 1), and they must fit its electrons; a row without is damaged,
    not neutral. ``info["domain"]`` is the part of chemical space where ``metadata.npz`` names it.

    Args:
        path: the folder, some of its files, or a glob.
        charge_key: key of the charge in ``data`` or ``key_value_pairs``.
        spin_key: key of the multiplicity.
        group_key: key of what belongs into one part of a split, if there is one.
        max_force: eV/Å; a row with a larger force is refused.

    Raises:
        DataError: no such files, damaged rows, metadata of other files.
    """

    provides = ("energy", "forces", "charge", "spin")
    licence = "CC BY 4.0"
    citation = "D. S. Levine et al., The Open Molecules 2025 (OMol25) dataset, arXiv:2505.08762 (2025)"
    level_of_theory: Mapping[str, str] = {"functional": "wB97M-V", "basis": "def2-TZVPD", "code": "ORCA 6"}

    def __init__(
        self,
        path: str | PathLike[str] | Sequence[str | PathLike[str]],
        charge_key: str = "charge",
        spin_key: str = "spin",
        group_key: str | None = None,
        max_force: float = 1000.0,
    ) -> None:
        keys = {"energy": "energy", "forces": "forces", "charge": charge_key, "spin": spin_key}
        labels = LabelReader(self.provides, keys=keys, max_force=float(max_force))
        super().__init__(RowSamples(AseRows(path), labels, group_key))

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if sample.atoms.pbc.any():
            raise DataError(f"{sample.source} is periodic, OMol25 has molecules. Use data=ase_db for other databases.")
        domain = self._metadata.domain(index)
        if domain is not None:
            sample.info["domain"] = domain
        return sample

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Databases of molecules whose rows state charge and spin."""
        try:
            file = find_databases(path)[0]
            row = open_table(file).row(0)
        except (DataError, OSError, IndexError):
            return None
        keys = {*row["data"], *row["key_value_pairs"]}
        if row["pbc"].any() or not {"charge", "spin"} <= keys or not {"energy", "forces"} <= set(row):
            return None
        return Recognition(3 if (file.parent / FILE_NAME).is_file() else 2)
