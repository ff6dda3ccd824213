"""Results of VASP: ``vasprun.xml`` and ``OUTCAR`` files, calculations, and folders full of these."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import glob
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.data.datasets.base import Chunk, Recognition
from mlip.data.datasets.streamed import StreamedDataset
from mlip.data.formats.bounded import open_binary, without_compression
from mlip.data.formats.frame import Frame
from mlip.data.formats.vasp_outcar import END, read_outcar
from mlip.data.formats.vasp_step import VaspStep
from mlip.data.formats.vasp_xml import read_xml
from mlip.data.label_units import LabelUnits
from mlip.data.labels import LabelReader
from mlip.data.sample import Sample

log = logging.getLogger(__name__)

# Custodian, and with it the Materials Project, writes vasprun.xml.relax1.gz.
XML_NAME = re.compile(r"(?:.*[._-])?vasprun(?:[._-].*)?\.xml(?:[._-](?:relax|static|run|step)?\d*)?", re.IGNORECASE)
OUTCAR_NAME = re.compile(r"(?:.*[._-])?OUTCAR(?:[._-].*)?")
KINDS = {"vasprun": XML_NAME, "outcar": OUTCAR_NAME}

CHUNK_BYTES = 32 * 2**20
CHUNK_FILES = 500
_TAIL = 2**18
_COPIES = (".bak", ".old", ".orig", ".tmp", "~")
_CHOICES = {
    "energy": ("sigma0", "free"),
    "steps": ("all", "last"),
    "unconverged": ("error", "skip", "keep"),
    "incomplete": ("error", "keep"),
    "files": ("vasprun", "outcar"),
}


class VaspDataset(StreamedDataset):
    """Ionic steps of VASP calculations.

    Of a folder with several results, the files of one kind are read (``vasprun.xml`` first, which has more digits),
    never two accounts of the same run. All steps of a folder are one ``info["group"]``: frames of a relaxation are
    near duplicates. Stresses come out in ASE's sign.

    Args:
        path: a result file (also .gz, .xz, .bz2), the folder of a calculation, a tree of these, a glob, or a list.
        energy: ``sigma0``, extrapolated to no smearing (what ASE calls the energy, and most published sets have), or
            ``free``, the free energy of the electrons, whose gradient the forces are.
        steps: ``all`` ionic steps, or only the ``last`` one of each file.
        unconverged: what to do with steps whose electrons did not converge: ``error``, ``skip`` or ``keep``.
        incomplete: what to do with files of runs that were killed or still go on: ``error``, or ``keep`` the steps
            that are whole.
        files: ``vasprun`` or ``outcar`` (needed for magnetic moments, which only it has); None takes what a folder
            has, ``vasprun.xml`` first.
        labels: labels that every step must have.
        optional_labels: labels that are used where a step has them; ``magmoms`` need LORBIT and collinear spins.
        max_force: eV/Å; a step with a larger force is refused.
        licence: licence of the data, for the record.
        citation: how to cite the data, for the record.

    Attributes:
        num_skipped: steps that were left out as not converged by this process, so far.

    Raises:
        DataError: no such files; steps that are damaged, not converged, or not from DFT.
        ConfigError: an unknown choice or label.
    """

    level_of_theory: Mapping[str, str] = {"code": "VASP"}

    def __init__(
        self,
        path: str | PathLike[str] | Sequence[str | PathLike[str]],
        energy: str,
        steps: str = "all",
        unconverged: str = "error",
        incomplete: str = "error",
        files: str | None = None,
        labels: Sequence[str] = ("energy", "forces"),
        optional_labels: Sequence[str] = ("stress", "magmoms", "fixed"),
        max_force: float = 1000.0,
        licence: str = "not stated",
        citation: str = "not stated",
    ) -> None:
        chosen = {"energy": energy, "steps": steps, "unconverged": unconverged, "incomplete": incomplete}
        for name, value in (*chosen.items(), ("files", files)):
            known = _CHOICES[name]
            if value not in known and not (name == "files" and value is None):
                raise ConfigError(
                    f"{name} must be one of {', '.join(known)}, got {value!r}.{did_you_mean(str(value), known)}"
                )
        self._energy, self._steps, self._unconverged, self._incomplete = chosen.values()
        self._reader = LabelReader(
            tuple(labels),
            tuple(label for label in optional_labels if label not in labels),
            {"energy": "energy", "forces": "forces", "stress": "stress", "magmoms": "magmoms", "fixed": "fixed"},
            LabelUnits(),
            float(max_force),
        )
        self._files = find_results(path, files)
        self.units = {
            "energy": "eV",
            "forces": "eV/Angstrom",
            "stress": "kbar, pressure positive",
            "positions": "Angstrom",
        }
        self.licence = licence
        self.citation = citation
        self.num_skipped = 0

    def chunks(self) -> Iterator[Chunk]:
        """Cut the list of files; a file is never cut."""
        start = 0
        size = 0
        for number, file in enumerate(self._files):
            size += file.stat().st_size
            last = number == len(self._files) - 1
            if last or size >= CHUNK_BYTES or number + 1 - start >= CHUNK_FILES:
                yield Chunk(f"{start}-{number}:{self._files[start]}", (start, number + 1), None, max(size, 1))
                start, size = number + 1, 0

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the steps of the files of a chunk, see `Dataset.read`."""
        before = self.num_skipped
        for number in range(*chunk.location):
            yield from self._read_file(self._files[number])
        skipped = self.num_skipped - before
        if skipped:
            first = self._files[chunk.location[0]]
            log.warning("%d ionic steps in %s and later files left out: not converged", skipped, first)

    def _read_file(self, file: Path) -> Iterator[Sample | DataError]:
        try:
            steps: Iterable[tuple[int, VaspStep | DataError]] = enumerate(self._open(file))
            if self._steps == "last":
                steps = _last(steps)
            for number, step in steps:
                where = f"{file}:{number}"
                if isinstance(step, DataError):
                    yield step
                    continue
                if step.converged is not True and self._unconverged == "skip":
                    self.num_skipped += 1
                    continue
                try:
                    yield self._sample(step, file, where)
                except DataError as error:
                    yield error
        except DataError as error:
            yield error

    def _open(self, file: Path) -> Iterator[VaspStep | DataError]:
        keep = self._incomplete == "keep"
        with open_binary(file) as handle:
            is_xml = handle.peek(64)[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")  # type: ignore[attr-defined]
        if not keep:
            end = b"</modeling>" if is_xml else END.encode()
            if end not in _tail(file):
                raise DataError(
                    f"'{file}' is incomplete: the run was killed or still goes on, or the file is truncated. Set "
                    "incomplete: keep to use the steps that are whole."
                )
        empty = True
        with open_binary(file) as handle:
            for step in read_xml(handle, str(file), keep) if is_xml else read_outcar(handle, str(file)):
                empty = False
                yield step
        if empty:
            raise DataError(f"'{file}' has no whole ionic step.")

    def _sample(self, step: VaspStep, file: Path, where: str) -> Sample:
        if step.converged is not True and self._unconverged == "error":
            state = "may not be converged: the file does not say" if step.converged is None else "are not converged"
            raise DataError(
                f"{where}: the electrons {state} after {step.num_scf} steps. Set unconverged: skip to leave such steps "
                "out, or unconverged: keep if you know that they are good enough."
            )
        unknown = next((symbol for symbol in step.symbols if symbol not in atomic_numbers or symbol == "X"), None)
        if unknown is not None or not step.symbols:
            raise DataError(f"{where}: {unknown!r} is no chemical element.")
        if not all(np.isfinite(array).all() for array in (step.positions, step.cell)):
            raise DataError(f"{where}: positions or cell are not finite.")
        results: dict[str, Any] = {
            "energy": step.free_energy if self._energy == "free" else step.energy_sigma0,
            "forces": step.forces,
        }
        results |= {
            name: value for name, value in (("stress", step.stress), ("magmoms", step.magmoms)) if value is not None
        }
        numbers = np.array([atomic_numbers[symbol] for symbol in step.symbols])
        frame = Frame(numbers, step.positions, step.cell, np.ones(3, dtype=bool), results=results, fixed=step.fixed)
        labels = self._reader.read(frame, where)["values"]
        atoms = Atoms(numbers, positions=step.positions, cell=step.cell, pbc=True)
        info = {"source": where, "group": str(file.parent), "scf_steps": step.num_scf}
        if step.converged is not True:
            info["converged"] = False
        return Sample(atoms, labels, info)

    def explain_empty(self, isolated: dict[str, tuple[float, str]]) -> str:
        """Say that nothing is left."""
        return f"No ionic step is left of {len(self._files)} files; {self.num_skipped} were skipped as not converged."

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Recognise files by VASP's names, and folders that have one within three levels."""
        note = "Choose energy: sigma0 (most published sets) or free (what the forces are the gradient of)."
        names = [path] if path.is_file() else []
        if path.is_dir():
            names = [file for level in ("*", "*/*", "*/*/*") for file in _first(path.glob(level), 1000)]
        for file in names:
            name = without_compression(file)
            if any(pattern.fullmatch(name) for pattern in KINDS.values()) and file.is_file():
                return Recognition(3, note=note, preview={"energy": "sigma0"})
        return None


def _first(items: Iterable[Path], number: int) -> list[Path]:
    return [item for _, item in zip(range(number), items)]


def _last(items: Iterable[Any]) -> list[Any]:
    """Return the last of some items, in a list; [] of none."""
    found: list[Any] = []
    for item in items:
        found = [item]
    return found


def _tail(file: Path) -> bytes:
    """Return the last bytes of a file's content."""
    if without_compression(file) == file.name:
        with open_binary(file) as handle:
            handle.peek(1)  # type: ignore[attr-defined]
        try:
            with file.open("rb") as raw:
                raw.seek(max(0, raw.seek(0, os.SEEK_END) - _TAIL))
                return raw.read()
        except OSError as error:
            raise DataError(f"Cannot read '{file}': {error.strerror or error}.") from error
    tail = b""
    with open_binary(file) as handle:
        while piece := handle.read(2**20):
            tail = (tail + piece)[-_TAIL:]
    return tail


def find_results(path: str | PathLike[str] | Sequence[str | PathLike[str]], kind: str | None) -> list[Path]:
    """Return the result files behind a file, a folder, a tree, a glob or a list of these.

    Args:
        path: as the user names it.
        kind: ``vasprun`` or ``outcar``; None takes one of them in each folder.

    Raises:
        DataError: nothing is there, or a file is listed twice.
    """
    if path is None or path in ("", "???"):
        raise DataError("The data set needs a path: set data.path to a vasprun.xml, an OUTCAR, or a folder of them.")
    found: list[Path] = []
    for item in path if isinstance(path, Sequence) and not isinstance(path, str) else [path]:
        text = str(Path(item).expanduser())
        matches = [text] if Path(text).exists() else sorted(glob(text, recursive=True))
        if not matches:
            folder = Path(text).parent
            names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
            raise DataError(f"No file matches '{text}'.{did_you_mean(Path(text).name, names)}")
        for match in matches:
            found.extend(_below(Path(match), kind) if Path(match).is_dir() else [Path(match)])
    repeated = sorted({str(file) for file in found if found.count(file) > 1}) if len(set(found)) < len(found) else []
    if repeated:
        raise DataError(f"Each file may be listed once, these are repeated: {', '.join(repeated)}.")
    return found


def _below(folder: Path, kind: str | None) -> list[Path]:
    """Return the results in a folder and its sub-folders, of one kind in each of these."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for pattern in [KINDS[kind]] if kind else KINDS.values():
            results = _results(names, pattern)
            if results:
                found.extend(Path(parent, name) for name in results)
                break
    if not found:
        wanted = {"vasprun": "vasprun.xml", "outcar": "OUTCAR", None: "vasprun.xml or OUTCAR"}[kind]
        raise DataError(f"No {wanted} in '{folder}' or its sub-folders.")
    return found


def _results(names: Iterable[str], pattern: re.Pattern[str]) -> list[str]:
    """Return the names that fit, sorted; of a file that is there with and without compression, one."""
    found: dict[str, str] = {}
    for name in sorted(names, key=len):
        plain = without_compression(name)
        if pattern.fullmatch(plain) and not plain.endswith(_COPIES):
            found.setdefault(plain, name)
    return sorted(found.values())
