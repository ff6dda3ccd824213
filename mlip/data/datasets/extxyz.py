"""Labelled structures in extended-XYZ files, the field's common exchange format."""

from __future__ import annotations

from os import PathLike
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols

from mlip.core.errors import DataError
from mlip.core.fields import LABELS
from mlip.data.datasets.base import Dataset
from mlip.data.datasets.extxyz_frames import expand_paths, read_frames
from mlip.data.label_units import LabelUnits
from mlip.data.labels import LabelReader, MissingLabel
from mlip.data.sample import Sample

SAME_ENERGY = 1e-6
"""eV; isolated-atom energies of one element that differ by more contradict each other."""


class ExtxyzDataset(Dataset):
    """Frames of one or more extxyz files.

    Isolated atoms (``config_type=IsolatedAtom``, or a single atom without periodic axes) give
    `isolated_atom_energies` and are kept out of the samples. All frames are read when the object is made, so
    that what is wrong is said before anything starts.

    Args:
        path: one file, a list of files, or a glob pattern.
        labels: labels that every frame must have: ``energy``, ``forces``, ``stress``.
        optional_labels: labels that are used where a frame has them.
        energy_key: key of the energy in the file; None looks for the usual ones (energy, REF_energy, …).
        forces_key: key of the forces, likewise.
        stress_key: key of the stress or virial, likewise; a key with "virial" in it is −V·stress.
        energy_unit: unit of energies and virials in the file, see `LabelUnits`.
        length_unit: unit of positions and cell; forces are in energy_unit / length_unit.
        stress_unit: unit of stresses.
        stress_sign: 1 if tension is positive, −1 if pressure is.
        max_force: eV/Å; a frame with a larger force is refused.
        include_isolated_atoms: keep isolated atoms among the samples.
        licence: licence of the data, for the record.
        citation: how to cite the data, for the record.

    Raises:
        DataError: files that are empty, truncated or no extxyz; labels that are missing, ambiguous, or
            cannot be right; the message names file and frame.
        ConfigError: an unknown label or unit.
    """

    def __init__(
        self,
        path: str | PathLike[str] | list[str] | tuple[str, ...],
        labels: list[str] | tuple[str, ...] = ("energy", "forces"),
        optional_labels: list[str] | tuple[str, ...] = (),
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        energy_unit: str = "eV",
        length_unit: str = "Angstrom",
        stress_unit: str = "eV/A^3",
        stress_sign: int = 1,
        max_force: float = 1000.0,
        include_isolated_atoms: bool = False,
        licence: str = "not stated",
        citation: str = "not stated",
    ) -> None:
        units = LabelUnits(energy_unit, length_unit, stress_unit, stress_sign)
        keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
        reader = LabelReader(tuple(labels), tuple(optional_labels), keys, units, float(max_force))
        self.units = units.as_dict()
        self.licence = licence
        self.citation = citation
        self._samples: list[Sample] = []
        self._isolated: dict[str, tuple[float, str]] = {}
        self._read(expand_paths(path), reader, include_isolated_atoms)
        if not self._samples:
            raise DataError(
                f"'{path}' holds only isolated atoms. Add files with structures to train on, or set "
                "include_isolated_atoms: true."
            )
        everywhere = set.intersection(*(set(sample.labels) for sample in self._samples))
        self.provides = tuple(label for label in LABELS if label in everywhere)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def isolated_atom_energies(self) -> dict[str, float]:
        """Energies of the isolated atoms in the files by symbol, eV."""
        return {symbol: energy for symbol, (energy, _) in self._isolated.items()}

    def _read(self, files: list[Any], reader: LabelReader, include_isolated_atoms: bool) -> None:
        missing: dict[str, list[tuple[str, MissingLabel]]] = {}
        first_keys: dict[str, tuple[str, str]] = {}
        seen_labels: set[str] = set()
        num_frames = 0
        for file in files:
            for number, frame in enumerate(read_frames(file)):
                where = f"{file}:{number}"
                num_frames += 1
                reader.units.check_hints(frame.info, where)
                atoms = _in_angstrom(frame, reader.units)
                alone = is_isolated_atom(frame, where)
                required = ("energy",) if alone else None
                try:
                    found = reader.read(frame, where, required)
                except MissingLabel as error:
                    missing.setdefault(error.label, []).append((where, error))
                    continue
                seen_labels.update(found["values"])
                sample = Sample(atoms, found["values"], _info(frame, where))
                if alone:
                    self._add_isolated(sample, where)
                else:
                    _check_same_keys(found["keys"], first_keys, where)
                if not alone or include_isolated_atoms:
                    self._samples.append(sample)
        _report_missing(missing, num_frames)
        for label in reader.optional:
            if reader.keys.get(label) is not None and label not in seen_labels:
                raise DataError(
                    f"No frame has the {label} '{reader.keys[label]}' that {label}_key names. Correct the "
                    f"key, or leave {label} out of optional_labels."
                )

    def _add_isolated(self, sample: Sample, where: str) -> None:
        symbol = chemical_symbols[sample.atoms.numbers[0]]
        energy = float(sample.labels["energy"])
        known, source = self._isolated.setdefault(symbol, (energy, where))
        if abs(known - energy) > SAME_ENERGY:
            raise DataError(
                f"Two energies for the isolated atom {symbol}: {known} eV ({source}) and {energy} eV "
                f"({where}). Keep the one that belongs to the data."
            )


def is_isolated_atom(atoms: Atoms, where: str) -> bool:
    """Whether a frame is there for the energy of a single atom.

    Raises:
        DataError: it says so, but has several atoms.
    """
    config_type = str(_config_type(atoms) or "")
    declared = config_type.lower().replace("_", "").replace(" ", "") in ("isolatedatom", "isolatedatoms")
    if declared and len(atoms) != 1:
        raise DataError(f"{where}: config_type is '{config_type}', but the frame has {len(atoms)} atoms.")
    return declared or (len(atoms) == 1 and not atoms.pbc.any())


def _config_type(atoms: Atoms) -> Any:
    return atoms.info.get("config_type", atoms.info.get("configtype"))


def _info(atoms: Atoms, where: str) -> dict[str, Any]:
    config_type = _config_type(atoms)
    return {"source": where} | ({} if config_type is None else {"config_type": str(config_type)})


def _in_angstrom(frame: Atoms, units: LabelUnits) -> Atoms:
    """Return the structure alone, without labels, constraints or calculator, in Å."""
    scale = units.to_angstrom
    return Atoms(frame.numbers, positions=frame.positions * scale, cell=frame.cell.array * scale, pbc=frame.pbc)


def _check_same_keys(keys: dict[str, str], first: dict[str, tuple[str, str]], where: str) -> None:
    """Refuse frames that take a label from different keys: they may be different levels of theory."""
    for label, key in keys.items():
        known, source = first.setdefault(label, (key, where))
        if known != key:
            raise DataError(
                f"The {label} is '{known}' in {source}, but '{key}' in {where}. Say which one to use "
                f"({label}_key: …) or give the frames the same key."
            )


def _report_missing(missing: dict[str, list[tuple[str, MissingLabel]]], num_frames: int) -> None:
    for label, frames in missing.items():
        where, error = frames[0]
        raise DataError(
            f"{len(frames)} of {num_frames} frames have no {label} (first: {where}); {error.hint}"
        ) from error
