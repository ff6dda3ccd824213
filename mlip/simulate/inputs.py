"""Many structures to simulate: files, patterns, folders, databases, JSON of pymatgen and stores, in one order."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from mlip.core.errors import MlipError, StructureError
from mlip.data.formats.pymatgen_structure import read_held
from mlip.data.formats.pymatgen_structure import read_structure as from_pymatgen
from mlip.simulate.poscar import as_constraints
from mlip.simulate.structures import read_frames, structure_problem

if TYPE_CHECKING:
    from mlip.data.sample import Sample

Other = Callable[[Path], "Iterable[Sample | MlipError]"]
"""Reads a path of a format that ASE does not know; raises `MlipError` if nobody does."""

SUFFIXES = (
    ".cif", ".vasp", ".poscar", ".contcar", ".xyz", ".extxyz", ".traj", ".db", ".json", ".xsf", ".res", ".pdb", ".gen",
)  # fmt: skip
"""What is read of a folder, also with ``.gz``; and files whose names begin with POSCAR or CONTCAR."""

LARGEST_JSON = 1_000_000_000
"""Bytes of JSON that are read into memory."""


@dataclass(frozen=True)
class InputStructure:
    """A structure of the input, or why there is none.

    Attributes:
        name: the file, and ``#3`` or ``#mp-1`` where it holds several.
        atoms: without a calculator; None if it cannot be used.
        error: one sentence; "" if there is none.
    """

    name: str
    atoms: Atoms | None
    error: str = ""


def find_inputs(words: Sequence[str]) -> list[Path]:
    """Return files, and folders that are stores, for what a user names; each once, in the order of the words.

    Args:
        words: files, folders (their structure files, sorted; not those of folders in them), stores that ``mlip data
            prepare`` made, patterns such as ``"runs/**/*.cif"``.

    Raises:
        StructureError: a pattern without a match, or a folder without a structure file.
    """
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir() and not _is_store(path):
            inside = [one for one in sorted(path.iterdir()) if _is_structure_file(one)]
            if not inside:
                raise StructureError(
                    f"The folder '{word}' holds no structure file ({', '.join(SUFFIXES)}) and no store."
                )
        elif any(sign in word for sign in "*?[") and not path.exists():
            inside = [Path(one) for one in sorted(glob(str(path), recursive=True)) if Path(one).is_file()]
            if not inside:
                raise StructureError(f"No file matches '{word}'. Check the pattern, and put it into quotes.")
        else:
            inside = [path]
        found.update(dict.fromkeys(inside))
    return list(found)


def read_inputs(
    paths: Iterable[Path], frame: int | None = None, other: Other | None = None
) -> Iterator[InputStructure]:
    """Read the structures of files and stores one after the other; what cannot be read becomes an error and the rest
    goes on.

    Args:
        paths: as of `find_inputs`.
        frame: only this one of every file, counted from 0, negative from the end; None for all.
        other: is asked where ASE does not know the format.
    """
    for path in paths:
        try:
            found = list(_contents(path, other))
            if frame is not None:
                if not -len(found) <= frame < len(found):
                    raise StructureError(f"'{path}' has no frame {frame}, it has {len(found)}: they count from 0.")
                found = [found[frame]]
        except MlipError as error:
            yield InputStructure(str(path), None, str(error))
            continue
        several = len(found) > 1 or frame is not None
        for key, content in found:
            name = f"{path}#{key}" if several else str(path)
            if isinstance(content, MlipError):
                yield InputStructure(name, None, str(content))
                continue
            problem = structure_problem(content)
            error = "" if problem is None else f"The structure '{name}' {problem}."
            yield InputStructure(name, None if error else content, error)


def _contents(path: Path, other: Other | None) -> Iterator[tuple[str, Atoms | MlipError]]:
    """Yield structures with what tells them apart."""
    if path.is_dir():
        from mlip.data.datasets.store import StoreDataset

        store = StoreDataset(path)
        yield from _of_samples(sample for chunk in store.chunks() for sample in store.read(chunk))
        return
    if path.is_file() and path.name.endswith((".json", ".json.gz")):
        structures = list(_structures_of_json(_load_json(path), str(path), ""))
        if structures:
            yield from structures
            return
    try:
        frames = read_frames(path)
    except StructureError:
        if other is None or not path.is_file() or path.stat().st_size == 0:
            raise
        try:
            found = list(_of_samples(other(path)))
        except MlipError:
            found = []
        if not any(isinstance(content, Atoms) for _, content in found):
            raise
        yield from found
        return
    yield from ((str(number), atoms) for number, atoms in enumerate(frames))


def _of_samples(samples: Iterable[Sample | MlipError]) -> Iterator[tuple[str, Atoms | MlipError]]:
    for number, sample in enumerate(samples):
        if isinstance(sample, MlipError):
            yield str(number), sample
            continue
        atoms = sample.atoms.copy()
        atoms.info = {name: int(sample.labels[name]) for name in ("charge", "spin") if name in sample.labels}
        yield str(number), atoms


def _load_json(path: Path) -> Any:
    """Return the content of a JSON file; None where ASE or another reader is to look at it."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise StructureError(
                f"'{path}' has more than {LARGEST_JSON // 10**9} GB of JSON: make a store of it with mlip data prepare."
            )
        content = path.read_bytes()
        return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (ValueError, RecursionError):
        # Several values one after the other, as in JSON lines; or ASE's, or no JSON at all.
        return None
    except (OSError, EOFError, zlib.error) as error:
        raise StructureError(f"'{path}' cannot be read ({error}).") from error


def _structures_of_json(data: Any, where: str, key: str) -> Iterator[tuple[str, Atoms | MlipError]]:
    """Find every pymatgen structure below a value: alone, in entries, in lists, in the nested dicts of MPtrj."""
    if isinstance(data, dict) and "lattice" in data and "sites" in data:
        yield key or "0", _of_pymatgen(data, f"{where}#{key}" if key else where)
    elif isinstance(data, dict) and isinstance(data.get("structure"), dict):
        named = data.get("entry_id") or data.get("material_id")
        yield from _structures_of_json(data["structure"], where, str(named) if named and "/" not in key else key)
    elif isinstance(data, dict | list):
        for name, value in data.items() if isinstance(data, dict) else enumerate(data):
            if isinstance(value, dict | list):
                yield from _structures_of_json(value, where, f"{key}/{name}" if key else str(name))


def _of_pymatgen(data: Any, where: str) -> Atoms | MlipError:
    try:
        atoms = from_pymatgen(data, where)
        atoms.set_constraint(as_constraints(read_held(data, where)))
    except MlipError as error:
        return error
    return atoms


def _is_store(path: Path) -> bool:
    # Brings torch along, which takes seconds; a folder is worth that.
    from mlip.data.store.catalogue import STORE

    return (path / STORE).exists()


def _is_structure_file(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    known = name.endswith(SUFFIXES) or name.startswith(("poscar", "contcar"))
    return path.is_file() and known and not name.startswith(".")
