"""rMD17 and MD17: ten small molecules, 100,000 frames of each; the published npz files, or extxyz made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.units import KCAL_PER_MOL
from mlip.data.datasets.base import Chunk, Dataset, Recognition
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.datasets.rmd17_npz import NpzFrames
from mlip.data.sample import Sample

MOLECULES = (
    *("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene", "paracetamol"),
    *("salicylic", "toluene", "uracil"),
)
"""Molecules of rMD17, as its files name them."""

BOX = 50.0
"""Å; edge of the box that the extxyz form puts around its molecules."""

_FILE = re.compile(r"^(?:rmd17|md17)_(.+)\.npz$")


class RMD17Dataset(Dataset):
    """One molecule of rMD17 or MD17.

    An npz file is in kcal/mol and is converted with ASE's factor. The extxyz form (key ``Energy``, eV) has a box of
    50 Å with pbc T T T, which is an artefact: cell and pbc are dropped.

    Args:
        path: the unpacked archive (``npz_data/``, ``splits/``), a folder with ``rmd17_MOLECULE.npz``, one npz file;
            or one extxyz file, or a folder with ``train_01.xyz`` and ``test_01.xyz``.
        molecule: which one, where the folder has several.
        official_valid: how many frames at the end of an official training part validate.

    Raises:
        DataError: no such file or molecule, or a damaged file.
        ConfigError: a negative ``official_valid``.
    """

    provides = ("energy", "forces")
    citation = "A. S. Christensen, O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020)"
    licence = "CC0 (figshare 12672038)"
    official_splits: ClassVar[tuple[str, ...]] = ("01", "02", "03", "04", "05")

    def __init__(self, path: str | PathLike[str], molecule: str | None = None, official_valid: int = 0) -> None:
        if official_valid < 0:
            raise ConfigError(f"official_valid must be 0 or a number of frames, got {official_valid}.")
        files = find_files(Path(path).expanduser(), molecule)
        self._files = files
        self._valid = int(official_valid)
        self._source: NpzFrames | ExtxyzDataset
        self.units = {"energy": "eV", "forces": "eV/Angstrom", "positions": "Angstrom"}
        self.level_of_theory = {"functional": "PBE", "basis": "def2-SVP", "code": "ORCA"}
        if files[0].suffix != ".npz":
            self._source = ExtxyzDataset([str(file) for file in files], energy_key="Energy", forces_key="forces")
            return
        self._source = NpzFrames(files[0])
        self.units = {"energy": "kcal/mol", "forces": "kcal/mol/Angstrom", "positions": "Angstrom"}
        if self._source.layout == "MD17":
            self.citation = "S. Chmiela et al., Sci. Adv. 3, e1603015 (2017)"
            self.licence = "not stated"
            # The same layout holds DFT and coupled-cluster sets.
            self.level_of_theory = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        source = self._source
        if isinstance(source, ExtxyzDataset):
            return _without_box(source[index])
        if not 0 <= index < len(source):
            raise IndexError(index)
        where = f"{source.path}:{index}"
        arrays = source.arrays
        positions, energy, forces = (arrays[name][index] for name in ("positions", "energies", "forces"))
        for name, value in (("positions", positions), ("energy", energy), ("forces", forces)):
            if not np.isfinite(value).all():
                raise DataError(f"{where}: the {name} are not finite (NaN or inf). Remove the frame.")
        labels = {
            "energy": np.array(float(energy) * KCAL_PER_MOL),
            "forces": forces.astype(np.float64) * KCAL_PER_MOL,
        }
        atoms = Atoms(arrays["numbers"].astype(np.int64), positions=positions.astype(np.float64))
        return Sample(atoms, labels, {"source": where})

    def chunks(self) -> Iterator[Chunk]:
        """Cut the frames into chunks, see `Dataset.chunks`."""
        return self._source.chunks() if isinstance(self._source, ExtxyzDataset) else super().chunks()

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the frames of a chunk, see `Dataset.read`."""
        if not isinstance(self._source, ExtxyzDataset):
            yield from super().read(chunk)
            return
        for item in self._source.read(chunk):
            yield item if isinstance(item, DataError) else _without_box(item)

    def official_split(self, name: str) -> dict[str, Sequence[int]]:
        """Return one of the five published splits, 1000 frames to train and 1000 to test.

        Raises:
            ConfigError: another name.
            DataError: the index files are not there, or do not belong to these frames.
        """
        name = str(name).zfill(2)  # YAML reads 01 as a number.
        if name not in self.official_splits:
            return super().official_split(name)
        if isinstance(self._source, NpzFrames):
            train, test = (self._indices(f"index_{part}_{name}.csv") for part in ("train", "test"))
        else:
            train, test = self._indices_of_files(name)
        if set(train) & set(test):
            raise DataError(f"The official split {name} in '{self._files[0].parent}' has frames that train and test.")
        if self._valid >= len(train):
            raise ConfigError(f"official_valid must be below the {len(train)} training frames, got {self._valid}.")
        cut = len(train) - self._valid
        return {"train": train[:cut], "valid": train[cut:], "test": test}

    def _indices(self, name: str) -> list[int]:
        """Read the indices of one part of a published split."""
        folder = self._files[0].parent
        places = [place / name for place in (folder.parent / "splits", folder / "splits", folder)]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise DataError(f"The official split needs '{places[0]}' of the published archive, which is not there.")
        try:
            indices = [int(line) for line in file.read_text(encoding="utf-8").split()]
        except (ValueError, OSError) as error:
            raise DataError(f"'{file}' must hold one whole number a line ({error}).") from error
        if not indices or len(set(indices)) < len(indices) or not 0 <= min(indices) <= max(indices) < len(self):
            raise DataError(
                f"'{file}' does not belong to '{self._files[0]}': it must hold different numbers from 0 to "
                f"{len(self) - 1}."
            )
        return indices

    def _indices_of_files(self, name: str) -> tuple[list[int], list[int]]:
        if [file.name for file in self._files] != [f"train_{name}.xyz", f"test_{name}.xyz"]:
            raise DataError(
                f"The official split {name} needs a folder with train_{name}.xyz and test_{name}.xyz as data.path, "
                f"got {', '.join(str(file) for file in self._files)}."
            )
        sources = [sample.source for sample in self._source]
        train, test = ([k for k, source in enumerate(sources) if source.startswith(f"{f}:")] for f in self._files)
        return train, test

    def fields(self) -> set[str]:
        """Energies and forces."""
        return set(self.provides)

    def num_atoms(self) -> np.ndarray | None:
        """Return (samples,) atoms of an npz file, else None."""
        source = self._source
        return np.full(len(source), source.num_atoms) if isinstance(source, NpzFrames) else None

    @property
    def in_memory(self) -> bool:
        """Whether the samples are a list: of extxyz files."""
        return isinstance(self._source, ExtxyzDataset)

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Recognise npz files by their arrays, folders by their names, extxyz files by the box and ``Energy``."""
        try:
            if path.is_dir():
                file = find_files(path, None)[0]
                return Recognition(3 if _FILE.match(file.name) else 2) if _is_one(file) else None
            return Recognition(3 if _FILE.match(path.name) else 2) if _is_one(path) else None
        except DataError as error:
            several = sorted(_molecules(path)) if path.is_dir() else []
            return Recognition(3, note=str(error), preview={"molecule": several[0]}) if several else None
        except OSError:
            return None


def find_files(path: Path, molecule: str | None) -> list[Path]:
    """Return the files of one molecule: one npz file, or extxyz files.

    Raises:
        DataError: nothing is there, or several molecules are and none is named.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(
            f"'{path}' is not there: set data.path to the unpacked rMD17 archive, a folder of it, or one of its files."
        )
    files = _molecules(path)
    there = ", ".join(sorted(files)) or "none"
    if molecule is not None and molecule not in files:
        raise DataError(f"'{path}' has no molecule '{molecule}'.{did_you_mean(molecule, files)} There: {there}.")
    if molecule is None and len(files) != 1:
        what = "no files of rMD17" if not files else "several molecules"
        raise DataError(f"'{path}' has {what}: set data.dataset.molecule to one of them. There: {there}.")
    return files[molecule] if molecule is not None else next(iter(files.values()))


def _molecules(path: Path) -> dict[str, list[Path]]:
    """Return the files of every molecule in a folder; npz files where a molecule has both."""
    own = _xyz_files(path)
    folders = {path.name: own} if own else {name: _xyz_files(path / name) for name in MOLECULES}
    files = {name: found for name, found in folders.items() if found}
    return files | {match[1]: [file] for file in _npz_files(path) if (match := _FILE.match(file.name))}


def _npz_files(path: Path) -> list[Path]:
    folders = (path, path / "npz_data", path / "rmd17" / "npz_data")
    return next((found for folder in folders if (found := sorted(folder.glob("*md17_*.npz")))), [])


def _xyz_files(folder: Path) -> list[Path]:
    """Return the training and test file of one split, if the folder has exactly one."""
    train = sorted(folder.glob("train_0[1-5].xyz"))
    test = [file.with_name(file.name.replace("train", "test")) for file in train]
    return [*train, *test] if len(train) == 1 and test[0].is_file() else []


def _is_one(file: Path) -> bool:
    """Whether a file has the arrays of an npz file, or the box and the key of the extxyz form."""
    if file.suffix == ".npz":
        return len(NpzFrames(file)) > 0
    if file.suffix != ".xyz":
        return False
    with file.open("rb") as stream:
        comment = stream.read(4096).split(b"\n")[1:2]
    return bool(comment) and b" Energy=" in comment[0] and f'Lattice="{BOX} 0.0 0.0 0.0 {BOX} '.encode() in comment[0]


def _without_box(sample: Sample) -> Sample:
    return Sample(Atoms(sample.atoms.numbers, positions=sample.atoms.positions), sample.labels, sample.info)
