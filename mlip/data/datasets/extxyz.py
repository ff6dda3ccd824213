"""Labelled structures in extended-XYZ files, the field's common exchange format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from io import BytesIO
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.data.datasets.base import Chunk, Recognition
from mlip.data.datasets.streamed import StreamedDataset
from mlip.data.formats.bounded import open_binary
from mlip.data.formats.extxyz_frames import expand_paths, frames_from
from mlip.data.formats.extxyz_lines import looks_like_extxyz, sections
from mlip.data.formats.frame import Frame
from mlip.data.label_units import LabelUnits
from mlip.data.labels import CANDIDATES, LabelReader, MissingLabel, merge_keys
from mlip.data.sample import Sample

SUFFIXES = (".xyz", ".extxyz")
COMPRESSED = (".xz", ".gz", ".bz2", ".zst")
"""Suffixes of compressed files; such a file is one chunk. (Zstandard is refused when it is opened.)"""


class ExtxyzDataset(StreamedDataset):
    """Frames of one or more extxyz files.

    Isolated atoms (``config_type=IsolatedAtom``, or a single atom without periodic axes and without ``charge``) give
    `isolated_atom_energies` and are kept out of the samples.

    Args:
        path: one file, a list of files, or a glob pattern; files may be compressed (.xz, .gz, .bz2).
        labels: labels that every frame must have: ``energy``, ``forces``, ``stress``, ``magmoms``, …, or inputs such
            as ``charge`` and ``fixed`` (from the column ``move_mask``).
        optional_labels: labels that are used where a frame has them.
        energy_key: key of the energy in the file; None looks for the usual ones (energy, REF_energy, …).
        forces_key: key of the forces, likewise.
        stress_key: key of the stress or virial, likewise; a key with "virial" in it is −V·stress.
        group_key: key of what frames of one group share, such as a trajectory; every frame must have it.
        energy_unit: unit of energies and virials in the file, see `LabelUnits`.
        length_unit: unit of positions and cell; forces are in energy_unit / length_unit.
        stress_unit: unit of stresses.
        stress_sign: 1 if tension is positive, −1 if pressure is.
        max_force: eV/Å; a frame with a larger force is refused.
        include_isolated_atoms: keep isolated atoms among the samples.
        licence: licence of the data, for the record.
        citation: how to cite the data, for the record.

    Raises (the files when they are read):
        DataError: files that are not there, empty, truncated or no extxyz; labels that are missing, ambiguous, or
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
        group_key: str | None = None,
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
        self._reader = LabelReader(tuple(labels), tuple(optional_labels), keys, units, float(max_force))
        self._group_key = group_key
        self._include_isolated = include_isolated_atoms
        # Of an isolated atom that is no sample only the energy matters.
        energy_only = replace(self._reader, required=("energy",), optional=(), keys={"energy": energy_key})
        self._atom_reader = self._reader if include_isolated_atoms else energy_only
        self._files = expand_paths(path)
        self.units = units.as_dict()
        self.licence = licence
        self.citation = citation

    def chunks(self) -> Iterator[Chunk]:
        """Cut the files at frames, without parsing them; a compressed file is one chunk.

        Raises:
            DataError: a file is truncated or no extxyz; chunks before the damage have been handed out.
        """
        for file in self._files:
            if file.suffix in COMPRESSED:
                yield Chunk(str(file), (str(file), 0, None, 0, 0), None, _size(file))
                continue
            for part in sections(file):
                key = f"{file}:{part.first}-{part.first + part.count - 1}"
                location = (str(file), part.first, part.count, part.start, part.stop)
                yield Chunk(
                    key, location, None if self._include_isolated else part.count, max(part.stop - part.start, 1)
                )

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the frames of a chunk, see `Dataset.read`.

        An isolated atom that is kept among the samples comes twice: once as a sample.

        Raises:
            DataError: the layout of the file is broken, or it has changed since it was cut.
        """
        for where, frame in _located_frames(chunk):
            if isinstance(frame, DataError):
                yield frame
                continue
            try:
                yield from self._samples(frame, where)
            except DataError as error:
                yield error

    def _samples(self, frame: Frame, where: str) -> Iterator[Sample]:
        """Read a frame; an isolated atom that is kept comes once as such and once as a sample."""
        alone = is_isolated_atom(frame, where)
        reader = self._atom_reader if alone else self._reader
        reader.units.check_hints(frame.info, where)
        found = reader.read(frame, where, ("energy",) if alone else None)
        info = self._info(frame, where, grouped=not alone or self._include_isolated)
        scale = reader.units.to_angstrom
        atoms = Atoms(frame.numbers, positions=frame.positions * scale, cell=frame.cell * scale, pbc=frame.pbc)
        merge_keys(self._first_keys, {label: (key, where) for label, key in found["keys"].items()})
        if alone:
            yield Sample(atoms, found["values"], info, isolated=True)
        if not alone or self._include_isolated:
            yield Sample(atoms.copy() if alone else atoms, found["values"], info)

    def _info(self, frame: Frame, where: str, grouped: bool) -> dict[str, Any]:
        info = {"source": where}
        config_type = _config_type(frame)
        if config_type is not None:
            info["config_type"] = str(config_type)
        if self._group_key is not None and grouped:
            if self._group_key not in frame.info:
                listing = ", ".join(sorted(frame.info)) or "none"
                raise MissingLabel("group", f"group_key is '{self._group_key}', the keys there are: {listing}.", where)
            info["group"] = str(frame.info[self._group_key])
        return info

    @cached_property
    def _first_keys(self) -> dict[str, tuple[str, str]]:
        """The key of each label and where it was met first; to begin with, those of the first frame with labels.

        All processes that read the data set begin with the same frame.
        """
        known: dict[str, tuple[str, str]] = {}
        for file in self._files:
            with closing(_open_frames(file)) as frames:
                for number, frame in enumerate(islice(frames, LOOKED_AT)):
                    where = f"{file}:{number}"
                    try:
                        if isinstance(frame, DataError) or is_isolated_atom(frame, where):
                            continue
                        keys = self._reader.read(frame, where)["keys"]
                    except DataError:
                        continue
                    return {label: (key, where) for label, key in keys.items()}
        return known

    def label_keys(self) -> dict[str, tuple[str, str]]:
        """Return the keys of the labels, see `Dataset.label_keys`."""
        return dict(self._first_keys)

    def check_labels(self, found: set[str]) -> None:
        """Refuse a key that was named for an optional label and that no frame has."""
        self._reader.check_found(found, "frame")

    def explain_empty(self, isolated: dict[str, tuple[float, str]]) -> str:
        """Say that there are only isolated atoms."""
        return (
            f"'{self._files[0]}' holds only isolated atoms. Add files with structures to train on, or set "
            "include_isolated_atoms: true."
        )

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Recognise an extxyz file by its first lines."""
        if cls is not ExtxyzDataset or not path.is_file():
            return None
        name = path.with_suffix("") if path.suffix in COMPRESSED else path
        if name.suffix in SUFFIXES and path.suffix in COMPRESSED:
            return Recognition(1)
        return Recognition(1) if looks_like_extxyz(path, by_name=name.suffix in SUFFIXES) else None


LOOKED_AT = 100
"""Frames of a file that are looked at for the keys of the labels."""


def is_isolated_atom(atoms: Frame | Atoms, where: str) -> bool:
    """Whether a frame is there for the energy of a single atom; an ion is one only if it says so.

    Raises:
        DataError: it says so, but has several atoms.
    """
    config_type = _config_type(atoms)
    if config_type is None and len(atoms) > 1:
        return False
    name = str(config_type or "")
    declared = name.lower().replace("_", "").replace(" ", "") in ("isolatedatom", "isolatedatoms")
    if declared and len(atoms) != 1:
        raise DataError(f"{where}: config_type is '{name}', but the frame has {len(atoms)} atoms.")
    charged = any(np.any(atoms.info.get(key, 0)) for key in CANDIDATES["charge"])
    return declared or (len(atoms) == 1 and not np.any(atoms.pbc) and not charged)


def _config_type(atoms: Frame | Atoms) -> Any:
    return atoms.info.get("config_type", atoms.info.get("configtype"))


def _size(file: Path) -> int:
    try:
        return max(file.stat().st_size, 1)
    except OSError as error:
        raise DataError(f"Cannot read '{file}': {error.strerror or error}.") from error


def _open_frames(file: Path) -> Iterator[Frame | DataError]:
    with open_binary(file) as stream:
        yield from frames_from(stream, str(file))


def _located_frames(chunk: Chunk) -> Iterator[tuple[str, Frame | DataError]]:
    """Read the frames of a chunk with their "file:frame"."""
    name, first, count, start, stop = chunk.location
    if count is None:
        frames = _open_frames(Path(name))
    else:
        try:
            with open(name, "rb") as stream:
                stream.seek(start)
                content = stream.read(stop - start)
        except OSError as error:
            raise DataError(f"Cannot read '{name}': {error.strerror or error}.") from error
        frames = frames_from(BytesIO(content), name, first)
    number = first - 1
    with closing(frames):
        for number, frame in enumerate(frames, start=first):
            yield f"{name}:{number}", frame
    if count is not None and number != first + count - 1:
        raise DataError(f"'{name}' has changed while it was read. Read it again.")
