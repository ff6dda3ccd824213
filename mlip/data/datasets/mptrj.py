"""MPtrj: 1.58 million frames of Materials Project relaxations, in every layout that they are passed around in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.data.datasets.base import Chunk, Recognition
from mlip.data.datasets.mptrj_db import MPtrjDatabase
from mlip.data.datasets.mptrj_extxyz import FolderMembers, MPtrjMembers, MPtrjXyz, ZipMembers
from mlip.data.datasets.mptrj_frame import ENERGIES, Choice, MPtrjFrame
from mlip.data.datasets.mptrj_json import MPtrjJson, looks_like_json
from mlip.data.datasets.streamed import StreamedDataset
from mlip.data.formats.bounded import open_binary, without_compression
from mlip.data.sample import Sample

HEAD = 1 << 12
_ZIP = b"PK\x03\x04"
_SQLITE = b"SQLite format 3\x00"
_TEXT_MARKS = re.compile(rb"^.*\n.*(?:mptrj_traj_id|mp2020_corrected_energy)=")
_MEMBER = re.compile(rb"(?:^|/)(?:mp|mvc)-\d+\.(?:ext)?xyz")


class Layout(Protocol):
    """One way in which the frames are kept in files."""

    def chunks(self) -> Iterator[Chunk]:
        """See `Dataset.chunks`."""

    def frames(self, chunk: Chunk) -> Iterator[MPtrjFrame | DataError]:
        """Read the frames of a chunk."""


class MPtrjDataset(StreamedDataset):
    """MPtrj (PBE and PBE+U, 89 elements): energy, forces, stress, and magnetic moments where they are known.

    The 12 GB JSON is cut at materials and never held; the extxyz zip, a folder of its files, one extxyz file with
    frames of many materials, and ASE databases are read, too. ``info`` has ``group`` (the mp-id), ``task_id``,
    ``calc_id`` (0 the second relaxation, 1 the first), ``ionic_step`` and ``bandgap`` (eV) where they are known.

    Args:
        path: a file in any layout, or a folder with a ``<mp_id>.extxyz`` for every material.
        energy: ``corrected`` (MP2020 corrections, as CHGNet trains) or ``uncorrected`` (as VASP gave it, as most
            others train). They differ by up to electronvolts per atom and must not be mixed, so there is no default.
        absolute_magmoms: keep the size of magnetic moments only, as CHGNet trains.
        include: only these materials: a list of mp-ids or a text file with one a line.
        exclude: leave these out, likewise.

    Raises:
        ConfigError: no such energy.
        DataError: no such file, or one in no known layout; when it is read: a frame without the chosen energy,
            labels that cannot be right, damaged files.
    """

    licence = "MIT (as listed by Matbench Discovery)"
    citation = "B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3"

    def __init__(
        self,
        path: str | PathLike[str],
        energy: str,
        absolute_magmoms: bool = False,
        include: Sequence[str] | str | PathLike[str] | None = None,
        exclude: Sequence[str] | str | PathLike[str] | None = None,
    ) -> None:
        if energy not in ENERGIES:
            raise ConfigError(
                f"energy must be corrected (MP2020) or uncorrected (VASP), got {energy!r}."
                f"{did_you_mean(str(energy), ENERGIES)}"
            )
        self._choice = Choice(energy, absolute_magmoms)
        self._include = None if include is None else _materials(include)
        self._exclude = _materials(exclude if exclude is not None else ())
        self._layout = open_layout(path)
        stress = "kbar, pressure positive" if isinstance(self._layout, MPtrjJson) else "eV/A^3"
        self.units = {"energy": "eV", "length": "Angstrom", "forces": "eV/Angstrom", "stress": stress, "magmoms": "muB"}
        self.level_of_theory = {
            "functional": "PBE, PBE+U for oxides and fluorides of Co Cr Fe Mn Mo Ni V W",
            "code": "VASP, Materials Project 2022.9",
            "energy": "MP2020 corrections included" if energy == "corrected" else "as calculated, no corrections",
        }

    def chunks(self) -> Iterator[Chunk]:
        """Cut the files, see `Dataset.chunks`."""
        return self._layout.chunks()

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the samples of a chunk, see `Dataset.read`."""
        for frame in self._layout.frames(chunk):
            if isinstance(frame, DataError):
                yield frame
                continue
            if frame.mp_id in self._exclude or (self._include is not None and frame.mp_id not in self._include):
                continue
            try:
                yield self._choice.sample(frame)
            except DataError as error:
                yield error

    def explain_empty(self, isolated: dict[str, float]) -> str:
        """Say why there is nothing to train on."""
        chosen = self._include is not None or self._exclude
        return "No material is left: look at include and exclude." if chosen else "The files hold no structures."

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Look at the first kilobytes of a file, or at the names in a folder."""
        if not _is_mptrj(path):
            return None
        note = "MPtrj has two energies: choose data.dataset.energy=uncorrected (VASP) or corrected (MP2020)."
        return Recognition(3, {}, note, {"energy": "uncorrected"})


def open_layout(path: str | PathLike[str]) -> Layout:
    """Return the reader of a path; its first bytes decide.

    Raises:
        DataError: no such file, or one in no known layout.
    """
    if path is None or path in ("", "???"):
        raise DataError("MPtrj needs a path: set data.path to MPtrj_2022.9_full.json or the extxyz zip.")
    place = Path(path).expanduser()
    if place.is_dir() and not (place / "data.mdb").is_file():
        names = sorted(entry.name for entry in place.iterdir())
        if any(_MEMBER.match(name.encode()) for name in names):
            return MPtrjMembers(FolderMembers(place))
        raise DataError(f"'{place}' has no files such as mp-149.extxyz. Set data.path to one file of MPtrj.")
    if not place.exists():
        there = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
        raise DataError(f"There is no file '{place}'.{did_you_mean(place.name, there)}")
    name, head = without_compression(place), _head(place)
    if head.startswith(_ZIP) or name.endswith(".zip"):
        return MPtrjMembers(ZipMembers(place))
    if head.startswith(_SQLITE) or name.endswith((".db", ".aselmdb")) or place.is_dir():
        return MPtrjDatabase(place)
    if name.endswith(".json") or head.lstrip().startswith(b"{"):
        return MPtrjJson(place)
    if name.endswith((".xyz", ".extxyz")):
        return MPtrjXyz(place)
    raise DataError(f"'{place}' is in no layout of MPtrj: .json, .zip of extxyz, .extxyz, .db or .aselmdb.")


def _head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error


def _is_mptrj(path: Path) -> bool:
    try:
        if path.is_dir():
            return any(_MEMBER.match(entry.name.encode()) for entry in path.iterdir())
        with open_binary(path) as stream:
            head = stream.read(HEAD)
        if head.startswith(_ZIP):
            # The name of the first file stands after 30 bytes.
            return _MEMBER.search(head[30 : 30 + int.from_bytes(head[26:28], "little")]) is not None
        if head.startswith(_SQLITE):
            layout = MPtrjDatabase(path)
            first = next(layout.frames(Chunk("", (0, 1))), None)
            return isinstance(first, MPtrjFrame) and first.corrected is not None
        return looks_like_json(head) or _TEXT_MARKS.match(head) is not None
    except (DataError, OSError):
        return False


def _materials(source: Sequence[str] | str | PathLike[str]) -> frozenset[str]:
    if not isinstance(source, str | PathLike):
        return frozenset(map(str, source))
    path = Path(source).expanduser()
    try:
        return frozenset(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read the list of materials '{path}': {error}.") from error
