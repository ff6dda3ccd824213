"""Any ASE database, `.aselmdb` and sqlite `.db`, and ASE's trajectories, `.traj`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from mlip.core.errors import DataError
from mlip.data.datasets.ase_row_dataset import RowSamples
from mlip.data.datasets.base import Chunk, Recognition
from mlip.data.datasets.streamed import StreamedDataset
from mlip.data.formats.ase_rows import AseRows, find_databases, open_table
from mlip.data.label_units import LabelUnits
from mlip.data.labels import LabelReader
from mlip.data.sample import Sample

_OTHER_DATA = frozenset({".xyz", ".extxyz", ".xz", ".zip", ".lmdb", ".cif", ".vasp"})
"""Files beside databases that make a folder more than a set of databases."""


class AseDbDataset(StreamedDataset):
    """Rows of ASE databases, or frames of trajectories.

    Labels are looked up among a row's results, then in ``key_value_pairs`` and ``data``, under the same names as in
    extxyz files; ``data.KEY`` names one place. Forces are taken as stored, so those on fixed atoms are not set to
    zero. ``info["id"]`` is the row's id (the frame's number from 0), ``info["group"]`` that of ``group_key``, else the
    file a trajectory is in.

    Args:
        path: a file, a folder, a glob or a list, see `AseRows`.
        labels: what every row must have: ``energy``, ``forces``, ``stress``, ``magmoms``, ``charge``, ``spin``, ….
        optional_labels: what is used where a row has it.
        energy_key: key of the energy; None looks for the usual ones (energy, REF_energy, …).
        forces_key: key of the forces, likewise.
        stress_key: key of the stress or virial, likewise; a key with "virial" in it is −V·stress.
        charge_key: key of the total charge, likewise; it is read if ``charge`` is among the labels.
        spin_key: key of the multiplicity 2S + 1, likewise.
        group_key: key of what belongs into one part of a split, such as a trajectory or a material.
        info_keys: further keys to keep in ``info``.
        energy_unit: unit of energies and virials, see `LabelUnits`; positions are in Å, forces in energy_unit/Å.
        stress_unit: unit of stresses.
        stress_sign: 1 if tension is positive, −1 if pressure is.
        max_force: eV/Å; a row with a larger force is refused.
        include_isolated_atoms: keep single atoms without periodic axes among the samples.
        licence: licence of the data, for the record.
        citation: how to cite the data, for the record.

    Raises:
        DataError: no database, damaged rows; labels that are missing, ambiguous, or cannot be right.
        ConfigError: an unknown label or unit.
    """

    def __init__(
        self,
        path: str | PathLike[str] | Sequence[str | PathLike[str]],
        labels: Sequence[str] = ("energy", "forces"),
        optional_labels: Sequence[str] = ("stress", "magmoms", "tags", "fixed"),
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        charge_key: str | None = None,
        spin_key: str | None = None,
        group_key: str | None = None,
        info_keys: Sequence[str] = (),
        energy_unit: str = "eV",
        stress_unit: str = "eV/A^3",
        stress_sign: int = 1,
        max_force: float = 1000.0,
        include_isolated_atoms: bool = False,
        licence: str = "not stated",
        citation: str = "not stated",
    ) -> None:
        units = LabelUnits(energy_unit, "Angstrom", stress_unit, stress_sign)
        keys = {
            "energy": energy_key,
            "forces": forces_key,
            "stress": stress_key,
            "charge": charge_key,
            "spin": spin_key,
        }
        optional = tuple(label for label in optional_labels if label not in labels)
        self._samples = RowSamples(
            AseRows(path),
            LabelReader(tuple(labels), optional, keys, units, float(max_force)),
            group_key,
            tuple(info_keys),
            isolated_atoms=True,
            include_isolated_atoms=include_isolated_atoms,
        )
        self.units = units.as_dict()
        self.licence = licence
        self.citation = citation

    def chunks(self) -> Iterator[Chunk]:
        """Cut the files into runs of rows, see `Dataset.chunks`."""
        return self._samples.chunks()

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the rows of a chunk, see `Dataset.read`."""
        return self._samples.read(chunk)

    def label_keys(self) -> dict[str, tuple[str, str]]:
        """Return the keys that labels were read from, see `Dataset.label_keys`."""
        return self._samples.label_keys()

    def check_labels(self, found: set[str]) -> None:
        """Refuse a key that was named and that no row has."""
        self._samples.labels.check_found(found, "row")

    def explain_empty(self, isolated: dict[str, tuple[float, str]]) -> str:
        """Say that there are only isolated atoms."""
        return (
            f"'{self._samples.rows.files[0]}' holds only isolated atoms. Add files with structures to train on, or set "
            "include_isolated_atoms: true."
        )

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Any ASE database, or a folder of these and nothing else that could be data."""
        if path.is_dir() and any(file.suffix in _OTHER_DATA for file in path.iterdir()):
            return None
        try:
            table = open_table(find_databases(path)[0])
            row = table.row(0)
        except (DataError, OSError, IndexError):
            return None
        return Recognition(1, {} if "forces" in row else {"labels": ["energy"]})
